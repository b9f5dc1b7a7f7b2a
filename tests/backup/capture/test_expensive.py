"""Databases whose backups are expensive: told, and compacted if that is wanted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint, Rdict

import kumo_crt
from kumo_crt.backup._capture import _cost
from tests.backup.conftest import Make
from tests.backup.helpers import content_of, flipped, keys, leftovers, tree
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cost, "MANY_FILES", 30)
    monkeypatch.setattr(_cost, "MANY_FAMILIES", 3)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("source", ["closed", "live", "open"])
def test_many_tiny_files(
    repository: kumo_crt.Repository, make: Make, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    path = make("many_files")
    db = None if source == "closed" else Rdict(str(path), databases.options(small_files=True))
    with caplog.at_level(logging.WARNING, "kumo_crt.backup"):
        snapshot = repository.backup(db if source == "open" else path, live=True)
    (warning,) = snapshot.warnings
    assert warning.startswith("40 files of level 0 have ")
    assert "--compact-first" in warning
    assert [record.getMessage() for record in caplog.records] == [warning]
    assert repository.snapshot().warnings == ()
    if db is not None:
        db.close()


@pytest.mark.usefixtures("low_limits")
def test_many_column_families(repository: kumo_crt.Repository, make: Make) -> None:
    (warning,) = repository.backup(make("column_families")).warnings
    assert warning.startswith("3 column families: ")


def test_ordinary_databases(repository: kumo_crt.Repository, make: Make) -> None:
    for name in ("plain", "column_families", "many_files"):
        assert repository.backup(make(name)).warnings == ()


@pytest.mark.parametrize("source", ["closed", "open"])
def test_compact_first(repository: kumo_crt.Repository, tmp_path: Path, source: str) -> None:
    path = tmp_path / "db"
    options = databases.options(small_files=True)
    db = Rdict(str(path), options)
    users = db.create_column_family("users", options)
    for start in range(0, 300, 30):
        for family in (db, users):
            databases.fill(family, 0, start + 60)
            family.flush()
    truth = list(databases.entries(db))
    if source == "closed":
        users.close()
        db.close()
    before = repository.backup(path, live=True)
    dry = repository.backup(path, live=True, compact_first=True, dry_run=True)
    assert _tables(before) == _tables(dry) >= 20
    after = repository.backup(db if source == "open" else path, compact_first=True)
    assert _tables(after) == 2
    if source == "open":
        users.close()
        db.close()
    repository.restore(tmp_path / "restored")
    assert databases.read_all(tmp_path / "restored") == truth
    assert leftovers(tmp_path) == []


def test_compact_first_of_keys_that_only_grow(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    """RocksDB would move such files to the last level as they are."""
    db = Rdict(str(tmp_path / "db"), databases.options(small_files=True))
    for number in range(20):
        databases.fill(db, number, number + 1)
        db.flush()
    assert _tables(repository.backup(db)) == 20
    assert _tables(repository.backup(db, compact_first=True)) == 1
    db.close()


def _tables(snapshot: kumo_crt.Snapshot) -> int:
    return sum(file.kind == "sst" for file in snapshot.files)


def test_databases_of_rocksdicts_own_mode(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    db = Rdict(str(tmp_path / "db"))
    for number in range(3):
        for key in (1, "text", 2.5):
            db[key] = number
        db.flush()
    db.close()
    assert _tables(repository.backup(tmp_path / "db", compact_first=True)) == 1
    repository.restore(tmp_path / "restored")
    db = Rdict(str(tmp_path / "restored"))
    assert {key: db[key] for key in db.keys()} == {1: 2, "text": 2, 2.5: 2}  # noqa: SIM118
    db.close()


def test_a_compaction_that_fails(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("many_files")
    table = min(path.glob("*.sst"))
    table.write_bytes(flipped(table.read_bytes(), 100))
    with pytest.raises(kumo_crt.RepositoryError, match=r"compaction failed: .*checksum mismatch"):
        repository.backup(path, compact_first=True)
    assert repository.snapshots() == []


def _refused(repository: kumo_crt.Repository, path: Path, match: str) -> kumo_crt.RepositoryError:
    before = tree(path)
    with pytest.raises(kumo_crt.RepositoryError, match=match) as caught:
        repository.backup(path, live=True, compact_first=True)
    assert tree(path) == before
    return caught.value


def test_what_is_not_compacted(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    db = Rdict(str(path), databases.options())
    assert isinstance(_refused(repository, path, "is open"), kumo_crt.RepositoryLockedError)
    Checkpoint(db).create_checkpoint(str(tmp_path / "checkpoint"))
    db.close()
    _refused(repository, tmp_path / "checkpoint", "is left as it is")
    _refused(repository, tmp_path, "is left as it is")
    options = max(path.glob("OPTIONS-*"))
    text = options.read_text()
    for old, new in (
        ("merge_operator=nullptr", "merge_operator=Counter"),
        ("comparator=leveldb.BytewiseComparator", "comparator=Backwards"),
    ):
        assert old in text
        options.write_text(text.replace(old, new))
        _refused(repository, path, f"{new}.: compact it there")
    options.unlink()
    for other in path.glob("OPTIONS-*"):
        other.unlink()
    _refused(repository, path, "has no OPTIONS file")
    assert keys(boto, bucket) == {"kumo-repository.json"}
    assert content_of(path)
