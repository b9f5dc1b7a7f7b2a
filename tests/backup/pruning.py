"""What the tests of pruning ask of repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rocksdict import Rdict

import kumo_crt
from tests.support import databases


def generations(repository: kumo_crt.Repository, path: Path, count: int) -> list[Any]:
    """Snapshots of a database that is compacted in between: they share no table file."""
    snapshots = []
    for number in range(count):
        db = Rdict(str(path), databases.options(small_files=True))
        databases.fill(db, 100 * number, 100 * number + 150)
        db.compact_range(None, None)
        db.close()
        snapshots.append(repository.backup(path))
    return snapshots


def ids(repository: kumo_crt.Repository) -> list[str]:
    """Ids of all snapshots, oldest first."""
    return [snapshot.id for snapshot in repository.snapshots()]


def named(repository: kumo_crt.Repository) -> set[str]:
    """Keys of all data objects that snapshots name."""
    return {key for snapshot in repository.snapshots() for key in snapshot.object_keys}


def all_good(repository: kumo_crt.Repository) -> None:
    """Asserts that every byte of every snapshot is what it was."""
    for snapshot in repository.snapshots():
        assert repository.verify(snapshot.id, level="full").ok
