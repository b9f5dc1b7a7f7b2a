"""Prunes that are killed, that meet each other, and whose clocks are wrong; unfinished uploads."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _clock, _inflight
from kumo_crt.backup._coordination._inflight import LeaseState, Part
from kumo_crt.backup._prune import _prune
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.doctoring import doctor_of
from tests.backup.helpers import (
    PREFIX,
    delete,
    keys,
    manifest_key,
    open_uploads,
    put,
    spare_key,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.backup.pruning import all_good, generations, ids, named
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.usefixtures("at_once")
def test_killed_at_every_request(
    s3_server: S3Server,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("one_key")
    number = 0
    with kumo_crt.S3Client(**s3_server.client_arguments()) as mortal:
        while True:
            place = url(bucket, f"{PREFIX}-{number}")
            repository = kumo_crt.Repository.create(place, client=s3)
            first, _, third = generations(repository, path, 3)
            repository.delete_snapshot(first.id)
            repository.prune()  # marks the first's data

            def die(at: int, sent: Sent, wanted: int = number) -> None:
                if at == wanted:
                    watch.kill()

            with watched(mortal, die) as watch:
                try:
                    kumo_crt.Repository(place, client=mortal).prune(keep_last=1)
                except Killed:
                    killed = True
                else:
                    killed = False
            all_good(repository)
            again = repository.backup(path)
            assert repository.verify(again.id, level="full").ok
            with monkeypatch.context() as patch:
                if killed and number > 1:
                    patch.setattr(_prune, "_TIE", timedelta(0))
                    with pytest.raises(kumo_crt.RepositoryLockedError, match="takes over"):
                        repository.prune()
                patch.setattr(_inflight, "MARGIN", -1000.0)
                for _ in range(2):
                    repository.prune(keep_last=1)
            assert ids(repository) == [again.id]
            assert repository.verify(level="full").ok
            left = {item.key for item in s3.list_objects(bucket, f"{PREFIX}-{number}/")}
            left = {key.removeprefix(f"{PREFIX}-{number}/") for key in left}
            assert {key for key in left if not key.startswith("health/")} == {
                "kumo-repository.json",
                manifest_key(again),
                spare_key(again),
                *again.object_keys,
            }
            assert third.id not in ids(repository)
            if not killed:
                break
            number += 1
    assert number > 20


@pytest.mark.usefixtures("at_once")
def test_a_second_prune_at_any_time(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    path = make("one_key")
    number = locked = 0
    with kumo_crt.S3Client(**s3_server.client_arguments()) as another:
        while True:
            generations(repository, path, 2)

            def second(at: int, sent: Sent, wanted: int = number) -> None:
                nonlocal locked
                if at == wanted:
                    try:
                        kumo_crt.Repository(url(bucket), client=another).prune(keep_last=1)
                    except kumo_crt.RepositoryLockedError:
                        locked += 1

            with watched(s3, second) as watch:
                repository.prune(keep_last=1)
            all_good(repository)
            assert len(ids(repository)) == 1
            if number >= len(watch.sent):
                break
            number += 2
    assert locked > 5
    repository.prune()
    repository.prune()
    assert keys(boto, bucket, "data/") == named(repository)
    assert keys(boto, bucket, "inflight/") == set()


def test_a_prune_of_the_dead_is_taken_over(
    repository: kumo_crt.Repository, boto: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"inflight/prune-{'de' * 16}-000000.json"
    put(boto, bucket, dead, _inflight.encode_lease("prune", "kumo_crt 0", "kv-7", 4711))
    monkeypatch.setattr(_prune, "_TIE", timedelta(0))
    with pytest.raises(kumo_crt.RepositoryLockedError, match=r"process 4711 on 'kv-7'.*takes over"):
        repository.prune()
    assert keys(boto, bucket, "inflight/") == {dead}
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    repository.prune()
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.usefixtures("at_once")
def test_it_stops_when_its_lease_is_lost(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    repository.prune()
    data = keys(boto, bucket, "data/")
    # The process stands still after its sweep, for longer than its lease.
    real = _clock.boottime
    stood = 0.0
    monkeypatch.setattr(_clock, "boottime", lambda: real() + stood)

    def stand_still(number: int, sent: Sent) -> None:
        nonlocal stood
        if sent.operation == "ListObjectsV2" and sent.key.endswith("snapshots/") and number > 5:
            stood = 1000.0

    with watched(s3, stand_still), pytest.raises(kumo_crt.LeaseExpiredError, match="run it again"):
        repository.prune()
    assert keys(boto, bucket, "data/") == data

    # Or another prune has taken it for dead.
    stood = 0.0
    for key in keys(boto, bucket, "inflight/"):
        delete(boto, bucket, key)

    def remove(number: int, sent: Sent) -> None:
        if "/sweep-" in sent.key:
            for key in keys(boto, bucket, "inflight/"):
                delete(boto, bucket, key)

    with watched(s3, remove), pytest.raises(kumo_crt.LeaseExpiredError, match="another prune"):
        repository.prune()
    assert keys(boto, bucket, "data/") == data


@pytest.mark.usefixtures("at_once")
def test_a_deletion_that_may_still_arrive_stays_announced(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    first = repository.backup(path)
    old = path.with_name("old")
    shutil.copytree(path, old)
    (second,) = generations(repository, path, 1)
    repository.delete_snapshot(first.id)
    repository.prune()
    condemned = first.object_keys - second.object_keys

    def fail(number: int, sent: Sent) -> None:
        if sent.operation == "DeleteObjects":
            raise kumo_crt.TransportError("nobody knows whether it arrived")

    with watched(s3, fail), pytest.raises(kumo_crt.TransportError, match="nobody knows"):
        repository.prune()
    (left,) = keys(boto, bucket, "inflight/")
    assert "/sweep-" in left
    # Who backs up the same data meanwhile does not rely on it: the late deletion harms nobody.
    again = repository.backup(old)
    assert again.uploaded_bytes > 0
    for key in condemned:
        delete(boto, bucket, key)
    all_good(repository)


@pytest.mark.usefixtures("at_once")
def test_a_deletion_that_was_sent_twice_stays_announced(
    s3_server: S3Server,
    proxy: FaultProxy,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first may still be at work on its thousand keys when the second has been answered."""
    path = make("one_key")
    first = repository.backup(path)
    (second,) = generations(repository, path, 1)
    repository.delete_snapshot(first.id)
    repository.prune()
    condemned = first.object_keys - second.object_keys
    endpoint = {"endpoint_url": proxy.endpoint_url}
    lost = Fault("reset", method="POST", target="delete", in_head=True)
    with kumo_crt.S3Client(**s3_server.client_arguments(**endpoint)) as client:
        other = kumo_crt.Repository(str(repository._location), client=client)
        with proxy.armed(lost):
            other.prune()
        assert lost.fired.is_set()
    assert not condemned & keys(boto, bucket, "data/")
    (left,) = keys(boto, bucket, "inflight/")
    assert "/sweep-" in left
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    repository.prune()
    assert keys(boto, bucket, "inflight/") == set()


