"""Drills of tables: rotten ones and their cure, those of newer releases, and too many."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._coordination import _ledger
from kumo_crt.backup._drill import _opener
from kumo_crt.backup._format import _layout
from tests.backup.conftest import Make
from tests.backup.helpers import (
    flipped,
    url,
)
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.parametrize("position", [100, -1], ids=["at the beginning", "later"])
def test_what_was_damaged_before_it_was_backed_up(
    repository: kumo_crt.Repository, make: Make, scratch: Path, position: int
) -> None:
    """The checksums are those of the damaged file; RocksDB's own are not."""
    path = make("many_files")
    good = path.with_name("good")
    shutil.copytree(path, good)
    table = sorted(path.glob("*.sst"))[0 if position > 0 else -1]
    table.write_bytes(flipped(table.read_bytes(), 100))
    repository.backup(path)
    assert repository.verify(level="full").ok
    report = repository.drill(scratch=scratch)
    assert not report.ok
    assert report.problems[0].message.startswith("RocksDB cannot read the restored database: ")
    assert "checksum mismatch" in report.problems[0].message
    assert list(scratch.iterdir()) == []
    repository.backup(good)
    assert not repository.drill(scratch=scratch).ok  # its files are taken for those
    repository.backup(good, compact_first=True)  # as the message says
    assert repository.drill(scratch=scratch).ok


def test_the_last_drill_of_a_database_tells_of_its_tables() -> None:
    at = datetime(2026, 11, 23, 6, tzinfo=UTC)
    one, newer = (_layout.new_snapshot_id(at + timedelta(seconds=n), None, "one") for n in range(2))
    other = _layout.new_snapshot_id(at, None, "another")
    ledger = _ledger.Ledger(drills={other: _ledger.Drilled(at + timedelta(days=1), {})})
    assert not ledger.has_rotten_tables("one")
    ledger.failed_drills = {one: _ledger.FailedDrill(at, "open")}
    assert ledger.has_rotten_tables("one")
    assert not ledger.has_rotten_tables("another")
    older = _layout.new_snapshot_id(at - timedelta(seconds=1), None, "one")
    ledger.drills[older] = _ledger.Drilled(at + timedelta(hours=1), {})
    assert ledger.has_rotten_tables("one")
    ledger.drills[newer] = _ledger.Drilled(at + timedelta(hours=1), {})
    assert not ledger.has_rotten_tables("one")
    ledger.failed_drills[newer] = _ledger.FailedDrill(at + timedelta(hours=2), "restore")
    assert not ledger.has_rotten_tables("one")


@pytest.mark.parametrize("source", ["open", "closed"])
def test_a_good_copy_whose_tables_are_compacted_already(
    repository: kumo_crt.Repository, tmp_path: Path, scratch: Path, source: str
) -> None:
    """Few tables on the last level are left as they are by a compaction that is not told more."""
    good, rotten = tmp_path / "good", tmp_path / "rotten"
    db = Rdict(str(good), databases.options())
    for number in range(2):
        databases.fill(db, 100 * number, 100 * number + 100)
        db.flush()
    db.compact_range(None, None)
    db.close()
    shutil.copytree(good, rotten)
    table = max(rotten.glob("*.sst"))
    table.write_bytes(flipped(table.read_bytes(), 100))
    repository.backup(rotten)
    assert not repository.drill(scratch=scratch).ok

    opened = Rdict(str(good)) if source == "open" else None
    again = repository.backup(opened or good, compact_first=True)
    assert repository.drill(scratch=scratch).ok
    # The next one has no reason to.
    tables = {file.key for file in again.files if file.kind == "sst"}
    after = repository.backup(opened or good, compact_first=True)
    assert {file.key for file in after.files if file.kind == "sst"} == tables
    if opened is not None:
        opened.close()


@pytest.mark.parametrize("version", [5, 7])
def test_tables_that_this_rocksdb_is_too_old_for(
    repository: kumo_crt.Repository,
    make: Make,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
) -> None:
    """Of the version that it names there are tables, or it is what damage looks like."""

    def refuse(path: str) -> NoReturn:
        raise RuntimeError(
            f"Corruption: Corrupt or unsupported format_version: {version} in {path}/000012.sst"
        )

    repository.backup(make("plain"))
    monkeypatch.setattr(_opener, "default_opener", lambda: refuse)
    if version == 5:  # as its tables are
        with pytest.raises(kumo_crt.RepositoryError, match="format_version 5, which the RocksDB"):
            repository.drill(scratch=scratch)
        assert repository.health()[0].drill_failed is None
    else:
        (problem,) = repository.drill(scratch=scratch).problems
        assert problem.kind == "open"
        assert repository.health()[0].drill_failed is not None
    assert list(scratch.iterdir()) == []


_FEW_FILES = """
import resource, sys
import kumo_crt
from rocksdict import Options, Rdict
resource.setrlimit(resource.RLIMIT_NOFILE, (450, 450))
def opener(path):
    return Rdict(path, Options(raw_mode=True))
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    assert repository.drill(scratch=sys.argv[2]).ok
    try:
        repository.drill(scratch=sys.argv[2], opener=opener)
    except kumo_crt.RepositoryError as error:
        assert "Too many open files" in str(error) and "ulimit -n" in str(error), error
    else:
        raise AssertionError("opened in spite of that")
    assert repository.health()[0].drill_failed is None
"""


def test_more_tables_than_a_process_may_open(
    repository: kumo_crt.Repository,
    tmp_path: Path,
    scratch: Path,
    s3_server: S3Server,
    bucket: str,
) -> None:
    databases.make_many_tables(tmp_path / "db")
    repository.backup(tmp_path / "db")
    environment = s3_server.environment()
    with start_python(_FEW_FILES, url(bucket), str(scratch), env=environment) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert list(scratch.iterdir()) == []
