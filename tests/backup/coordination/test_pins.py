"""Pinned snapshots, and the deletion of one by its id."""

from __future__ import annotations

import json
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.doctoring import doctor_of, findings_of
from tests.backup.helpers import delete, get, keys, manifest_key, put, remove
from tests.backup.interleaving import without_waiting
from tests.backup.sweeping import SWEEP, sweep_of
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")
NONE = "20261123T060000Z-0a1b2c3d"


def _pinned(repository: kumo_crt.Repository) -> list[bool]:
    return [snapshot.pinned for snapshot in repository.snapshots()]


def test_pin_and_unpin(repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make) -> None:
    path = make("one_key")
    first, second, third = (repository.backup(path) for _ in range(3))
    assert not first.pinned
    for _ in range(2):
        repository.pin(first.id)
    assert _pinned(repository) == [True, False, False]
    assert repository.snapshot(first.id).pinned
    assert not repository.snapshot(second.id).pinned
    (key,) = keys(boto, bucket, "pins/")
    assert key == f"pins/{first.id}.json"
    document = json.loads(get(boto, bucket, key))
    assert (document["format"], document["version"]) == ("kumo-pin", 1)
    assert document["snapshot"] == first.id
    assert document["created_at"].endswith("Z")

    report = repository.prune(keep_last=1)
    assert report.removed == (second.id,)
    assert report.kept == {first.id: ("pinned",), third.id: ("last",)}
    for _ in range(2):
        repository.unpin(first.id)
    assert _pinned(repository) == [False, False]
    assert keys(boto, bucket, "pins/") == set()
    assert repository.prune(keep_last=1).removed == (first.id,)


def test_delete_one(repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make) -> None:
    path = make("one_key")
    first, second = repository.backup(path), repository.backup(path)
    data = keys(boto, bucket, "data/")
    repository.pin(first.id)
    for dry_run in (True, False):
        with pytest.raises(kumo_crt.RepositoryError, match=rf"{first.id} is pinned: unpin it"):
            repository.delete_snapshot(first.id, dry_run=dry_run)
    repository.unpin(first.id)
    repository.delete_snapshot(first.id, dry_run=True)
    assert len(_pinned(repository)) == 2
    repository.delete_snapshot(first.id)
    assert [snapshot.id for snapshot in repository.snapshots()] == [second.id]
    assert keys(boto, bucket, "data/") == data
    assert keys(boto, bucket, "inflight/") == set()
    assert repository.verify(level="full").ok


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("wrong", [NONE, "latest", "", "../x"])
def test_snapshots_that_are_none(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    wrong: str,
    dry_run: bool,
) -> None:
    repository.backup(make("one_key"))
    before = keys(boto, bucket)
    for call in (repository.pin, repository.unpin, repository.delete_snapshot):
        with pytest.raises(kumo_crt.SnapshotNotFoundError, match=r"no snapshot .*tell th"):
            call(wrong, dry_run=dry_run)
    assert keys(boto, bucket) == before


def test_a_snapshot_that_is_being_deleted_cannot_be_pinned(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("one_key"))
    put(boto, bucket, SWEEP, sweep_of(snapshots=(snapshot.id,)))
    with pytest.raises(kumo_crt.RepositoryLockedError, match="is being deleted"):
        repository.pin(snapshot.id)
    assert keys(boto, bucket, "pins/") == set()
    delete(boto, bucket, SWEEP)
    repository.pin(snapshot.id)
    assert _pinned(repository) == [True]


@pytest.mark.parametrize("how", ["prune", "delete_snapshot"])
def test_a_pin_at_any_time(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    how: str,
) -> None:
    """Pinned is pinned: a snapshot is not deleted when pinning it has succeeded."""
    path = make("one_key")
    number = 0
    outcomes = set()
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client, without_waiting():
        other = kumo_crt.Repository(str(repository._location), client=client)
        while True:
            first, second = repository.backup(path), repository.backup(path)
            pinned: list[bool] = []

            def pin(
                at: int,
                sent: Sent,
                wanted: int = number,
                snapshot: str = first.id,
                pinned: list[bool] = pinned,
            ) -> None:
                if at == wanted:
                    try:
                        other.pin(snapshot)
                    except kumo_crt.RepositoryError:
                        pinned.append(False)
                    else:
                        pinned.append(True)

            with watched(s3, pin) as watch:
                try:
                    if how == "prune":
                        repository.prune(keep_last=1)
                    else:
                        repository.delete_snapshot(first.id)
                except kumo_crt.RepositoryError as error:
                    assert "pinned" in str(error), how  # noqa: PT017
            ids = {snapshot.id for snapshot in repository.snapshots()}
            assert second.id in ids
            if not pinned:
                assert first.id not in ids
                break
            outcomes.add(pinned[0])
            assert (first.id in ids) == pinned[0]
            assert (f"pins/{first.id}.json" in keys(boto, bucket)) == pinned[0]
            for snapshot in repository.snapshots():
                repository.unpin(snapshot.id)
                repository.delete_snapshot(snapshot.id)
            number += 1
    assert number == len(watch.sent)
    assert outcomes == {True, False}


