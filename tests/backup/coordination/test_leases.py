"""Pins of running backups: written first, renewed, checked before the manifest, gone at the end."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import kumo_crt
from kumo_crt._engine import Sleep, Task
from kumo_crt.backup._coordination import _commit, _inflight, _lease
from kumo_crt.backup._store import _writing
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Make
from tests.backup.helpers import (
    PREFIX,
    delete,
    get,
    key_of,
    keys,
    put,
    stored_files,
    url,
)
from tests.backup.sweeping import hash_of
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def test_the_pin_comes_before_everything_and_goes_last(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("many_files")
    pins: list[dict[str, Any]] = []

    def look(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/snapshots/" in sent.key:
            pins.extend(
                json.loads(get(boto, bucket, key)) for key in keys(boto, bucket, "inflight/")
            )

    with watched(s3, look) as watch:
        snapshot = repository.backup(path)
    # Before it, only manifests are looked for; and the configuration, for the service's time.
    reads = {"GetObject", "ListObjectsV2"}
    before = list(itertools.takewhile(lambda sent: sent.operation in reads, watch.sent))
    assert {sent.key.removeprefix(PREFIX) for sent in before} <= {
        "/kumo-repository.json",
        "/snapshots/",
    }
    first, *_, last = watch.sent[len(before) :]
    assert (first.operation, last.operation) == ("PutObject", "DeleteObject")
    assert first.key == last.key
    assert first.key.startswith(f"{PREFIX}/inflight/backup-")
    (pin,) = pins
    assert pin["format"] == "kumo-lease"
    assert pin["version"] == 1
    assert pin["kind"] == "backup"
    assert set(pin["objects"]) == {hash_of(key_of(file)) for file in stored_files(snapshot)}
    assert keys(boto, bucket, "inflight/") == set()


def test_dry_run_writes_no_pin(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, make: Make
) -> None:
    with watched(s3) as watch:
        repository.backup(make("plain"), dry_run=True)
    assert {sent.operation for sent in watch.sent} == {"GetObject", "ListObjectsV2"}


@pytest.mark.usefixtures("each_alone")
def test_a_failed_backup_leaves_no_pin(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("many_files")

    def fail(number: int, sent: Sent) -> None:
        if "/data/" in sent.key and number > 20:
            raise kumo_crt.TransportError("the network is gone")

    with watched(s3, fail), pytest.raises(kumo_crt.TransportError, match="is gone"):
        repository.backup(path)
    assert keys(boto, bucket, "inflight/") == set()
    assert keys(boto, bucket, "snapshots/") == set()
    # Killed, it leaves one, which disturbs nobody.

    def die(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/snapshots/" in sent.key:
            watch.kill()

    with pytest.raises(Killed), watched(s3, die) as watch:
        repository.backup(path)
    assert len(keys(boto, bucket, "inflight/")) == 1
    repository.backup(path)
    assert len(keys(boto, bucket, "inflight/")) == 1
    assert repository.verify(level="full").ok


@pytest.mark.usefixtures("each_alone")
def test_long_backups_renew_their_pin(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("many_files")
    size = repository.backup(path, dry_run=True).uploaded_bytes
    monkeypatch.setattr(_inflight, "LEASE", 8.0)
    monkeypatch.setattr(_lease, "_RENEW", 0.02)
    listed: list[set[str]] = []

    def look(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/data/" in sent.key:
            listed.append(keys(boto, bucket, "inflight/"))

    with watched(s3, look) as watch:
        repository.backup(path, max_bytes_per_second=size / 2)
    renewals = [s for s in watch.sent if s.operation == "PutObject" and "/inflight/" in s.key][1:]
    assert len(renewals) >= 4
    # Nothing is overwritten; but for the first part and the newest, they are deleted.
    assert len({sent.key for sent in renewals}) == len(renewals)
    assert max(map(len, listed)) <= 3
    first = min(listed[0])
    assert all(first in found for found in listed)
    assert keys(boto, bucket, "inflight/") == set()
    assert repository.verify(level="full").ok


def test_renewals_have_a_connection_of_their_own(
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All others may be busy for longer than the lease holds."""
    path = make("many_files")
    renewals: list[int] = []
    monkeypatch.setattr(_lease, "_RENEW", 0.2 / _inflight.LEASE)
    endpoint = {"endpoint_url": proxy.endpoint_url}
    arguments = s3_server.client_arguments(**endpoint, max_connections=1, max_attempts=1)
    stall = Fault("stall", "request", method="PUT", target="/data/")
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.create(url(bucket), client=client) as repository,
        proxy.armed(stall),
    ):

        def release() -> None:
            renewals.append(proxy.count("PUT", "/inflight/"))
            proxy.release()

        timer = threading.Timer(2.0, release)
        timer.start()
        repository.backup(path)
        timer.join()
    assert stall.fired.is_set()
    # While the only other connection stood still.
    assert renewals[0] >= 4
    assert keys(boto, bucket, "inflight/") == set()
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        assert kumo_crt.Repository(url(bucket), client=client).verify(level="full").ok


