"""Restores of some of the column families."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    content_of,
    delete,
    key_of,
    leftovers,
    stored_files,
    tree,
    url,
)
from tests.support import databases
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")

# Two families with the same keys, all of it also in the write-ahead log; then the process dies.
_PROGRAM = """
import os, sys
from tests.support import databases as d
db = d.Rdict(sys.argv[1], d.options(blobs=True))
for name in ("default", "events", "users"):
    family = db if name == "default" else db.create_column_family(name, d.options(blobs=True))
    d.fill(family, 0, 300)
    d.fill(family, 300, 320, value_size=20_000)
    family.flush()
    d.fill(family, 320, 400)
db.flush_wal(True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the column families default, events and users, blobs and unflushed data."""
    path = tmp_path_factory.mktemp("families") / "db"
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    program = [sys.executable, "-c", _PROGRAM, str(path)]
    subprocess.run(program, check=True, env=environment, timeout=60)
    return path


def _of(entries: list[databases.Entry], *names: str) -> list[databases.Entry]:
    return [entry for entry in entries if entry[0] in names]


@pytest.mark.parametrize(
    "wanted", [["users"], ["default"], ["events", "users"], ["default", "users", "events"]], ids=str
)
def test_exactly_the_wanted_ones(
    repository: kumo_crt.Repository, crashed: Path, tmp_path: Path, wanted: list[str]
) -> None:
    snapshot = repository.backup(crashed)
    target = tmp_path / "restored"
    planned = repository.restore(target, column_families=wanted, dry_run=True)
    assert not target.exists()
    report = repository.restore(target, column_families=wanted)
    names = {"default", *wanted}
    assert set(report.column_families) == set(planned.column_families) == names
    assert (planned.files, planned.total_bytes) == (report.files, report.total_bytes)
    assert len(list(target.iterdir())) == report.files
    assert set(Rdict.list_cf(str(target))) == names
    expected = _of(content_of(crashed), *wanted)
    assert len(expected) == 400 * len(wanted)
    for _ in range(2):  # with its write-ahead log, and after that was flushed
        assert databases.read_all(target) == expected
    if len(wanted) < 3:
        assert report.total_bytes < snapshot.total_bytes
        assert report.downloaded_bytes < snapshot.total_bytes


def test_what_belongs_to_others_is_not_downloaded(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    crashed: Path,
    tmp_path: Path,
) -> None:
    snapshot = repository.backup(crashed)
    target = tmp_path / "restored"
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as other:
        other.restore(target, column_families=["users"])
    fetched = [f for f in stored_files(snapshot) if proxy.count("GET", key_of(f))]
    tables = [file for file in fetched if file.kind in ("sst", "blob")]
    assert len(tables) == 2
    assert {file.path for file in tables} == {
        p.name for p in target.iterdir() if p.suffix in (".sst", ".blob")
    }
    # Nor does damage there keep what is wanted from being restored.
    for file in stored_files(snapshot):
        if file.kind in ("sst", "blob") and file not in tables:
            delete(boto, bucket, key_of(file))
    repository.restore(tmp_path / "again", column_families=["users"])
    assert databases.read_all(tmp_path / "again") == _of(content_of(crashed), "users")
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(tmp_path / "whole")


# RocksDB writes some of them with backslashes.
@pytest.mark.parametrize("name", ["users", "tenant:42", "a#1", "back\\slash", "two\nlines"])
def test_opened_without_options(repository: kumo_crt.Repository, tmp_path: Path, name: str) -> None:
    """rocksdict opens the column families that it finds in the OPTIONS file."""
    path = tmp_path / "db"
    db = Rdict(str(path))
    for other in ("events", name):
        family = db.create_column_family(other)
        family["name"] = other
        family.close()
    db["name"] = "default"
    db.close()
    repository.backup(path)
    repository.restore(tmp_path / "restored", column_families=[name])
    db = Rdict(str(tmp_path / "restored"))
    assert dict(db.items()) == {}
    users = db.get_column_family(name)
    assert dict(users.items()) == {"name": name}
    users["more"] = 1
    db["more"] = 1
    users.close()
    db.close()
    assert sorted(Rdict.list_cf(str(tmp_path / "restored"))) == sorted(["default", name])


def test_backed_up_again(
    repository: kumo_crt.Repository, make: Make, library: Library, tmp_path: Path
) -> None:
    first = repository.backup(make("column_families"))
    repository.restore(tmp_path / "users", column_families=["users"])
    second = repository.backup(tmp_path / "users")
    assert second.column_families == ("default", "users")
    assert second.sequence_number == first.sequence_number
    repository.restore(tmp_path / "again")
    assert content_of(tmp_path / "again") == _of(library.truth("column_families"), "users")


@pytest.mark.parametrize("wanted", [["nobody"], ["users", "nobody"], []], ids=str)
def test_unknown_ones(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, wanted: list[str]
) -> None:
    repository.backup(make("column_families"))
    before = tree(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(kumo_crt.RepositoryError, match="'default', 'empty', 'users'"):
            repository.restore(tmp_path / "x", column_families=wanted, dry_run=dry_run)
    assert tree(tmp_path) == before
    with pytest.raises(TypeError, match="list"):
        repository.restore(tmp_path / "x", column_families="users")


def test_interrupted_and_with_delta(
    repository: kumo_crt.Repository, crashed: Path, tmp_path: Path
) -> None:
    repository.backup(crashed)
    target = tmp_path / "restored"

    def progress(done: int, total: int) -> None:
        assert 0 <= done <= total
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.restore(target, column_families=["users"], progress=progress)
    report = repository.restore(target, column_families=["users"])
    assert report.kept_bytes > 0
    expected = _of(content_of(crashed), "users")
    assert databases.read_all(target) == expected
    # And another choice into what is there now.
    report = repository.restore(target, column_families=["users", "events"], delta=True)
    assert report.reused_bytes > 0
    assert databases.read_all(target) == _of(content_of(crashed), "users", "events")
    assert leftovers(tmp_path) == []


def test_after_an_interrupted_restore_of_everything(
    repository: kumo_crt.Repository, crashed: Path, tmp_path: Path
) -> None:
    """Its MANIFEST and OPTIONS are whole, and are not those of some column families."""
    repository.backup(crashed)
    target = tmp_path / "restored"

    def progress(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.restore(target, progress=progress)
    report = repository.restore(target, column_families=["users"])
    assert report.kept_bytes > 0
    options = next(target.glob("OPTIONS-*")).read_text()
    assert '[CFOptions "users"]' in options
    assert '[CFOptions "events"]' not in options
    assert databases.read_all(target) == _of(content_of(crashed), "users")
