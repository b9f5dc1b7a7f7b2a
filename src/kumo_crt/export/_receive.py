"""Brings an export into a database: everything is downloaded and checked, then taken in at once."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kumo_crt._engine import Blocking, Gather, Meter, Task
from kumo_crt.backup._capture import is_open_database, is_raw
from kumo_crt.backup._capture._options import newest_options
from kumo_crt.backup._capture._workplace import links_reach
from kumo_crt.backup._format._results import SnapshotFile
from kumo_crt.backup._local._lock import database_lock
from kumo_crt.backup._local._room import no_room
from kumo_crt.backup._local._scratch import scratch
from kumo_crt.backup._store._fetch import DamagedError, fetch_task
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import IntegrityError, RepositoryError
from kumo_crt.export import _manifest
from kumo_crt.export._files import Span, check_apart, check_table, table_of_lines
from kumo_crt.export._results import ExportedFile, ExportInfo

_INFIX = ".kumo-import-"


def read_manifest_task(store: Store, url: str) -> Task[ExportInfo]:
    """Reads an export's manifest.

    Raises:
        NotFoundError: There is none.
        FormatError: It is malformed, hostile, or of an unknown version.
    """
    document, _ = yield from store.read(_manifest.KEY)
    return _manifest.decode(document, store.url(_manifest.KEY), url)


@dataclass(frozen=True, slots=True)
class Target:
    """A database to import into.

    Attributes:
        database: An open `rocksdict.Rdict`.
        path: Its directory.
    """

    database: Any
    path: Path


@contextlib.contextmanager
def target_of(target: object) -> Iterator[Target]:
    """Takes an open database, or opens or makes the one in a directory.

    Raises:
        RepositoryLockedError: The directory's database is open in some process.
        RepositoryError: It is no database of plain bytes.
    """
    if is_open_database(target):
        path = Path(target.path())
        _check_kind(path)
        yield Target(target, path)
        return
    if not isinstance(target, str | os.PathLike):
        raise TypeError(f"target: an open rocksdict.Rdict or a path, not {type(target).__name__}")
    try:
        from rocksdict import Options, Rdict
    except ImportError:
        raise RepositoryError(
            "an import writes to the database with rocksdict: pip install 'kumo-crt[rocksdb]'"
        ) from None
    path = Path(target).absolute()
    fresh = is_fresh(path)
    was_there = path.exists()
    if fresh:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        database = _created(partial(Rdict, os.fspath(path), options), path)
    else:
        if not (path / "CURRENT").is_file():
            raise RepositoryError(f"{path}: is not empty, and no RocksDB database")
        _check_kind(path)
        with database_lock(path):
            pass  # tells why it could not be opened
        try:
            database = Rdict(os.fspath(path))
        except Exception as error:
            raise no_room(error, path) or RepositoryError(
                f"{path}: cannot be opened: {error}"
            ) from error
    try:
        yield Target(database, path)
    except BaseException:
        database.close()
        if fresh:
            _remove(path, was_there)
        raise
    database.close()


def _created(create: Callable[[], Any], path: Path) -> Any:
    """Makes a new database; leaves nothing if that fails."""
    was_there = path.exists()
    try:
        return create()
    except Exception as error:
        _remove(path, was_there)
        raise no_room(error, path) or RepositoryError(
            f"{path}: no database can be made: {error}"
        ) from error


def _remove(path: Path, was_there: bool) -> None:
    """Removes a new database; a directory that was there, or a link to one, is only emptied."""
    if not was_there:
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for item in list(path.iterdir()):
            item.unlink()


def is_fresh(path: Path) -> bool:
    """Whether a new database would be made there."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _check_kind(path: Path) -> None:
    if not is_raw(path):
        raise RepositoryError(
            f"{path}: is in rocksdict's own mode, which keeps Python objects: an export has plain "
            "bytes (raw_mode=True)"
        )
    options = newest_options(path)
    if options is not None and options.adds_times:
        # It would take the last bytes of each value for its time.
        raise RepositoryError(
            f"{path}: was opened with a time to live (DBWithTTL) last, and has the time of its "
            "writing behind each value: an export has none"
        )