@pytest.mark.usefixtures("each_alone")
def test_renewals_that_fail_for_a_while(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("many_files")
    size = repository.backup(path, dry_run=True).uploaded_bytes
    monkeypatch.setattr(_inflight, "LEASE", 2.5)
    monkeypatch.setattr(_lease, "_RENEW", 0.2)
    failures: list[Sent] = []

    def fail(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/inflight/" in sent.key and number > 5:
            failures.append(sent)
            if len(failures) != 3:
                raise kumo_crt.TransportError("the network is gone")

    started = time.monotonic()
    with watched(s3, fail), pytest.raises(kumo_crt.LeaseExpiredError, match="run it again") as told:
        repository.backup(path, max_bytes_per_second=size / 30)
    # It went on after the renewal that succeeded, and stopped when the others did not.
    assert 2.9 < time.monotonic() - started < 15
    assert isinstance(told.value.__cause__, kumo_crt.TransportError)
    assert keys(boto, bucket, "snapshots/") == set()
    monkeypatch.undo()
    repository.backup(path)
    assert repository.verify(level="full").ok


@pytest.mark.usefixtures("each_alone")
def test_a_pin_that_has_lapsed_is_not_renewed(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prune that went on meanwhile did not count it, and need not have removed it."""
    path = make("many_files")
    size = repository.backup(path, dry_run=True).uploaded_bytes
    monkeypatch.setattr(_inflight, "LEASE", 2.5)
    monkeypatch.setattr(_lease, "_RENEW", 0.2)

    def stand_still(number: int, sent: Sent) -> None:
        if number == 6:
            time.sleep(3.0)

    with watched(s3, stand_still), pytest.raises(kumo_crt.LeaseExpiredError, match="run it again"):
        repository.backup(path, max_bytes_per_second=size / 2)
    assert keys(boto, bucket, "snapshots/") == set()


def test_a_pin_that_lapses_with_the_manifest(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which was stored, while the process stood still before it knew."""
    path = make("plain")
    repository.backup(make("one_key"))
    monkeypatch.setattr(_inflight, "LEASE", 2.5)
    monkeypatch.setattr(_lease, "_RENEW", 0.2)
    real = _writing.write_new_task

    def write(store: Any, key: str, document: bytes) -> Task[Any]:
        result = yield from real(store, key, document)
        time.sleep(3.0)
        yield Sleep(0.5)
        return result

    monkeypatch.setattr(_commit, "write_new_task", write)
    with pytest.raises(kumo_crt.LeaseExpiredError, match="nothing was committed"):
        repository.backup(path)
    assert len(keys(boto, bucket, "snapshots/")) == 1


@pytest.mark.usefixtures("each_alone")
def test_a_machine_whose_clock_stood_still_too(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a virtual machine that was paused: the service's clock tells it with the renewal."""
    path = make("many_files")
    size = repository.backup(path, dry_run=True).uploaded_bytes
    monkeypatch.setattr(_lease, "_RENEW", 0.2 / _inflight.LEASE)
    real = _writing.write_new_task
    written: list[str] = []

    def write(store: Any, key: str, document: bytes) -> Task[Any]:
        result = yield from real(store, key, document)
        written.append(key)
        assert result.server_time is not None
        later = timedelta(seconds=1000 if len(written) > 2 else 0)
        return replace(result, server_time=result.server_time + later)

    monkeypatch.setattr(_lease, "write_new_task", write)
    with pytest.raises(kumo_crt.LeaseExpiredError, match="the service's clock"):
        repository.backup(path, max_bytes_per_second=size / 2)
    assert len(written) == 3
    assert keys(boto, bucket, "snapshots/") == set()


def test_a_pin_that_was_removed(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")

    def remove(number: int, sent: Sent) -> None:
        for key in keys(boto, bucket, "inflight/"):
            delete(boto, bucket, key)

    with watched(s3, remove), pytest.raises(kumo_crt.LeaseExpiredError, match="removed"):
        repository.backup(path)
    assert keys(boto, bucket, "snapshots/") == set()


def test_other_objects_are_no_leases(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    names = ("notes.txt", "backup-1-2.json", f"SWEEP-{'0' * 32}-000000.json")
    for name in names:
        put(boto, bucket, f"inflight/{name}", b"?")
    repository.backup(make("one_key"))
    assert keys(boto, bucket, "inflight/") == {f"inflight/{name}" for name in names}
