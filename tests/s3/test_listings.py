"""Listings of versions and uploads; deletions of which some are refused."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import kumo_crt
from kumo_crt._engine import Task
from kumo_crt.s3 import _deletions, _listings
from kumo_crt.s3._listings import VersionInfo

KEYS = ["p/a b", "p/ünï+c", "p/x&y<z>"]


def _versions(s3: kumo_crt.S3Client, bucket: str, prefix: str = "") -> list[VersionInfo]:
    def task() -> Task[list[VersionInfo]]:
        found: list[VersionInfo] = []
        marker: _listings.Marker | None = None
        while True:
            page, marker = yield from _listings.list_versions_page_task(
                s3._open(), bucket, prefix, marker
            )
            found.extend(page)
            if marker is None:
                return found

    return s3._run(task())


@pytest.mark.servers("seaweed-http", "moto")
def test_versions(s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str) -> None:
    bucket = versioned_bucket
    for key in [*KEYS, "q"]:
        for content in (b"1", b"22"):
            s3.put_object(bucket, key, content)
    s3.delete_object(bucket, KEYS[0])
    found = _versions(s3, bucket, "p/")
    assert {item.key for item in found} == set(KEYS)
    first = sorted(
        (item for item in found if item.key == KEYS[0]),
        key=lambda item: (not item.is_delete_marker, -item.size),
    )
    assert [(v.is_latest, v.is_delete_marker, v.size) for v in first] == [
        (True, True, 0),
        (False, False, 2),
        (False, False, 1),
    ]
    listed = boto.list_object_versions(Bucket=bucket, Prefix="p/")
    ids = {v["VersionId"] for kind in ("Versions", "DeleteMarkers") for v in listed[kind]}
    assert {item.version_id for item in found} == ids
    assert s3.get_object(bucket, KEYS[0], version_id=first[1].version_id).size == 2


@pytest.mark.servers("moto")
def test_more_versions_than_a_page_has(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str
) -> None:
    for number in range(1_001):
        boto.put_object(Bucket=versioned_bucket, Key=f"k{number // 300}", Body=b"")
    found = _versions(s3, versioned_bucket)
    assert len({(item.key, item.version_id) for item in found}) == len(found) == 1_001


@pytest.mark.servers("seaweed-http", "moto")
def test_uploads(s3: kumo_crt.S3Client, boto: Any, bucket: str) -> None:
    for key in KEYS:
        boto.create_multipart_upload(Bucket=bucket, Key=key)
    found = s3._run(_listings.list_uploads_task(s3._open(), bucket, "p/"))
    assert {item.key for item in found} == set(KEYS)
    assert all(item.initiated is not None for item in found)
    assert s3._run(_listings.list_uploads_task(s3._open(), bucket, "q/")) == []
    for _ in range(2):  # one that is gone is no error
        for item in found:
            task = _listings.abort_upload_task(s3._open(), bucket, item.key, item.upload_id)
            s3._run(task)
    assert "Uploads" not in boto.list_multipart_uploads(Bucket=bucket)


@pytest.mark.servers("seaweed-http")
def test_versions_that_are_locked(s3: kumo_crt.S3Client, boto: Any) -> None:
    bucket = f"locked-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    free = s3.put_object(bucket, KEYS[0], b"1")
    held = s3.put_object(bucket, KEYS[1], b"2")
    until = datetime.now(UTC) + timedelta(hours=1)
    boto.put_object_retention(
        Bucket=bucket, Key=KEYS[1], Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
    )
    wanted = [(KEYS[0], free.version_id), (KEYS[1], held.version_id)]
    refused = s3._run(_deletions.delete_batch_task(s3._open(), bucket, wanted))
    assert [(item.key, item.version_id, item.code) for item in refused] == [
        (KEYS[1], held.version_id, "AccessDenied")
    ]
    head = s3.head_object(bucket, KEYS[1])
    assert head.lock_mode == "GOVERNANCE"
    assert head.retain_until == until.replace(microsecond=0)
    assert not head.legal_hold
    # Without a version, it only gets out of sight.
    assert s3.delete_objects(bucket, [KEYS[1]])[0].delete_marker
    assert [item.version_id for item in _versions(s3, bucket)][1] == held.version_id
