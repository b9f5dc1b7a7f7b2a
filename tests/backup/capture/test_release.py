"""The disk space that a backup holds becomes less as it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint, Rdict

import kumo_crt
from kumo_crt.backup._capture import CapturedFile
from tests.backup.conftest import Make
from tests.backup.helpers import leftovers, tree
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def _is_open(db: Rdict) -> tuple[Any, Callable[[], None]]:
    return db, lambda: db.compact_range(None, None)


def _is_live(db: Rdict) -> tuple[Any, Callable[[], None]]:
    return Path(db.path()), lambda: db.compact_range(None, None)


def _is_closed(db: Rdict) -> tuple[Any, Callable[[], None]]:
    path = db.path()
    db.close()

    def compact() -> None:
        again = Rdict(path, databases.options(small_files=True))
        again.compact_range(None, None)
        again.close()

    return Path(path), compact


@pytest.mark.parametrize("source", [_is_open, _is_live, _is_closed], ids=lambda f: f.__name__[4:])
def test_each_file_is_given_up_when_it_was_sent(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[Rdict], tuple[Any, Callable[[], None]]],
) -> None:
    path = make("many_files")
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 0, 100)
    given, compact = source(db)
    release = CapturedFile.release
    freed: list[int] = []
    held: list[int] = []

    def checked(file: CapturedFile) -> None:
        if not freed:
            compact()  # from here on the links are all that holds the old tables
        fd = os.open(file.source, os.O_RDONLY)
        try:
            release(file)
            if file.kind == "sst":
                assert os.fstat(fd).st_nlink == 0
                freed.append(file.size)
        finally:
            os.close(fd)
        held.append(sum(1 for left in leftovers(tmp_path) for name in tree(tmp_path / left)))

    monkeypatch.setattr(CapturedFile, "release", checked)
    snapshot = repository.backup(given, live=True, max_concurrency=1)
    assert len(freed) == sum(file.kind == "sst" for file in snapshot.files) >= 40
    # One file less each time, and nothing but directories at the end.
    assert held == list(range(held[0], held[0] - len(held), -1))
    assert held[-1] <= 2
    assert leftovers(tmp_path) == []
    if source is not _is_closed:
        db.close()


def test_the_files_of_a_checkpoint_stay(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    db = Rdict(str(make("plain")), databases.options())
    Checkpoint(db).create_checkpoint(str(tmp_path / "checkpoint"))
    db.close()
    before = tree(tmp_path / "checkpoint")
    repository.backup(tmp_path / "checkpoint")
    assert tree(tmp_path / "checkpoint") == before
    shutil.rmtree(tmp_path / "checkpoint")
