"""RocksDB databases to back up: a state, and the state after one per cent of it has changed."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

from rocksdict import Checkpoint, Options, Rdict

_VALUE = 4000
_CHANGED = 100  # one of so many bytes


@dataclass(frozen=True)
class Shape:
    """What a database is like.

    Attributes:
        file_size: Bytes of an SST file, about.
        size: Bytes of all of them, about.
    """

    name: str
    title: str
    file_size: int
    size: int


@dataclass(frozen=True)
class States:
    """Two states of one database, as directories that nobody has open; they share their files.

    Attributes:
        before: The first.
        after: After the change.
    """

    shape: Shape
    before: Path
    after: Path

    def facts(self) -> dict[str, int]:
        """Sizes and numbers of files."""
        old, new = (self._sizes(directory) for directory in (self.before, self.after))
        added = set(new) - set(old)
        return {
            "files": len(old),
            "bytes": sum(old.values()),
            "bytes_after": sum(new.values()),
            "new_files": len(added),
            "new_bytes": sum(new[name] for name in added),
        }

    @staticmethod
    def _sizes(directory: Path) -> dict[str, int]:
        return {entry.name: entry.stat().st_size for entry in os.scandir(directory)}


def build(shape: Shape, directory: Path) -> States:
    """Makes a database of incompressible values, takes its states as checkpoints, removes it."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_disable_auto_compactions(True)
    options.set_write_buffer_size(1 << 30)  # flushed here, when a file is full
    options.set_level_zero_slowdown_writes_trigger(1 << 20)
    options.set_level_zero_stop_writes_trigger(1 << 20)
    path = directory / f"{shape.name}-database"
    states = States(shape, directory / f"{shape.name}-before", directory / f"{shape.name}-after")
    database = Rdict(str(path), options)
    rows = max(1, shape.file_size // _VALUE)
    for file in range(max(2, shape.size // shape.file_size)):
        _write(database, file * rows, rows)
    Checkpoint(database).create_checkpoint(str(states.before))
    # A range of keys that lie together, as new files: what a flush leaves. Compactions, whose
    # output is other data for all of the clients, would only make the difference smaller.
    changed = max(shape.file_size // 4, shape.size // _CHANGED) // _VALUE
    for start in range(0, changed, rows):
        _write(database, start, min(rows, changed - start))
    Checkpoint(database).create_checkpoint(str(states.after))
    database.close()
    shutil.rmtree(path)
    return states


def _write(database: Rdict, start: int, rows: int) -> None:
    for number in range(start, start + rows):
        database[b"%016d" % number] = os.urandom(_VALUE)
    database.flush()


def difference(state: Path, restored: Path, *, tables_only: bool) -> str:
    """What a restored directory has other than the state; empty if nothing.

    OPTIONS files may differ, because kumo_crt takes out of them where the original had its files;
    and if the database was opened in between, all but the tables.
    """
    for entry in sorted(os.scandir(state), key=lambda item: item.name):
        if entry.name.startswith(("OPTIONS", "LOG", "LOCK", "IDENTITY")):
            continue
        if tables_only and not entry.name.endswith(".sst"):
            continue
        other = restored / entry.name
        if not other.is_file():
            return f"{entry.name} is missing"
        if _checksum(Path(entry.path)) != _checksum(other):
            return f"{entry.name} differs"
    return ""


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def read_through(directory: Path) -> None:
    """Brings a directory's files into the page cache."""
    for entry in os.scandir(directory):
        _checksum(Path(entry.path))


def synced(directory: Path) -> None:
    """Brings a directory's files to the disk."""
    for entry in os.scandir(directory):
        _fsync(entry.path)
    _fsync(str(directory))


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
