"""Spares beside work that is late, or goes wrong: none is ever left without its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import kumo_crt
from kumo_crt._engine import Sleep, Task
from kumo_crt.backup._coordination import _commit, _inflight, _lease
from kumo_crt.backup._repair import _sparing
from kumo_crt.backup._store import _writing
from kumo_crt.s3 import _put
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.damaging import check_good
from tests.backup.doctoring import doctor_of, findings_of, severity_of
from tests.backup.helpers import PREFIX, delete, get, keys, manifest_key, put, spare_key, url
from tests.backup.interleaving import without_waiting
from tests.backup.pruning import generations, ids
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

LATER = timedelta(seconds=2000)


def _later(result: Any) -> Any:
    return replace(result, server_time=result.server_time + LATER)


@pytest.fixture
def another(s3_server: S3Server, bucket: str, repository: kumo_crt.Repository) -> Iterator[Any]:
    """The same repository, for somebody else."""
    with (
        kumo_crt.S3Client(**s3_server.client_arguments()) as client,
        kumo_crt.Repository.open(url(bucket), client=client) as opened,
    ):
        yield opened


def _pairs(boto: Any, bucket: str) -> tuple[set[str], set[str]]:
    """Ids of manifests, and of spares."""
    found = [
        {key.removeprefix(folder).removesuffix(".json") for key in keys(boto, bucket, folder)}
        for folder in ("snapshots/", "spares/")
    ]
    return found[0], found[1]


@pytest.mark.usefixtures("each_alone")
def test_a_prune_while_a_snapshot_is_taken_back(
    repository: kumo_crt.Repository,
    another: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """What it needs is gone; the prune has seen its manifest, and the backup is at work."""
    lost: list[str] = []
    pruned: list[tuple[set[str], set[str]]] = []

    def before(_: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/snapshots/" in sent.key and not lost:
            lost.extend(sorted(keys(boto, bucket, "data/"))[:2])
            for key in lost:
                delete(boto, bucket, key)
            proxy.add(Fault("reset", "request", method="PUT", in_head=True))
        if sent.operation == "DeleteObject" and "/inflight/" not in sent.key and not pruned:
            another.prune()
            pruned.append(_pairs(boto, bucket))

    with (
        kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as hindered,
        watched(s3_via_proxy, before),
    ):
        snapshot = hindered.backup(make("many_files"), max_concurrency=1)
    ((manifests, spares),) = pruned
    assert len(manifests) == 1
    assert spares == set()
    assert _pairs(boto, bucket) == ({snapshot.id}, {snapshot.id})
    check_good(repository, boto, bucket)


def test_a_prune_once_the_pin_has_lapsed(
    repository: kumo_crt.Repository,
    another: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest was stored, and the process stood still before it knew."""
    path = make("plain")
    kept = repository.backup(make("one_key"))
    monkeypatch.setattr(_inflight, "LEASE", 2.0)
    monkeypatch.setattr(_inflight, "MARGIN", -1.0)
    monkeypatch.setattr(_lease, "_RENEW", 0.2)
    real = _writing.write_new_task
    seen = []

    def write(store: Any, key: str, document: bytes) -> Task[Any]:
        result = yield from real(store, key, document)
        time.sleep(3.0)
        monkeypatch.setattr(_inflight, "LEASE", 100.0)
        monkeypatch.setattr(_inflight, "MARGIN", -99.0)
        another.prune()
        monkeypatch.setattr(_inflight, "LEASE", 2.0)
        seen.append(_pairs(boto, bucket))
        yield Sleep(0.5)
        return result

    monkeypatch.setattr(_commit, "write_new_task", write)
    with pytest.raises(kumo_crt.LeaseExpiredError, match="nothing was committed"):
        repository.backup(path)
    ((manifests, spares),) = seen
    assert len(manifests) == len(spares) == 2
    assert _pairs(boto, bucket) == ({kept.id}, {kept.id})


