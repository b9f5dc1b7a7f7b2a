"""Restores and verifications whose snapshot is pruned meanwhile; and everything at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.helpers import PREFIX, key_of, keys, stored_files, url
from tests.backup.interleaving import without_waiting
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def two(repository: kumo_crt.Repository, make: Make) -> tuple[Any, Any]:
    """Two snapshots that have table files of their own."""
    path = make("one_key")
    first = repository.backup(path)
    db = Rdict(str(path), databases.options())
    databases.fill(db, 0, 50)
    db.compact_range(None, None)
    db.close()
    return first, repository.backup(path)


@pytest.mark.parametrize("level", ["quick", "stored", "full"])
@pytest.mark.parametrize("which", ["one", "all"])
def test_verify(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    two: tuple[Any, Any],
    bucket: str,
    boto: Any,
    level: str,
    which: str,
) -> None:
    first, second = two
    pruned: list[Any] = []

    def prune(number: int, sent: Sent) -> None:
        manifests = [s for s in watch.sent if s.key.endswith(f"{first.id}.json")]
        if "/snapshots/" not in sent.key and manifests and not pruned:
            for rules in ({"keep_last": 1}, {}):
                pruned.append(other.prune(**rules))  # type: ignore[arg-type]

    with (
        kumo_crt.S3Client(**s3_server.client_arguments()) as client,
        without_waiting(),
        watched(s3, prune) as watch,
    ):
        other = kumo_crt.Repository(url(bucket), client=client)
        if which == "all":
            report = repository.verify("all", level=level)
            assert report.ok
            assert report.snapshots == 1
        else:
            with pytest.raises(kumo_crt.SnapshotNotFoundError, match="deleted while it was"):
                repository.verify(first.id, level=level)
    assert pruned[1].deleted_objects > 0
    assert repository.verify(second.id, level="full").ok
    # What was deleted on purpose was not put down as damage.
    assert not any(item.damaged for item in repository.health())


def test_missing_data_of_snapshots_that_exist_is_damage(
    repository: kumo_crt.Repository, two: tuple[Any, Any], boto: Any, bucket: str
) -> None:
    first, second = two
    victim = next(f for f in stored_files(first, "sst") if f.key not in second.object_keys)
    boto.delete_object(Bucket=bucket, Key=f"{PREFIX}/{key_of(victim)}")
    for snapshot in (first.id, "all"):
        report = repository.verify(snapshot)
        assert [problem.key for problem in report.problems] == [victim.key]


def test_restore(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    two: tuple[Any, Any],
    bucket: str,
    tmp_path: Path,
) -> None:
    first, second = two
    pruned: list[Any] = []

    def prune(number: int, sent: Sent) -> None:
        if "/data/" in sent.key and not pruned:
            for rules in ({"keep_last": 1}, {}):
                pruned.append(other.prune(**rules))  # type: ignore[arg-type]

    with (
        kumo_crt.S3Client(**s3_server.client_arguments()) as client,
        without_waiting(),
        watched(s3, prune),
    ):
        other = kumo_crt.Repository(url(bucket), client=client)
        with pytest.raises(kumo_crt.SnapshotNotFoundError, match="deleted while it was"):
            repository.restore(tmp_path / "restored", first.id)
    assert pruned[1].deleted_objects > 0
    assert not (tmp_path / "restored").exists()
    repository.restore(tmp_path / "restored", second.id)


def test_restore_has_half_an_hour(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    two: tuple[Any, Any],
    bucket: str,
    tmp_path: Path,
) -> None:
    """Its data is still there when the snapshot is not: what began is finished."""
    first, _ = two
    pruned: list[Any] = []

    def prune(number: int, sent: Sent) -> None:
        if "/data/" in sent.key and not pruned:
            for rules in ({"keep_last": 1}, {}):
                pruned.append(other.prune(**rules))  # type: ignore[arg-type]

    with kumo_crt.S3Client(**s3_server.client_arguments()) as client, watched(s3, prune):
        other = kumo_crt.Repository(url(bucket), client=client)
        repository.restore(tmp_path / "restored", first.id)
    assert pruned[0].removed == (first.id,)


# Each works until its standard input is closed, and tells what it did.
_WORKER = """
import random, sys, threading
from pathlib import Path
from rocksdict import Rdict
import kumo_crt
from tests.backup.interleaving import without_waiting
from tests.support import databases
work, url, seed = sys.argv[1], sys.argv[2], sys.argv[3]
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
chance = random.Random(seed)
count = 0
with kumo_crt.Repository.open(url) as repository, without_waiting(protect_new=True):
    if work == "backup":
        db = Rdict(sys.argv[4], databases.options(small_files=True))
    # Of two that prune, one may find nothing, however often it looks.
    while not stop.is_set() or (count == 0 and work != "prune"):
        if work == "backup":
            databases.fill(db, chance.randrange(50) * 10, 510)
            db.flush()
            if chance.random() < 0.3:
                db.compact_range(None, None)
            repository.backup(db)
        elif work == "prune":
            try:
                count += repository.prune(keep_last=chance.randrange(1, 4)).deleted_objects
            except kumo_crt.RepositoryLockedError:
                pass
            if count:
                Path(sys.argv[4]).touch()
            stop.wait(chance.random() / 5)
            continue
        else:
            try:
                assert repository.verify("all", level="full", record=False).ok
                target = Path(sys.argv[4]) / str(count)
                repository.restore(target)
                assert len(databases.read_all(target)) > 0
            except kumo_crt.SnapshotNotFoundError:
                pass
        count += 1
    if work == "backup":
        db.close()
print(count)
"""


def test_everything_at_once(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Processes that back up, prune, verify and restore, as fast as they can."""
    # For the support modules; kumo_crt comes from where the test has it from.
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH")]
    environment = {
        **s3_server.environment(),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    works = ["backup", "backup", "prune", "prune", "check"]
    started = [
        start_python(
            _WORKER, work, url(bucket), str(n), str(tmp_path / f"{work}-{n}"), env=environment
        )
        for n, work in enumerate(works)
    ]
    (tmp_path / "check-4").mkdir()
    counts = []
    try:
        time.sleep(4)
        # Nothing can be deleted while backups overlap that began before it was last named: how long
        # they do so is chance.
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob("prune-*")):
            assert time.monotonic() < deadline, "neither prune ever deleted anything"
            time.sleep(0.1)
        for process in started:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            counts.append(int(out))
    finally:
        for process in started:
            with process:
                process.kill()
    assert all(counts[:2]), counts
    assert sum(counts[2:4]) > 0
    for snapshot in repository.snapshots():
        assert repository.verify(snapshot.id, level="full").ok
    with without_waiting():
        for _ in range(2):
            repository.prune(keep_last=1)
    snapshots = repository.snapshots()
    assert len({snapshot.db_id for snapshot in snapshots}) == len(snapshots) == 2
    named = {key for snapshot in snapshots for key in snapshot.object_keys}
    assert keys(boto, bucket, "data/") == named
    assert keys(boto, bucket, "inflight/") == keys(boto, bucket, "marks/") == set()
