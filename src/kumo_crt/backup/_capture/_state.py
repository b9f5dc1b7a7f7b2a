"""The files of a database that nobody changes meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

from kumo_crt import _core
from kumo_crt.backup._capture._cost import warnings_of
from kumo_crt.backup._capture._logs import damage_of
from kumo_crt.backup._capture._options import OptionsFile, newest_options, numbered
from kumo_crt.backup._capture._places import Places
from kumo_crt.backup._capture._types import Capture, CapturedFile
from kumo_crt.exceptions import RepositoryError

EXTRA_CONFIG = "rocksdict-config.json"
# Seconds between looks at what may be in the middle of being written.
_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_DB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_raw(directory: Path) -> bool:
    """Whether rocksdict left keys and values as they are; its own mode orders them by type."""
    try:
        config = json.loads((directory / EXTRA_CONFIG).read_bytes())
    except FileNotFoundError:
        return True  # made by something else
    except ValueError:
        return False
    return not isinstance(config, dict) or config.get("raw_mode") is not False


def extra_config(directory: Path) -> bytes | None:
    """What rocksdict keeps beside a database; None if there is nothing.

    It is written anew, not in one step, whenever somebody opens the database, also if that fails
    because it is locked.
    """
    for pause in _PAUSES:
        try:
            content = (directory / EXTRA_CONFIG).read_bytes()
        except FileNotFoundError:
            return None
        try:
            json.loads(content)
        except ValueError:
            time.sleep(pause)
        else:
            return content
    return content  # nobody is writing it: it was so before


def read_state(places: Places, *, temporary: bool, db_id: str = "") -> Capture:
    """Lists a database's live files, as its MANIFEST has them.

    Args:
        places: The database's directories; it is closed, or a checkpoint.
        temporary: The files are the capture's own.
        db_id: RocksDB's id of the database, if the directory may not tell it.

    Raises:
        RepositoryError: The database is damaged.
    """
    directory = places.directory
    try:
        manifest_name = _core.read_current(directory / "CURRENT")
        size = (directory / manifest_name).stat().st_size
        manifest = _core.read_manifest(directory / manifest_name)
        options = newest_options(directory)
        logs = _logs(directory, options)
        infos = [(log, _core.scan_wal(log)) for _, log in logs]
        ends = (info.last_sequence for _, info in infos)
        # None: the log is empty, or compressed in a way that only RocksDB reads.
        sequence = max([manifest.last_sequence, *(end for end in ends if end is not None)])
        files = _live_files(places, manifest, temporary)
    except _core.RocksDBFormatError as error:
        raise RepositoryError(f"{directory}: the database is damaged: {error}") from error
    except FileNotFoundError as error:
        raise RepositoryError(
            f"{directory}: the database is damaged: {error.filename} is missing"
        ) from error
    files.extend(
        CapturedFile(log.name, "wal", number, log, log.stat().st_size, temporary)
        for number, log in logs
    )
    for kind, name in (
        ("options", options.name if options else None),
        ("config", EXTRA_CONFIG if (directory / EXTRA_CONFIG).is_file() else None),
        ("manifest", manifest_name),
        ("current", "CURRENT"),
    ):
        if name is not None:
            path = directory / name
            files.append(CapturedFile(name, kind, 0, path, path.stat().st_size, temporary))
    _check_unchanged(directory, manifest_name, size)
    return Capture(
        files=tuple(files),
        db_id=db_id or identity_of(directory, manifest, files),
        sequence_number=sequence,
        column_families=tuple(family.name for family in manifest.column_families),
        scattered=any(sst.path_id for sst in manifest.sst_files),
        warnings=(*warnings_of(manifest), *damage_of(infos)),
    )


def _check_unchanged(directory: Path, manifest_name: str, size: int) -> None:
    """Looks whether the MANIFEST still is the one that was read.

    Raises:
        RepositoryError: It is not.
    """
    try:
        current = _core.read_current(directory / "CURRENT")
        same = current == manifest_name and (directory / current).stat().st_size == size
    except FileNotFoundError:
        same = False
    if not same:
        raise RepositoryError(
            f"{directory}: changes while it is read, and has no LOCK that would tell that some "
            "process has it open: make the backup there, with its open Rdict, or stop it"
        )


def identity_file(directory: Path) -> str:
    """RocksDB's id of the database, from its IDENTITY file; empty without one."""
    try:
        text = (directory / "IDENTITY").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _DB_ID.fullmatch(text) else ""