def test_a_spare_that_is_late(
    repository: kumo_crt.Repository,
    another: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a machine that was paused for an hour: the snapshot was deleted meanwhile."""
    path = make("one_key")
    kept = repository.backup(path)
    real = _writing.write_new_task
    deleted = []

    def write(store: Any, key: str, document: bytes) -> Task[Any]:
        is_spare = key.startswith("spares/")
        if is_spare:
            newest = ids(another)[-1]
            with monkeypatch.context() as patch:
                patch.setattr(_inflight, "MARGIN", -1000.0)
                another.delete_snapshot(newest)
            deleted.append(newest)
        result = yield from real(store, key, document)
        if not is_spare:
            return result
        return _later(result)

    monkeypatch.setattr(_commit, "write_new_task", write)
    assert repository.backup(path).id in deleted
    assert _pairs(boto, bucket) == ({kept.id}, {kept.id})
    repository.prune()


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_manifest_that_is_late(
    repository: kumo_crt.Repository,
    another: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    is_deleted: bool,
) -> None:
    """The same of a repair: what has been forgotten does not come back without its data."""
    path = make("one_key")
    kept, lost = generations(repository, path, 2)
    delete(boto, bucket, manifest_key(lost))
    real = _put.put_task

    def late(context: Any, bucket_: str, key: str, body: Any, options: Any) -> Task[Any]:
        if is_deleted:
            with monkeypatch.context() as patch:
                patch.setattr(_inflight, "MARGIN", -1000.0)
                another.delete_snapshot(lost.id)
        result = yield from real(context, bucket_, key, body, options)
        return _later(result)

    monkeypatch.setattr(_sparing, "put_task", late)
    report = repository.repair()
    there = {kept.id} if is_deleted else {kept.id, lost.id}
    assert report.manifests == (() if is_deleted else (lost.id,))
    assert _pairs(boto, bucket) == (there, there)
    check_good(repository, boto, bucket)


def test_a_spare_that_takes_long(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pin is renewed until it is there."""
    path = make("one_key")
    monkeypatch.setattr(_lease, "_RENEW", 0.5 / _inflight.LEASE)
    real = _writing.write_new_task
    pins = []

    def write(store: Any, key: str, document: bytes) -> Task[Any]:
        if key.startswith("spares/"):
            yield Sleep(1.25)  # between two renewals
            pins.append(keys(boto, bucket, "inflight/"))
        return (yield from real(store, key, document))

    monkeypatch.setattr(_commit, "write_new_task", write)
    snapshot = repository.backup(path)
    assert [len(found) for found in pins] == [2]
    assert snapshot.warnings == ()
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.parametrize("folder", ["snapshots", "spares"])
def test_it_was_sent_again(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    folder: str,
) -> None:
    """What was sent first may still arrive: until it cannot, the snapshot stays."""
    fault = proxy.add(Fault("reset", "response", method="PUT", target=f"/{folder}/", in_head=True))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as hindered:
        snapshot = hindered.backup(make("one_key"))
    assert fault.fired.is_set()
    assert snapshot.warnings == ()
    assert _pairs(boto, bucket) == ({snapshot.id}, {snapshot.id})
    assert keys(boto, bucket, "inflight/")
    with pytest.raises(kumo_crt.RepositoryLockedError, match="less than 30 minutes ago"):
        repository.delete_snapshot(snapshot.id)


def test_a_manifest_that_is_lost_while_a_prune_waits(
    repository: kumo_crt.Repository,
    another: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """A snapshot has come since the prune began; what it shares with a removed one stays."""
    first, kept = generations(repository, make("one_key"), 2)
    path = make("plain")
    shared = repository.backup(path)
    repository.delete_snapshot(shared.id)
    repository.prune()
    new: list[kumo_crt.Snapshot] = []

    def lose(_: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/inflight/sweep-" in sent.key and not new:
            new.append(another.backup(path))
            delete(boto, bucket, manifest_key(new[0]))

    with (
        without_waiting(),
        watched(s3, lose),
        pytest.raises(kumo_crt.FormatError, match=r"is lost; its spare is there.*nothing was"),
    ):
        repository.prune()
    assert new[0].uploaded_bytes == 0
    assert repository.repair().manifests == (new[0].id,)
    assert set(ids(repository)) == {first.id, kept.id, new[0].id}
    check_good(repository, boto, bucket)


# -- what may not be known, or not be done --------------------------------------------------------


def test_spares_that_may_not_be_written(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """A repair brings back all else."""
    from tests.backup.send.test_heal import DENIED

    path = make("one_key")
    first, second = generations(repository, path, 2)
    delete(boto, bucket, spare_key(first))
    delete(boto, bucket, manifest_key(second))
    (key, *_) = sorted(second.object_keys)
    content = get(boto, bucket, key)
    put(boto, bucket, key, content[:-1])
    proxy.add(Fault("answer", "request", method="PUT", target="/spares/", answer=DENIED, times=9))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as hindered:
        report = hindered.repair(path)
    assert report.manifests == (second.id,)
    assert report.spares == ()
    (warning,) = report.warnings
    assert "allow s3:PutObject below spares/" in warning
    assert [item.key for item in report.repaired] == [key]
    assert report.ok
    assert f"{PREFIX}/" not in report.repaired[0].key


def test_a_backup_that_nobody_can_read(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Whether it still writes a spare is not known; manifests come back all the same."""
    first, second = generations(repository, make("one_key"), 2)
    delete(boto, bucket, spare_key(first))
    delete(boto, bucket, manifest_key(second))
    lease = f"inflight/backup-{'5a' * 16}-000000.json"
    put(boto, bucket, lease, b"{}")
    report = repository.repair()
    assert (report.ok, report.manifests, report.spares) == (True, (second.id,), ())
    (warning,) = report.warnings
    assert lease in warning
    ((severity, text),) = findings_of(doctor_of(repository, write=False), "missing spares")
    assert severity == "warning"
    assert spare_key(first) in text
    # What failed has stopped nothing else.
    delete(boto, bucket, lease)
    assert repository.repair().spares == (first.id,)
    doctor = doctor_of(repository, write=False)
    assert findings_of(doctor, "missing spares") == []
    assert severity_of(doctor, "spare manifests") == "ok"
    # Damaged ones are told, too, and what is none.
    put(boto, bucket, spare_key(second), b"{}")
    put(boto, bucket, "spares/notes.txt", b"mine")
    found = findings_of(doctor_of(repository, write=False), "spare manifests")
    assert [severity for severity, _ in found] == ["warning"] * 2
    assert any(spare_key(second) in text and "of no use" in text for _, text in found)
    assert any("notes.txt" in text for _, text in found)


def test_spares_that_may_not_be_read(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Any,
) -> None:
    """What is sound is restored all the same."""
    from tests.backup.send.test_heal import DENIED

    path = make("one_key")
    first, second = generations(repository, path, 2)
    proxy.add(Fault("answer", "request", target="spares", answer=DENIED, times=99))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as hindered:
        assert hindered.restore(tmp_path / "restored").snapshot == second.id
        with pytest.raises(kumo_crt.AccessDeniedError):
            hindered.prune()
        with pytest.raises(kumo_crt.SnapshotNotFoundError, match="there is no snapshot"):
            hindered.restore(tmp_path / "none", "20200101T000000Z-00000000")
        put(boto, bucket, manifest_key(first), b"{}")
        with pytest.raises(kumo_crt.FormatError, match="its spare may not be read"):
            hindered.restore(tmp_path / "none", first.id)


def test_a_pin_of_what_never_was(
    repository: kumo_crt.Repository, boto: Any, bucket: str, s3: kumo_crt.S3Client
) -> None:
    """Nothing is written for an id that was mistyped."""
    with watched(s3) as watch, pytest.raises(kumo_crt.SnapshotNotFoundError):
        repository.pin("20200101T000000Z-00000000")
    assert "PutObject" not in {sent.operation for sent in watch.sent}


def test_a_pin_that_is_taken_away_again(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    """As of what was just being deleted: that is no loss."""
    gone, kept = generations(repository, make("one_key"), 2)
    repository.pin(gone.id)
    pin = f"pins/{gone.id}.json"
    content = get(boto, bucket, pin)
    repository.unpin(gone.id)
    repository.delete_snapshot(gone.id)
    looks = 0

    def take_away(_: int, sent: Sent) -> None:
        nonlocal looks
        if sent.operation == "HeadObject" and sent.key == f"{PREFIX}/{pin}":
            looks += 1
            if looks == 2:
                delete(boto, bucket, pin)

    calls: list[Callable[[], Any]] = [
        repository.snapshots,
        lambda: repository.verify("all").problems,
        lambda: findings_of(doctor_of(repository, write=False), "snapshots"),
    ]
    for call in calls:
        looks = 0
        put(boto, bucket, pin, content)
        with watched(s3, take_away):
            found = call()
        assert gone.id not in str(found)
        assert looks == 2
    assert ids(repository) == [kept.id]


def test_a_lease_that_cannot_be_read(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Nothing is deleted, nor said to be about to."""
    snapshot = repository.backup(make("one_key"))
    lease = f"inflight/spare-{'5a' * 16}-000000.json"
    put(boto, bucket, lease, b"{}")
    with pytest.raises(kumo_crt.FormatError, match=r"what a repair of manifests .* delete s3://"):
        repository.delete_snapshot(snapshot.id)
    assert keys(boto, bucket, "inflight/") == {lease}
    assert _pairs(boto, bucket) == ({snapshot.id}, {snapshot.id})
    repository.pin(snapshot.id)
