"""Several backups and restores at once, in threads and in processes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint, Rdict

import kumo_crt
from kumo_crt.backup._format import _layout
from kumo_crt.backup._local._lock import database_lock
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, keys, leftovers, stored_files, url
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _all_good(
    repository: kumo_crt.Repository, boto: Any, bucket: str, snapshots: list[kumo_crt.Snapshot]
) -> None:
    assert len({snapshot.id for snapshot in snapshots}) == len(snapshots)
    assert sorted(repository.snapshots(), key=lambda s: s.id) == sorted(
        snapshots, key=lambda s: s.id
    )
    for snapshot in snapshots:
        assert repository.verify(snapshot.id, level="full").ok
    named = {file.key for snapshot in snapshots for file in stored_files(snapshot)}
    assert keys(boto, bucket, "data/") == named


def test_threads_with_one_closed_database(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """One holds its LOCK while it links the files, and is no stranger to the others."""
    path = make("many_files")

    def back_up(_: int) -> kumo_crt.Snapshot:
        return repository.backup(path)

    with ThreadPoolExecutor(6) as pool:
        with database_lock(path):
            running = [pool.submit(back_up, number) for number in range(6)]
            time.sleep(0.5)
            assert not any(backup.done() for backup in running)
        snapshots = [backup.result(60) for backup in running]
    _all_good(repository, boto, bucket, snapshots)


@pytest.mark.parametrize("own_clients", [False, True])
def test_threads_with_one_database(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    own_clients: bool,
) -> None:
    db = Rdict(str(make("many_files")), databases.options(small_files=True))

    def back_up(_: int) -> kumo_crt.Snapshot:
        if not own_clients:
            return repository.backup(db)
        with (
            kumo_crt.S3Client(**s3_server.client_arguments()) as client,
            kumo_crt.Repository.open(url(bucket), client=client) as opened,
        ):
            return opened.backup(db)

    with ThreadPoolExecutor(4) as pool:
        snapshots = list(pool.map(back_up, range(4)))
    db.close()
    assert leftovers(tmp_path) == []
    _all_good(repository, boto, bucket, snapshots)
    # One content: one object each, however many sent it.
    ssts = {tuple(sorted(f.key or "" for f in stored_files(s, "sst"))) for s in snapshots}
    assert len(ssts) == 1
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("many_files")


_BACKUP = """
import sys
import kumo_crt
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    print("ready", flush=True)
    sys.stdin.readline()
    print(repository.backup(sys.argv[2]).id)
"""


def test_processes_with_one_checkpoint(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "checkpoint"
    db = Rdict(str(make("many_files")), databases.options(small_files=True))
    Checkpoint(db).create_checkpoint(str(checkpoint))
    db.close()
    started = [
        start_python(_BACKUP, url(bucket), str(checkpoint), env=s3_server.environment())
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = []
    for process in started:
        with process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        ids.append(out.strip())
    _all_good(repository, boto, bucket, [repository.snapshot(i) for i in ids])


def test_threads_with_several_databases(
    repository: kumo_crt.Repository, boto: Any, bucket: str, library: Library, make: Make
) -> None:
    names = ["plain", "blobs", "deletions", "column_families", "one_key", "empty"]
    paths = {name: make(name) for name in names}
    with ThreadPoolExecutor(6) as pool:
        snapshots = list(pool.map(lambda name: repository.backup(paths[name]), names))
        _all_good(repository, boto, bucket, snapshots)
        targets = [paths[name].with_name(f"restored-{name}") for name in names]
        list(pool.map(repository.restore, targets, [snapshot.id for snapshot in snapshots]))
    for name, target in zip(names, targets, strict=True):
        assert content_of(target) == library.truth(name)


def test_a_name_that_is_drawn_twice(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two backups in one second that see the same newest snapshot, and draw the same number.
    path = make("one_key")
    first = repository.backup(path)
    real = _layout.new_snapshot_id
    drawn = [first.id]
    monkeypatch.setattr(
        _layout, "new_snapshot_id", lambda *args: drawn.pop() if drawn else real(*args)
    )
    second = repository.backup(path)
    assert drawn == []
    _all_good(repository, boto, bucket, [first, second])
    assert second.id > first.id
    monkeypatch.setattr(_layout, "new_snapshot_id", lambda *_: first.id)
    with pytest.raises(kumo_crt.PreconditionFailedError):
        repository.backup(path)
    assert [s.id for s in repository.snapshots()] == [first.id, second.id]
