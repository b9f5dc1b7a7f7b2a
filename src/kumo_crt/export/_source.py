"""Where entries come from: an open database, or a directory that is captured first."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._capture import capture, identity_file, is_open_database, is_raw
from kumo_crt.backup._capture._options import newest_options
from kumo_crt.backup._local._room import no_room
from kumo_crt.backup._local._scratch import MAX_OPEN_FILES, scratch
from kumo_crt.exceptions import RepositoryError
from kumo_crt.export._manifest import COMPARATOR

Entry = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Range:
    """Keys from ``start`` on, before ``stop``.

    Attributes:
        start: None: from the beginning.
        stop: None: to the end.
    """

    start: bytes | None = None
    stop: bytes | None = None

    @classmethod
    def of(cls, prefix: bytes | None, start: bytes | None, stop: bytes | None) -> Range:
        """The keys that have a prefix and are in a range.

        Raises:
            TypeError: A bound is something else than bytes.
            ValueError: No key can be in it.
        """
        given = {"prefix": prefix, "start": start, "stop": stop}
        for name, value in given.items():
            if value is not None and not isinstance(value, bytes):
                raise TypeError(f"{name}: expected bytes, not {type(value).__name__}")
        if prefix:
            start = max(start or b"", prefix)
            end = _successor(prefix)
            stops = [bound for bound in (stop, end) if bound is not None]
            stop = min(stops, default=None)
        if start is not None and stop is not None and start >= stop:
            told = {name: value for name, value in given.items() if value is not None}
            raise ValueError(
                f"no key fits {', '.join(f'{name}={value!r}' for name, value in told.items())} "
                f"({', '.join(f'--{name}' for name in told)})"
            )
        return cls(start or None, stop)


def _successor(prefix: bytes) -> bytes | None:
    """The first key behind all that begin so; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


@dataclass(frozen=True, slots=True)
class Source:
    """A column family to be read.

    Attributes:
        entries: Its entries in a range, in order; a state of one moment.
        db_id: RocksDB's identity of the database.
    """

    entries: Generator[Entry, None, None]
    db_id: str


@contextlib.contextmanager
def opened(
    source: object,
    column_family: str,
    keys: Range,
    *,
    live: bool,
    data_paths: Sequence[str | os.PathLike[str]],
) -> Iterator[Source]:
    """Reads an open `rocksdict.Rdict`, or a directory as `Repository.backup` takes it.

    Raises:
        RepositoryLockedError: The directory's database is open, and ``live`` is not set.
        RepositoryError: There is no such column family, or its keys are not ordered as bytes.
    """
    if is_open_database(source):
        try:
            directory = Path(source.path()).resolve()
        except Exception as error:
            raise RepositoryError(f"{error}: pass the path of a database") from error
        manifest = _check(directory, directory, column_family)
        entries = _entries(source.get_column_family(column_family), keys)
        yield Source(entries, identity_file(directory) or manifest.db_id)
        return
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(capture(source, live=live, data_paths=data_paths))
        directory = stack.enter_context(scratch(Path(tempfile.gettempdir()), "kumo-export-"))
        for file in taken.files:
            if file.kind in ("sst", "blob"):
                (directory / file.path).symlink_to(file.source)
            else:
                shutil.copyfile(file.source, directory / file.path)
        manifest = _check(source, directory, column_family)
        family = stack.enter_context(_opened(directory, manifest, column_family))
        yield Source(_entries(family, keys), taken.db_id)


def _check(path: object, directory: Path, column_family: str) -> _core.ManifestState:
    """Refuses what cannot be exported as it is."""
    manifest = _manifest_of(directory)
    families = {family.name: family.comparator for family in manifest.column_families}
    if column_family not in families:
        raise RepositoryError(
            f"{path}: has no column family {column_family!r}: it has "
            f"{', '.join(map(repr, sorted(families)))}"
        )
    if not is_raw(directory):
        raise RepositoryError(
            f"{path}: is in rocksdict's own mode, which keeps Python objects: only databases of "
            "plain bytes (raw_mode=True) can be exported"
        )
    if families[column_family] not in ("", COMPARATOR):
        raise RepositoryError(
            f"{path}: the column family {column_family!r} orders its keys by "
            f"{families[column_family]}: only those in the order of their bytes can be exported"
        )
    options = newest_options(directory)
    if options is not None and options.adds_times:
        # Only a database that is opened so takes it away again, and not where columns are read.
        raise RepositoryError(
            f"{path}: is opened with a time to live (DBWithTTL), and has the time of its writing "
            "behind each value: it can be backed up, but not exported"
        )
    return manifest


def _manifest_of(directory: Path) -> _core.ManifestState:
    try:
        return _core.read_manifest(directory / _core.read_current(directory / "CURRENT"))
    except FileNotFoundError:
        # An open database may have replaced it by a new one just now.
        return _core.read_manifest(directory / _core.read_current(directory / "CURRENT"))


@contextlib.contextmanager
def _opened(directory: Path, manifest: _core.ManifestState, column_family: str) -> Iterator[Any]:
    try:
        from rocksdict import AccessType, Options, Rdict
    except ImportError:
        raise RepositoryError(
            "an export reads the database with rocksdict: pip install 'kumo-crt[rocksdb]'"
        ) from None
    plain = Options(raw_mode=True)
    plain.create_if_missing(False)
    plain.set_disable_auto_compactions(True)
    plain.set_max_open_files(MAX_OPEN_FILES)
    families = {"default", column_family}
    access = AccessType.read_only()
    if manifest.wals:
        # RocksDB 9.8 crashes when it opens such a database (track_and_verify_wals_in_manifest) for
        # reading alone. What it writes goes into our directory.
        families = {family.name for family in manifest.column_families}
        access = AccessType.read_write()
    try:
        database = Rdict(
            os.fspath(directory),
            plain,
            column_families=dict.fromkeys(families, plain),
            access_type=access,
        )
    except Exception as error:
        raise no_room(error, directory) or RepositoryError(
            f"the database cannot be opened for reading: {error}"
        ) from error
    try:
        yield database.get_column_family(column_family)
    finally:
        database.close()


def _entries(family: Any, keys: Range) -> Generator[Entry, None, None]:
    from rocksdict import ReadOptions

    options = ReadOptions()
    options.set_total_order_seek(True)
    options.set_readahead_size(2 << 20)
    # It sees the state of the moment when it is made: this one.
    # Not `entities`: that ends at what RocksDB cannot read as if it were the end.
    reader = family.iter(options)
    if keys.start is None:
        reader.seek_to_first()
    else:
        reader.seek(keys.start)
    return _plain(reader, keys.stop)


def _plain(reader: Any, stop: bytes | None) -> Generator[Entry, None, None]:
    key: bytes | None = None
    while reader.valid():
        key, columns = reader.key(), reader.columns()
        if stop is not None and key >= stop:
            return
        if len(columns) != 1 or columns[0][0] != b"":
            raise RepositoryError(
                f"the key {key!r} has several columns (PutEntity): only plain values can be "
                "exported"
            )
        yield key, columns[0][1]
        reader.next()
    try:
        reader.status()
    except Exception as error:
        where = "" if key is None else f" after the key {key!r}"
        raise RepositoryError(f"the database cannot be read{where}: {error}") from error