def test_leases_by_the_clock_of_the_service() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def lease(*ages: float | None) -> LeaseState:
        times = [None if age is None else now - timedelta(seconds=age) for age in ages]
        parts = [Part(f"p{n}", "backup", "x", n, time) for n, time in enumerate(times)]
        return LeaseState("x", parts)

    # Held for 900 s from the newest part, and honoured for 900 s more; also by a clock that is off.
    assert not lease(0).has_lapsed(now)
    assert not lease(-500).has_lapsed(now)
    assert not lease(1799).has_lapsed(now)
    assert lease(1801).has_lapsed(now)
    assert not lease(100_000, 1799).has_lapsed(now)
    assert lease(100_000, 1801).has_lapsed(now)
    assert not lease(100_000, None).has_lapsed(now)
    assert lease(100_000, 5).began == now - timedelta(seconds=100_000)


@pytest.mark.usefixtures("at_once")
def test_the_clock_of_this_machine_does_not_matter(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = generations(repository, make("one_key"), 2)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=tz)

    for module in (
        "_coordination._census",
        "_coordination._inflight",
        "_coordination._lease",
        "_keeping",
        "_prune._prune",
        "_prune._retention",
        "_store._store",
    ):
        name = f"kumo_crt.backup.{module}.datetime"
        monkeypatch.setattr(name, Wrong, raising=False)
    # Measured from 2001, both would be in the future.
    report = repository.prune(keep_within="1h", dry_run=True)
    assert set(report.kept) == {first.id, second.id}
    assert repository.prune(keep_last=1).removed == (first.id,)


