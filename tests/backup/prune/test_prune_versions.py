"""Pruning in buckets that keep versions, and in those that Object Lock protects."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import kumo_crt
from kumo_crt._engine import Task
from kumo_crt.backup._prune import _sweep
from kumo_crt.s3 import _deletions
from kumo_crt.s3._deletions import DeleteFailure
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.helpers import PREFIX, delete, keys, manifest_key, spare_key, url
from tests.backup.interleaving import without_waiting
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with without_waiting():
        yield


@pytest.fixture
def locked_bucket(boto: Any) -> str:
    """A bucket of the test's own, with Object Lock: everything is retained for a day."""
    name = f"locked-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    boto.put_object_lock_configuration(
        Bucket=name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    return name


def _versions(boto: Any, bucket: str) -> dict[str, set[str]]:
    """Keys, relative to the repository, with the ids of their versions and delete markers."""
    found: dict[str, set[str]] = {}
    listed = boto.list_object_versions(Bucket=bucket, Prefix=f"{PREFIX}/")
    for kind in ("Versions", "DeleteMarkers"):
        for item in listed.get(kind, []):
            key = item["Key"].removeprefix(f"{PREFIX}/")
            found.setdefault(key, set()).add(item["VersionId"])
    return found


def _two(s3: kumo_crt.S3Client, bucket: str, make: Make) -> tuple[kumo_crt.Repository, Any, Any]:
    repository = kumo_crt.Repository.create(url(bucket), client=s3)
    gone, kept = repository.backup(make("one_key")), repository.backup(make("plain"))
    repository.delete_snapshot(gone.id)
    return repository, gone, kept


def test_versions_stay_until_told_otherwise(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str, make: Make
) -> None:
    bucket = versioned_bucket
    repository, gone, kept = _two(s3, bucket, make)
    superfluous = gone.object_keys - kept.object_keys
    assert repository.prune().versioned is True
    planned = repository.prune(dry_run=True, delete_versions=True)
    assert planned.deleted_objects == len(superfluous)
    sizes = sum(f.size for f in gone.files if f.key in superfluous)
    assert planned.deleted_version_bytes > sizes  # and the manifest, and leases
    report = repository.prune()
    assert report.deleted_objects == len(superfluous)
    assert report.deleted_versions == report.locked == 0
    assert superfluous <= set(_versions(boto, bucket))
    # What was deleted by mistake can still be had back.
    left = {*superfluous, manifest_key(gone)}
    for item in boto.list_object_versions(Bucket=bucket, Prefix=PREFIX)["DeleteMarkers"]:
        if item["Key"].removeprefix(f"{PREFIX}/") in left:
            boto.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
    assert repository.verify(gone.id, level="full").ok
    repository.delete_snapshot(gone.id)
    repository.prune()
    repository.prune()

    there = _versions(boto, bucket)
    planned = repository.prune(dry_run=True, delete_versions=True)
    assert _versions(boto, bucket) == there
    report = repository.prune(delete_versions=True)
    # A prune's own leases come on top.
    assert report.deleted_versions >= planned.deleted_versions >= len(left)
    assert report.deleted_version_bytes >= planned.deleted_version_bytes > sizes
    # The lease of this prune itself is deleted when it is over.
    after = {key for key in _versions(boto, bucket) if not key.startswith("inflight/prune-")}
    assert {key for key in after if not key.startswith("health/")} == {
        "kumo-repository.json",
        manifest_key(kept),
        spare_key(kept),
        *kept.object_keys,
    }
    assert repository.verify(kept.id, level="full").ok


def test_a_dry_run_without_versions(s3: kumo_crt.S3Client, bucket: str, make: Make) -> None:
    repository, *_ = _two(s3, bucket, make)
    repository.prune()
    planned = repository.prune(keep_last=1, dry_run=True, delete_versions=True)
    assert planned.deleted_objects > 0
    assert planned.deleted_versions == planned.deleted_version_bytes == 0


def test_older_versions_of_what_is_there_stay(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str, make: Make
) -> None:
    bucket = versioned_bucket
    repository, _, kept = _two(s3, bucket, make)
    key = next(iter(kept.object_keys))
    content = s3.get_object(bucket, f"{PREFIX}/{key}").body
    boto.put_object(Bucket=bucket, Key=f"{PREFIX}/{key}", Body=b"damaged")
    s3.put_object(bucket, f"{PREFIX}/{key}", content)
    for _ in range(2):
        repository.prune(delete_versions=True)
    assert len(_versions(boto, bucket)[key]) == 3
    assert repository.verify(level="full").ok