def test_a_pinned_snapshot_whose_manifest_is_lost(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Nobody deletes it, so it is lost: that is told, and its data stays for who brings it back."""
    path = make("one_key")
    lost = repository.backup(path)
    repository.pin(lost.id)
    manifest = get(boto, bucket, manifest_key(lost))
    remove(boto, bucket, lost)
    for others in (0, 1):
        report = repository.verify("all", level="quick")
        assert (report.ok, report.snapshots) == (False, others)
        (problem,) = report.problems
        assert (problem.kind, problem.snapshot, problem.snapshots) == (
            *("manifest", lost.id),
            (lost.id,),
        )
        assert problem.key == manifest_key(lost)
        assert "is pinned: it cannot be restored" in problem.message
        ((severity, message), *rest) = findings_of(doctor_of(repository, write=False), "snapshots")
        assert (severity, len(rest)) == ("error", 1)
        assert lost.id in message
        (left,) = repository.repair(path, level="quick").remaining
        assert left == problem
        repository.prune(keep_last=1)  # the pin may be one that is just being made
        before = keys(boto, bucket)
        for dry_run in (True, False):
            with (
                without_waiting(),
                pytest.raises(kumo_crt.FormatError, match=rf"{lost.id}.*nothing was deleted"),
            ):
                repository.prune(keep_last=1, dry_run=dry_run)
        assert keys(boto, bucket) == before
        if not others:
            repository.backup(make("plain"))
    put(boto, bucket, manifest_key(lost), manifest)
    with without_waiting():
        repository.prune(keep_last=1)
        assert repository.verify("all", level="full").snapshots == 2
        remove(boto, bucket, lost)
        repository.unpin(lost.id)
        repository.prune(keep_last=1)
    assert repository.verify("all", level="full").ok
    assert keys(boto, bucket, "pins/") == set()


def test_a_snapshot_whose_manifest_is_lost_can_be_pinned(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """It is there: its spare can be restored."""
    lost = repository.backup(make("one_key"))
    delete(boto, bucket, manifest_key(lost))
    repository.unpin(lost.id)
    repository.pin(lost.id)
    with pytest.raises(kumo_crt.RepositoryError, match="is pinned"):
        repository.delete_snapshot(lost.id)
    assert repository.repair().manifests == (lost.id,)
    assert [(s.id, s.pinned) for s in repository.snapshots()] == [(lost.id, True)]


def test_a_pin_of_a_snapshot_that_came_while_a_prune_ran(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """The prune takes longer than a new pin is spared, and has not read that manifest."""
    snapshot = repository.backup(make("one_key"))
    manifest = get(boto, bucket, manifest_key(snapshot))
    remove(boto, bucket, snapshot)

    def come(number: int, sent: Sent) -> None:
        if sent.operation == "ListObjectsV2" and sent.key.endswith("marks/"):
            put(boto, bucket, manifest_key(snapshot), manifest)
            put(boto, bucket, f"pins/{snapshot.id}.json", b"{}")

    with without_waiting(), watched(s3, come):
        repository.prune(keep_last=1)
    assert keys(boto, bucket, "pins/") == {f"pins/{snapshot.id}.json"}


def test_a_pin_that_was_left_pins_nothing(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Whoever wrote it was killed before it saw that the snapshot was going."""
    snapshot = repository.backup(make("one_key"))
    left = f"pins/{snapshot.id}.json"
    put(boto, bucket, left, b"{}")
    put(boto, bucket, SWEEP, sweep_of(snapshots=(snapshot.id,)))
    with pytest.raises(kumo_crt.RepositoryLockedError, match="is being deleted"):
        repository.pin(snapshot.id)
    delete(boto, bucket, SWEEP)
    repository.pin(snapshot.id)
    remove(boto, bucket, snapshot)
    with pytest.raises(kumo_crt.SnapshotNotFoundError):
        repository.pin(snapshot.id)
    # It is not this one's to take away.
    assert keys(boto, bucket, "pins/") == {left}


def test_the_longest_lease_is_the_grace() -> None:
    assert _inflight.grace().total_seconds() == _inflight.LEASE + _inflight.MARGIN == 1800


@pytest.mark.parametrize("which", [0, 1])
def test_half_of_a_pin_is_lost(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, which: int
) -> None:
    """The other half keeps the snapshot."""
    path = make("one_key")
    first, _ = repository.backup(path), repository.backup(path)
    repository.pin(first.id)
    halves = [f"pins/{first.id}.json", f"spares/pins/{first.id}.json"]
    content = get(boto, bucket, halves[which])
    assert content == get(boto, bucket, halves[1 - which])
    delete(boto, bucket, halves[which])
    assert _pinned(repository) == [True, False]
    assert repository.snapshot(first.id).pinned
    ((severity, message),) = findings_of(doctor_of(repository, write=False), "spare pins")
    assert severity == "warning"
    assert halves[which] in message
    with pytest.raises(kumo_crt.RepositoryError, match="is pinned"):
        repository.delete_snapshot(first.id)
    with without_waiting():
        assert repository.prune(keep_last=1).kept[first.id] == ("pinned",)
    repository.pin(first.id)
    assert set(halves) <= keys(boto, bucket)
    assert findings_of(doctor_of(repository, write=False), "spare pins") == []
    delete(boto, bucket, halves[which])
    repository.unpin(first.id)
    assert _pinned(repository) == [False, False]
    assert not set(halves) & keys(boto, bucket)
