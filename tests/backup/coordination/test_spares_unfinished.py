"""Backups that end, or are killed, before the spare of their manifest is there."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Make
from tests.backup.damaging import check_good
from tests.backup.helpers import (
    delete,
    keys,
    spare_key,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.backup.pruning import ids
from tests.backup.send.test_heal import DENIED
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _spare_put(sent: Sent) -> bool:
    return sent.operation == "PutObject" and "/spares/" in sent.key


def test_while_a_backup_ends(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """Nobody deletes a snapshot before its spare is there: it would look as if it was lost."""
    path = make("one_key")
    repository.backup(path)
    done = []

    def others(number: int, sent: Sent) -> None:
        if not _spare_put(sent):
            return
        newest = repository.snapshots()[-1]
        with pytest.raises(kumo_crt.RepositoryLockedError, match="has not finished"):
            repository.delete_snapshot(newest.id)
        with pytest.raises(kumo_crt.RepositoryLockedError, match="has not finished"):
            repository.delete_snapshot(newest.id, dry_run=True)
        repository.backup(path)
        with without_waiting():
            report = repository.prune(keep_last=1)
        assert report.kept[newest.id] == ("not finished",)
        assert len(report.removed) == 1
        done.append(newest.id)

    with (
        kumo_crt.S3Client(**s3_server.client_arguments()) as other,
        kumo_crt.Repository.open(url(bucket), client=other) as ending,
        watched(other, others),
    ):
        assert ending.backup(path).id in done
    assert len(ids(repository)) == 2
    check_good(repository, boto, bucket)
    with without_waiting():
        assert repository.prune(keep_last=1).removed == tuple(done)
    check_good(repository, boto, bucket)


def test_killed_before_it(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("one_key")

    def die(number: int, sent: Sent) -> None:
        if _spare_put(sent):
            watch.kill()

    with (
        kumo_crt.S3Client(**s3_server.client_arguments()) as mortal,
        kumo_crt.Repository.open(url(bucket), client=mortal) as dying,
        watched(mortal, die) as watch,
        pytest.raises(Killed),
    ):
        dying.backup(path)
    (snapshot,) = repository.snapshots()
    (warning,) = repository.verify("all").warnings
    assert spare_key(snapshot) in warning
    with pytest.raises(kumo_crt.RepositoryLockedError, match="less than 30 minutes ago"):
        repository.delete_snapshot(snapshot.id)
    # As long as the backup may go on, it may take the snapshot back: nobody else writes the spare.
    repository.prune()
    assert repository.repair().spares == ()
    assert keys(boto, bucket, "spares/") == set()
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    repository.prune()
    assert keys(boto, bucket, "spares/") == {spare_key(snapshot)}
    check_good(repository, boto, bucket)
    repository.delete_snapshot(snapshot.id)
    assert keys(boto, bucket, "spares/") == keys(boto, bucket, "snapshots/") == set()


@pytest.mark.parametrize("how", ["denied", "reset"])
def test_it_cannot_be_written(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """The snapshot exists, and the backup has succeeded; what is missing is told."""
    path = make("one_key")
    if how == "denied":
        fault = Fault("answer", "request", target="/spares/", answer=DENIED, times=99)
    else:
        fault = Fault("reset", "request", target="/spares/", times=99)
    proxy.add(fault)
    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url, max_attempts=2)
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.open(url(bucket), client=client) as hindered,
        caplog.at_level(logging.WARNING, "kumo_crt.backup"),
    ):
        snapshot = hindered.backup(path)
    (warning,) = snapshot.warnings
    assert spare_key(snapshot) in warning
    assert warning in caplog.text
    assert keys(boto, bucket, "spares/") == set()
    # What may still arrive keeps the snapshot from being deleted for half an hour.
    left = keys(boto, bucket, "inflight/")
    assert bool(left) is (how == "reset")
    report = repository.verify("all", level="full")
    assert (report.ok, len(report.warnings)) == (True, 1)
    if how == "reset":
        repository.prune()
        assert keys(boto, bucket, "spares/") == set()
        monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    repository.prune()
    check_good(repository, boto, bucket)
    assert repository.verify("all").warnings == ()


def test_a_prune_that_may_not_write_them(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    snapshot = repository.backup(make("one_key"))
    delete(boto, bucket, spare_key(snapshot))
    proxy.add(Fault("answer", "request", target="/spares/2", answer=DENIED, times=99))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as hindered:
        (warning,) = hindered.prune().warnings
    assert "allow s3:PutObject below spares/" in warning
