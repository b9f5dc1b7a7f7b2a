"""Drills: restored, opened, read to the end, compared, and removed again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

import kumo_crt
from kumo_crt.backup._coordination import _ledger
from kumo_crt.backup._format import _documents
from tests.backup.conftest import Library, Make
from tests.backup.doctoring import doctor_of, severity_of
from tests.backup.helpers import (
    closed,
    delete,
    flipped,
    get,
    key_of,
    keys,
    manifest,
    manifest_key,
    put,
    stored_files,
    url,
)
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _checksum(entries: list[databases.Entry], family: str) -> int:
    """By docs/format.md."""
    crc = 0
    for name, key, value in entries:
        if name == family:
            lengths = len(key).to_bytes(8, "little") + len(value).to_bytes(8, "little")
            crc = kumo_crt.crc32c(lengths + key + value, crc)
    return crc


@pytest.mark.parametrize(
    "name", ["plain", "column_families", "deletions", "blobs", "unflushed_wal"]
)
def test_everything_is_read(
    repository: kumo_crt.Repository, library: Library, make: Make, scratch: Path, name: str
) -> None:
    snapshot = repository.backup(make(name))
    report = repository.drill(scratch=scratch)
    assert report.ok
    assert (report.snapshot, report.sequence_number) == (snapshot.id, snapshot.sequence_number)
    truth = library.truth(name)
    assert set(report.entries) == set(snapshot.column_families)
    for family in snapshot.column_families:
        assert report.entries[family] == sum(1 for entry in truth if entry[0] == family)
        assert report.checksums[family] == _checksum(truth, family)
    assert report.recovery_seconds == report.restore_seconds + report.open_seconds > 0
    assert report.scan_seconds > 0
    assert 0 <= report.age_seconds < 300
    assert list(scratch.iterdir()) == []


def test_the_second_drill_compares_with_the_first(
    repository: kumo_crt.Repository, make: Make, scratch: Path, boto: Any, bucket: str
) -> None:
    snapshot = repository.backup(make("column_families"))
    first = repository.drill(scratch=scratch)
    assert (first.compared, first.recorded) == (False, True)
    health = repository.health()[0]
    assert health.last_drill is not None
    assert health.last_verified == health.last_drill
    second = repository.drill(scratch=scratch)
    assert (second.ok, second.compared) == (True, True)
    assert second.checksums == first.checksums
    # Somebody found something else: one of the two is wrong.
    for name in keys(boto, bucket, "health/"):
        document = json.loads(get(boto, bucket, name))
        del document["crc32c"]
        document["drills"][0]["column_families"]["users"]["entries"] += 1
        put(boto, bucket, name, _documents.encode(document))
    third = repository.drill(scratch=scratch)
    assert [problem.kind for problem in third.problems] == ["content"]
    assert "'users'" in third.problems[0].message
    assert third.problems[0].snapshots == (snapshot.id,)


def test_limits(repository: kumo_crt.Repository, make: Make, scratch: Path) -> None:
    repository.backup(make("one_key"))
    report = repository.drill(scratch=scratch, max_rto=0.0, max_age=-1.0)
    assert [problem.kind for problem in report.problems] == ["rto", "age"]
    assert repository.drill(scratch=scratch, max_rto=100, max_age=1000).ok


@pytest.mark.parametrize("damage", ["flipped", "missing"])
@pytest.mark.usefixtures("each_alone")
def test_a_damaged_object(
    repository: kumo_crt.Repository,
    make: Make,
    scratch: Path,
    boto: Any,
    bucket: str,
    damage: str,
) -> None:
    snapshot = repository.backup(make("many_files"))
    files = stored_files(snapshot, "sst")[1:4]
    for file in files:
        content = get(boto, bucket, key_of(file))
        delete(boto, bucket, key_of(file))
        if damage == "flipped":
            put(boto, bucket, key_of(file), flipped(content))
    report = repository.drill(scratch=scratch)
    kind = {"flipped": "checksum", "missing": "missing"}[damage]
    # All of them, though the restore ends at the first.
    assert {(p.path, p.kind, p.column_family) for p in report.problems} == {
        (file.path, kind, "default") for file in files
    }
    assert all(p.smallest_key is not None for p in report.problems)
    (health,) = repository.health()
    assert len(health.damaged) == len(files)
    assert report.recorded is True
    assert list(scratch.iterdir()) == []
    verified = repository.verify(level="restore")
    assert (verified.ok, verified.level) == (False, "restore")
    assert [problem.kind for problem in verified.problems] == [kind] * len(files)
    # What was read and found good.
    assert verified.bytes_read == snapshot.total_bytes - sum(file.size for file in files)


def _commit_instead(
    boto: Any, bucket: str, snapshot: kumo_crt.Snapshot, change: dict[str, Any]
) -> None:
    document = {**manifest(boto, bucket, snapshot), **change}
    put(boto, bucket, manifest_key(snapshot), closed(document))


def test_writes_that_are_missing(
    repository: kumo_crt.Repository, make: Make, scratch: Path, boto: Any, bucket: str
) -> None:
    """Each file is what the manifest says, and yet it is not what was backed up."""
    snapshot = repository.backup(make("plain"))
    _commit_instead(boto, bucket, snapshot, {"sequence_number": snapshot.sequence_number + 1})
    report = repository.drill(scratch=scratch)
    assert [problem.kind for problem in report.problems] == ["content"]
    assert "newest writes are missing" in report.problems[0].message
    sound = {"sequence_number": snapshot.sequence_number, "table_entries": 4000}
    assert snapshot.table_entries == 4000
    _commit_instead(boto, bucket, snapshot, {**sound, "table_entries": 3999})
    report = repository.drill(scratch=scratch)
    assert [problem.kind for problem in report.problems] == ["content"]
    assert "have 4000 entries, 3999" in report.problems[0].message
    _commit_instead(boto, bucket, snapshot, {**sound, "column_families": ["default", "lost"]})
    report = repository.drill(scratch=scratch)
    assert [problem.kind for problem in report.problems] == ["content"]
    assert "lost" in report.problems[0].message


def test_a_drill_that_failed_verifies_nothing(
    repository: kumo_crt.Repository, tmp_path: Path, scratch: Path, boto: Any, bucket: str
) -> None:
    """Each object was read and is good, and yet half of the database is not there."""
    db = Rdict(str(tmp_path / "db"), databases.options())
    databases.fill(db, 0, 1000)
    db.flush()
    databases.fill(db, 1000, 2000)
    snapshot = repository.backup(tmp_path / "db", live=True)
    db.close()

    def without_logs(path: str) -> Rdict:
        for log in Path(path).glob("*.log"):
            log.unlink()
        return Rdict(path, Options(raw_mode=True))

    def unopened(path: str) -> Rdict:
        raise OSError("no such comparator")

    before: set[str] = set()
    for opener, kind in ((without_logs, "content"), (unopened, "open")):
        report = repository.drill(scratch=scratch, opener=opener, record=False)
        assert (report.ok, report.recorded) == (False, False)
        assert keys(boto, bucket, "health/") == before
        report = repository.drill(scratch=scratch, opener=opener)
        assert [problem.kind for problem in report.problems] == [kind]
        assert report.recorded is True
        before = keys(boto, bucket, "health/")
        (health,) = repository.health()
        assert health.last_verified is health.last_drill is None
        assert health.drill_failed is not None
        assert (health.drill_problem, health.damaged) == (kind, ())
        told = doctor_of(repository, write=False)
        assert (severity_of(told, "verified"), severity_of(told, "drill")) == ("warning", "error")
        # Within the same second, too.
        assert repository.drill(scratch=scratch, max_rto=0.0).recorded  # slow, and good
        (health,) = repository.health()
        assert health.snapshot.id == snapshot.id
        assert health.last_verified is not None
        assert health.last_drill is not None
        assert (health.drill_failed, health.drill_problem) == (None, None)
        told = doctor_of(repository, write=False)
        assert severity_of(told, "verified") == "ok"
        assert all(finding.check != "drill" for finding in told.findings)
        forget_ledgers = keys(boto, bucket, "health/") - before
        for key in forget_ledgers:
            delete(boto, bucket, key)
        assert repository.health()[0].drill_failed is not None


def test_ledgers_keep_failed_drills_as_long_as_they_count() -> None:
    """Also when they are put together; and those of older versions are read."""
    at = datetime(2026, 11, 23, 6, tzinfo=UTC)
    later = at + timedelta(seconds=1)
    good = _ledger.Drilled(at, {})
    one = _ledger.Ledger(drills={"a": good, "b": good})
    one.failed_drills = {name: _ledger.FailedDrill(at, "open") for name in "ac"}
    other = _ledger.Ledger(drills={"c": _ledger.Drilled(later, {})})
    other.failed_drills = {"b": _ledger.FailedDrill(later, "content")}
    whole = _ledger.Ledger()
    for ledger in (other, one):
        whole.add(_ledger.decode(_ledger.encode_ledger(ledger, "id", "tool"), "s3://b/health"))
    kept = whole.only(set(), set("abc"))
    for found in (whole, kept):
        failed = {name: found.failed_drill(name) for name in "abcd"}
        # Within one second nobody knows which was the last.
        assert {name: item.kind for name, item in failed.items() if item is not None} == {
            "a": "open",
            "b": "content",
        }
    assert set(kept.failed_drills) == set("ab")
    old = json.loads(_ledger.encode_ledger(one, "id", "tool"))
    del old["failed_drills"], old["crc32c"]
    decoded = _ledger.decode(json.dumps(old).encode(), "s3://b/health")
    assert (decoded.drills, decoded.failed_drills) == (one.drills, {})


def test_deleted_ranges_that_are_empty(
    repository: kumo_crt.Repository, tmp_path: Path, scratch: Path
) -> None:
    """RocksDB numbers them when they are written, and not when the log is replayed."""
    db = Rdict(str(tmp_path / "db"), databases.options())
    databases.fill(db, 0, 10)
    db.delete_range(b"m", b"m")
    snapshot = repository.backup(tmp_path / "db", live=True)
    assert snapshot.sequence_number == db.latest_sequence_number() == 11
    db.close()
    restored = tmp_path / "restored"
    repository.restore(restored)
    db = Rdict(str(restored), databases.options())
    assert db.latest_sequence_number() == 10
    db.close()
    assert repository.drill(scratch=scratch).problems == ()


def test_a_database_that_does_not_open(
    repository: kumo_crt.Repository, make: Make, scratch: Path
) -> None:
    repository.backup(make("plain"))

    def opener(path: str) -> Any:
        raise OSError("no such comparator")

    report = repository.drill(scratch=scratch, opener=opener)
    assert [problem.kind for problem in report.problems] == ["open"]
    assert list(scratch.iterdir()) == []
    opened = []

    def mine(path: str) -> Rdict:
        opened.append(path)
        return Rdict(path, Options(raw_mode=True))

    assert repository.drill(scratch=scratch, opener=mine).ok
    assert len(opened) == 1


class _Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("TRAP",)


def test_rocksdicts_own_mode(
    repository: kumo_crt.Repository,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Typed keys come in the order of their types; pickled values are not unpickled."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "db"
    db = Rdict(str(path))
    db[1] = "one"
    db["two"] = 2.5
    db[b"three"] = True
    db[4] = _Trap()
    db.close()
    repository.backup(path)
    first = repository.drill(scratch=scratch)
    assert first.ok
    assert first.entries == {"default": 4}
    assert repository.drill(scratch=scratch).ok
    assert not (tmp_path / "TRAP").exists()


_KILLED = """
import os, signal, sys
import kumo_crt
def opener(path):
    os.kill(os.getpid(), signal.SIGKILL)
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    repository.drill(scratch=sys.argv[2], opener=opener)
"""


def test_killed(
    repository: kumo_crt.Repository,
    make: Make,
    scratch: Path,
    s3_server: S3Server,
    bucket: str,
) -> None:
    repository.backup(make("plain"))
    with start_python(_KILLED, url(bucket), str(scratch), env=s3_server.environment()) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(list(scratch.iterdir())) == 1
    (scratch / "kumo-drill-notes.txt").write_text("not a directory")
    assert repository.drill(scratch=scratch).ok
    assert [path.name for path in scratch.iterdir()] == ["kumo-drill-notes.txt"]


def test_no_room_and_no_directory(
    repository: kumo_crt.Repository, make: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = repository.backup(make("plain"))
    with pytest.raises(kumo_crt.RepositoryError, match="no such directory"):
        repository.drill(scratch=scratch / "none")
    unnamed = Path(os.fsdecode(bytes(scratch / "none") + b"\xff"))
    unnamed.mkdir()
    with pytest.raises(kumo_crt.RepositoryError, match="is not UTF-8"):
        repository.drill(scratch=unnamed)
    unnamed.rmdir()
    real = os.statvfs

    def full(path: Any) -> Any:
        found = real(path)
        return os.statvfs_result((*found[:4], snapshot.total_bytes // found.f_frsize, *found[5:]))

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(kumo_crt.RepositoryError, match="are needed"):
        repository.drill(scratch=scratch)
    assert list(scratch.iterdir()) == []
    shutil.rmtree(scratch)