# -- uploads --------------------------------------------------------------------------------------


def _upload(boto: Any, bucket: str, key: str) -> None:
    boto.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{key}")


def test_unfinished_uploads_are_aborted(
    repository: kumo_crt.Repository, boto: Any, bucket: str, library: Library
) -> None:
    _upload(boto, bucket, "data/00/sst-x-1.sst")
    _upload(boto, bucket, "snapshots/20261123T060000Z-0a1b2c3d.json")
    _upload(boto, bucket, "other/data/00/sst-x-1.sst")
    assert repository.prune().aborted_uploads == 0  # too young
    with without_waiting():
        assert repository.prune(dry_run=True).aborted_uploads == 0
        assert repository.prune().aborted_uploads == 2
    assert open_uploads(boto, bucket) == [f"{PREFIX}/other/data/00/sst-x-1.sst"]
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.parametrize("protect_new", [False, True], ids=["named", "new"])
def test_uploads_of_running_backups_stay(
    repository: kumo_crt.Repository, boto: Any, bucket: str, protect_new: bool
) -> None:
    key = "data/00/sst-x-1.sst.0a1b2c3d"
    named = [] if protect_new else [_inflight.object_hash("data/99/sst-x-1.sst")]
    pin = f"inflight/backup-{'ba' * 16}-000000.json"
    put(boto, bucket, pin, _inflight.encode_lease("backup", "kumo_crt 0", "h", 1, named))
    _upload(boto, bucket, key)
    _upload(boto, bucket, "data/00/sst-y-1.sst")
    with without_waiting(protect_new=protect_new):
        assert repository.prune().aborted_uploads == (0 if protect_new else 1)
        assert f"{PREFIX}/{key}" in open_uploads(boto, bucket)
        delete(boto, bucket, pin)
        repository.prune()
    assert open_uploads(boto, bucket) == []


@pytest.mark.usefixtures("at_once")
def test_a_manifest_that_is_listed_and_not_there(
    s3_via_proxy: kumo_crt.S3Client, proxy: FaultProxy, bucket: str, boto: Any, make: Make
) -> None:
    """A service that has lost sight of it is no word that it was deleted: its data stays."""
    path = make("one_key")
    with kumo_crt.Repository.create(url(bucket), client=s3_via_proxy) as repository:
        first, _, third = generations(repository, path, 3)
        data = keys(boto, bucket, "data/")
        lost = Fault(
            "answer",
            "request",
            method="GET",
            when=lambda request: request.target.split("?")[0].endswith(f"/{first.id}.json"),
            times=1000,
            answer=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        )
        with proxy.armed(lost):
            for _ in range(2):
                with pytest.raises(kumo_crt.FormatError, match="is in listings and cannot be read"):
                    repository.prune(keep_last=2)
            with pytest.raises(kumo_crt.FormatError, match="is in listings"):
                repository.snapshots()
            problems = repository.verify("all").problems
            assert [(problem.kind, problem.snapshots) for problem in problems] == [
                ("manifest", (first.id,))
            ]
            assert any(
                "is in listings" in found.message for found in doctor_of(repository).findings
            )
            # Damage of old snapshots does not keep a new one from being made.
            fourth = repository.backup(path)
        assert keys(boto, bucket, "data/") >= data
        assert repository.verify("all", level="full").ok
        assert {snapshot.id for snapshot in repository.snapshots()} >= {first.id, third.id}
        assert fourth.id in {snapshot.id for snapshot in repository.snapshots()}
