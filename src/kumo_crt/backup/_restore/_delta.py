"""Takes over files of a database that is there already, where they are the snapshot's."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _names
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._local._lock import database_lock
from kumo_crt.backup._store._families import number_of
from kumo_crt.exceptions import RepositoryError


def check_same_database(target: Path, snapshot: Snapshot) -> None:
    """Refuses to take a snapshot of one database for a newer state of another.

    Raises:
        RepositoryError: The database that is there has another id.
    """
    found = _identity(target)
    if found and snapshot.db_id and found != snapshot.db_id:
        raise RepositoryError(
            f"{target}: holds the database {found}, snapshot {snapshot.id} is of "
            f"{snapshot.db_id}: choose another target, or say that it may be replaced by another "
            "database (overwrite=True, --overwrite)"
        )


def _identity(target: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (target / "IDENTITY").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError, _core.RocksDBFormatError):
        return _core.read_manifest(target / _core.read_current(target / "CURRENT")).db_id
    return ""


def link_matching(
    target: Path, work: Path, wanted: Iterable[SnapshotFile], pool: Executor, key: Key | None
) -> set[str]:
    """Hard-links the immutable files that are the wanted ones; returns their names.

    A file is taken over if its name, size, identity and CRC32C are those of the snapshot. It is
    read in full for that, from the disk.
    """
    candidates = [file for file in wanted if file.kind in ("sst", "blob")]
    with database_lock(target):  # no compaction deletes them meanwhile
        linked = [file for file in candidates if _link(target / file.path, work, file)]
    good = pool.map(lambda file: _is_the_one(work / file.path, file, key), linked)
    kept = set()
    for file, matches in zip(linked, good, strict=True):
        if matches:
            kept.add(file.path)
        else:
            (work / file.path).unlink()
    return kept


def likely_bytes(target: Path, wanted: Iterable[SnapshotFile]) -> int:
    """Bytes that are probably there already, by name and size alone."""
    return sum(
        file.size
        for file in wanted
        if file.kind in ("sst", "blob")
        and (target / file.path).is_file()
        and (target / file.path).stat().st_size == file.size
    )


def _link(source: Path, work: Path, file: SnapshotFile) -> bool:
    # Whatever forbids a link (other file system, too many links): then it is downloaded.
    with contextlib.suppress(OSError):
        found = source.lstat()
        # One that its owner may not read is none that a database has written, and stays so linked.
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IRUSR:
            return False
        if found.st_size != file.size:
            return False
        os.link(source, work / file.path)
        return True
    return False


def _is_the_one(path: Path, file: SnapshotFile, key: Key | None) -> bool:
    if file.kind == "sst":
        found = CapturedFile(file.path, "sst", number_of(file) or 0, path, file.size)
        if not _names.is_name_of(file, found, key):
            return False
    return path.stat().st_size == file.size and _names.crc32c_of(path) == file.crc32c