def test_what_comes_back_while_versions_are_suspended_stays(
    s3: kumo_crt.S3Client,
    s3_server: S3Server,
    boto: Any,
    versioned_bucket: str,
    make: Make,
) -> None:
    """An object that is stored anew takes the place, and the id, of its delete marker."""
    bucket = versioned_bucket
    repository = kumo_crt.Repository.create(url(bucket), client=s3)
    path = make("one_key")
    gone = repository.backup(path)
    kept = repository.backup(make("plain"))
    superfluous = gone.object_keys - kept.object_keys
    repository.delete_snapshot(gone.id)
    boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    repository.prune()
    assert repository.prune().deleted_objects == len(superfluous)
    before = _versions(boto, bucket)
    assert all("null" in before[key] and len(before[key]) == 2 for key in superfluous)
    again: list[Any] = []

    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        other = kumo_crt.Repository(url(bucket), client=client)

        def back_up(number: int, sent: Sent) -> None:
            listed = [s for s in watch.sent if s.operation == "ListObjectVersions"]
            if sent.operation == "DeleteObjects" and listed and not again:
                again.append(other.backup(path))

        with watched(s3, back_up) as watch:
            report = repository.prune(delete_versions=True)
    assert again[0].object_keys >= superfluous
    assert repository.verify(again[0].id, level="full").ok
    # What was there while the bucket kept versions is gone all the same.
    assert report.deleted_versions >= len(superfluous)
    assert all(_versions(boto, bucket)[key] == {"null"} for key in superfluous)


def test_what_object_lock_retains_is_told_and_stays(
    s3: kumo_crt.S3Client, boto: Any, locked_bucket: str, make: Make
) -> None:
    bucket = locked_bucket
    repository, gone, kept = _two(s3, bucket, make)
    superfluous = gone.object_keys - kept.object_keys
    repository.prune()
    report = repository.prune(delete_versions=True)
    # Gone from sight, leases included; the versions are retained, and stay behind their markers.
    assert report.deleted_objects == len(superfluous)
    assert report.locked > len(superfluous)
    assert report.deleted_versions == 0
    assert keys(boto, bucket, "data/") == kept.object_keys
    assert keys(boto, bucket, "inflight/") == set()
    assert superfluous <= set(_versions(boto, bucket))
    again = repository.prune(delete_versions=True)
    assert again.locked >= report.locked
    assert keys(boto, bucket, "data/") == kept.object_keys
    # A backup renews its leases there, and all is well.
    assert repository.backup(make("blobs")).uploaded_bytes > 0
    assert all(repository.verify(s.id, level="full").ok for s in repository.snapshots())


def test_deletions_that_are_not_allowed_fail(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is refused for another reason than retention is a failure."""
    repository, gone, kept = _two(s3, bucket, make)
    repository.prune()

    def refuse(context: Any, bucket: str, objects: Any) -> Task[list[DeleteFailure]]:
        yield from ()
        return [DeleteFailure(objects[0][0], None, "AccessDenied", "not you")]

    monkeypatch.setattr(_sweep, "delete_batch_task", refuse)
    with pytest.raises(kumo_crt.AccessDeniedError, match=r"were not deleted.*not you"):
        repository.prune()
    monkeypatch.undo()
    assert repository.verify(kept.id, level="full").ok
    assert gone.object_keys - kept.object_keys <= keys(boto, bucket, "data/")


def test_a_manifest_that_is_lost_behind_a_marker(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str, make: Make
) -> None:
    """As after ``aws s3 rm``: nothing of it is deleted for good before somebody says so."""
    bucket = versioned_bucket
    repository, gone, kept = _two(s3, bucket, make)
    repository.prune()
    delete(boto, bucket, manifest_key(kept))
    before = _versions(boto, bucket)
    for dry_run in (True, False):
        with pytest.raises(kumo_crt.FormatError, match="is lost; its spare is there"):
            repository.prune(delete_versions=True, dry_run=dry_run)
    assert before.items() <= _versions(boto, bucket).items()
    assert repository.repair().manifests == (kept.id,)
    repository.prune(delete_versions=True)
    assert repository.verify("all", level="full").ok
    assert keys(boto, bucket, "data/") == kept.object_keys
    delete(boto, bucket, manifest_key(kept))
    repository.delete_snapshot(kept.id)
    for _ in range(2):
        repository.prune(delete_versions=True)
    left = _versions(boto, bucket)
    assert not left.keys() & {manifest_key(kept), spare_key(kept), manifest_key(gone)}
    assert not left.keys() & kept.object_keys


def test_a_manifest_that_cannot_be_removed(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its spare has gone before it, and comes back: the snapshot stays."""
    path = make("one_key")
    first, second = repository.backup(path), repository.backup(path)
    real = _deletions.delete_batch_task

    def refuse(context: Any, bucket_: str, objects: Any) -> Task[list[DeleteFailure]]:
        refused = [item for item in objects if "/snapshots/" in item[0]]
        yield from real(context, bucket_, [item for item in objects if item not in refused])
        return [DeleteFailure(key, version, "AccessDenied", "") for key, version in refused]

    def is_locked(self: Any, failure: DeleteFailure) -> Task[bool]:
        yield from ()
        return True

    monkeypatch.setattr(_sweep, "delete_batch_task", refuse)
    monkeypatch.setattr(_sweep.Sweeper, "_is_locked", is_locked)
    report = repository.prune(keep_last=1)
    assert report.kept[first.id] == ("locked",)
    assert keys(boto, bucket, "spares/") == {spare_key(first), spare_key(second)}
    assert repository.verify("all").warnings == ()