def check_family(target: Target, name: str, *, add: bool) -> None:
    """Looks whether a column family may be imported into.

    Raises:
        RepositoryError: It has keys already, and ``add`` is not set.
    """
    if add or not _has_family(target, name):
        return
    # Not `keys`: to that, what cannot be read is the end.
    reader = target.database.get_column_family(name).iter()
    try:
        reader.seek_to_first()
        is_empty = not reader.valid()
        reader.status()
    except Exception as error:
        raise RepositoryError(f"{target.path}: cannot be read: {error}") from error
    finally:
        del reader  # as a handle does, it keeps the database open
    if not is_empty:
        raise RepositoryError(
            f"{target.path}: the column family {name!r} has keys already: choose another one, or "
            "say that those of the export are to be added and win (add=True, --add)"
        )


def _has_family(target: Target, name: str) -> bool:
    from rocksdict import Options

    return name in target.database.list_cf(os.fspath(target.path), Options(raw_mode=True))


def take_in(target: Target, name: str, tables: list[Path]) -> None:
    """Takes in SST files: all of them, or none. Makes the column family if needed."""
    from rocksdict import IngestExternalFileOptions, Options

    family: Any = None
    try:
        if _has_family(target, name):
            family = target.database.get_column_family(name)
        else:
            family = target.database.create_column_family(name, Options(raw_mode=True))
        if tables:
            options = IngestExternalFileOptions()
            options.set_move_files(True)
            family.ingest_external_file([str(table) for table in tables], options)
    except Exception as error:
        raise no_room(error, target.path) or RepositoryError(
            f"{target.path}: RocksDB refused the import: {error}"
        ) from error
    finally:
        del family  # a handle keeps the database open, and the error keeps this frame


def scratch_beside(path: Path) -> contextlib.AbstractContextManager[Path]:
    """A directory on the database's file system, so that its files can be moved into it."""
    path = path.resolve()
    if links_reach(path, _INFIX):
        return scratch(path.parent, f".{path.name}{_INFIX}")
    return scratch(path, _INFIX)


def download_task(
    store: Store, info: ExportInfo, scratch: Path, concurrency: int, meter: Meter
) -> Task[list[Path]]:
    """Downloads and checks all files; returns SST files in the order of their keys."""
    tasks = (
        _download(store, info.encoding, file, scratch / f"{number:06d}", meter)
        for number, file in enumerate(info.files)
    )
    found: list[tuple[Path, Span | None]] = yield Gather(tasks, concurrency)
    tables = [table for table, _ in found]
    _check_order(store, info, [span for _, span in found])
    if info.encoding == "sst" and len(tables) > 1:
        where = store.url(_manifest.KEY)
        yield Blocking(partial(check_apart, tables, scratch / "apart", where))
    meter.flush()
    return tables


def _check_order(store: Store, info: ExportInfo, spans: Sequence[Span | None]) -> None:
    """Looks whether keys ascend from file to file, where they are known: see `check_apart`.

    Raises:
        IntegrityError: They do not.
    """
    for file, span, before in zip(info.files[1:], spans[1:], spans[:-1], strict=True):
        if span is not None and before is not None and span.first <= before.last:
            raise IntegrityError(
                f"{store.url(file.key)}: its first key {span.first[:80]!r} is not behind the last "
                "one of the file before: files must be in the order of their keys, and each key "
                "there once"
            )


def _download(
    store: Store, encoding: str, file: ExportedFile, path: Path, meter: Meter
) -> Task[tuple[Path, Span | None]]:
    table = path.with_suffix(".sst")
    lines = path.with_suffix(".jsonl")
    into = table if encoding == "sst" else lines
    wanted = SnapshotFile(into.name, encoding, file.size, file.crc32c, key=file.key)
    try:
        yield from fetch_task(store, wanted, into, meter)
    except DamagedError as error:
        raise IntegrityError(
            f"{error}. The database is as it was: export once more, to another URL, or bring that "
            "object back from a version or a copy"
        ) from error
    where = store.url(file.key)
    if encoding == "sst":
        check_table(table, file.entries, where)
        return table, None
    span: Span = yield Blocking(partial(table_of_lines, lines, table, file.entries, where))
    lines.unlink()
    return table, span