def identity_of(
    directory: Path, manifest: _core.ManifestState, files: Iterable[CapturedFile]
) -> str:
    """RocksDB's id of a database; empty if nothing tells it."""
    # A checkpoint may have no other trace of it than in its tables.
    found = identity_file(directory) or manifest.db_id or _identity_of_tables(files)
    return found if _DB_ID.fullmatch(found) else ""


def _identity_of_tables(files: Iterable[CapturedFile]) -> str:
    for file in files:
        if file.kind == "sst":
            found = _core.sst_properties(file.source)
            if found.identity_complete and found.original_file_number == file.number:
                return found.db_id
    return ""


def table_name(number: int) -> str:
    """Name of a table file."""
    return f"{number:06d}.sst"


def blob_name(number: int) -> str:
    """Name of a blob file."""
    return f"{number:06d}.blob"


def captured_table(
    sst: _core.SstFile, source: Path, size: int, origin: Path | None = None, *, temporary: bool
) -> CapturedFile:
    """A table file as a part of a capture."""
    checksum = _recorded(sst.file_checksum_func_name, sst.file_checksum)
    name = table_name(sst.number)
    return CapturedFile(name, "sst", sst.number, source, size, temporary, checksum, origin)


def captured_blob(
    blob: _core.BlobFile, source: Path, size: int, origin: Path | None = None, *, temporary: bool
) -> CapturedFile:
    """A blob file as a part of a capture."""
    checksum = _recorded(blob.checksum_method, blob.checksum_value)
    name = blob_name(blob.number)
    return CapturedFile(name, "blob", blob.number, source, size, temporary, checksum, origin)


def _recorded(method: str, value: bytes) -> int | None:
    """RocksDB's own checksum of a file, of databases with a file_checksum_gen_factory."""
    if method == "FileChecksumCrc32c" and len(value) == 4:
        return int.from_bytes(value, "big")
    return None  # none, or of another function


def check_size(path: Path, found: int, wanted: int) -> None:
    """Compares a table file's size with the MANIFEST's.

    Raises:
        RepositoryError: They differ.
    """
    if found != wanted:
        raise RepositoryError(f"{path}: {found} bytes, the MANIFEST says {wanted}: damaged")


def check_blob(path: Path, original: Path) -> None:
    """Looks whether a live blob file is whole.

    Args:
        path: The file, or a link to it.
        original: What to call it.

    Raises:
        RepositoryError: It is not.
    """
    if not _core.read_blob_file(path).closed:
        raise RepositoryError(f"{original}: the MANIFEST names this blob file, and it is not whole")


def _live_files(
    places: Places, manifest: _core.ManifestState, temporary: bool
) -> list[CapturedFile]:
    """Table and blob files of the current version; each is there, whole."""
    files = []
    name = ""
    try:
        for sst in manifest.sst_files:
            name = table_name(sst.number)
            path = places.find(name)
            found = path.stat().st_size
            check_size(path, found, sst.size)
            files.append(captured_table(sst, path, found, temporary=temporary))
        for blob in manifest.blob_files:
            name = blob_name(blob.number)
            path = places.find(name)
            check_blob(path, path)
            found = path.stat().st_size
            files.append(captured_blob(blob, path, found, temporary=temporary))
    except FileNotFoundError:
        raise places.missing(name) from None
    return files


def _logs(directory: Path, options: OptionsFile | None) -> list[tuple[int, Path]]:
    """Write-ahead logs, in the directory that the options name, by number."""
    # A checkpoint gathers its logs; the option it copied still names the old place.
    if (directory / "LOCK").exists():
        return numbered(wal_place(directory, options), "wal")
    return numbered(directory, "wal")


def wal_place(directory: Path, options: OptionsFile | None) -> Path:
    """The directory of a database's write-ahead logs.

    Raises:
        RepositoryError: It does not exist, or nobody can tell where it is.
    """
    if options is None:
        return directory
    place = options.wal_dir(directory)
    if place == directory and options.named_wal_dir and not numbered(directory, "wal"):
        raise RepositoryError(
            f"{directory}: its write-ahead logs are in {options.named_wal_dir!r}, as "
            f"{options.name} says (wal_dir), seen from where its process was started, and without "
            "them the newest writes are missing: make the backup with its open Rdict, or open it "
            "with an absolute path as wal_dir"
        )
    if not place.is_dir():
        raise RepositoryError(
            f"{directory}: its write-ahead logs are in {place}, as {options.name} says (wal_dir), "
            "and there is no such directory"
        )
    return place
