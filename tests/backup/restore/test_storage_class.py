"""Storage classes and encryption of a repository; archived objects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    content_of,
    flipped,
    get,
    key_of,
    keys,
    put,
    remove,
    stored_files,
    url,
)
from tests.support import databases

pytestmark = pytest.mark.servers("moto")


def _head(boto: Any, bucket: str, key: str) -> Any:
    return boto.head_object(Bucket=bucket, Key=f"{PREFIX}/{key}")


def test_storage_class_and_encryption(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    options: Any = {"storage_class": "STANDARD_IA", "sse": "aws:kms", "kms_key_id": "alias/backups"}
    kumo_crt.Repository.create(url(bucket), client=s3, **options)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    config = json.loads(get(boto, bucket, "kumo-repository.json"))
    assert {name: config[name] for name in options} == options
    # Another client finds it there.
    with kumo_crt.Repository.open(url(bucket), client=s3) as repository:
        snapshot = repository.backup(make("blobs"))
    for key in keys(boto, bucket):
        head = _head(boto, bucket, key)
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"] == "alias/backups"
        is_data = key.endswith((".sst", ".blob"))
        assert head.get("StorageClass") == ("STANDARD_IA" if is_data else None)
    assert {key_of(file) for file in stored_files(snapshot)} <= keys(boto, bucket)


def test_an_archive_that_is_repaired_has_it_too(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path
) -> None:
    path = tmp_path / "db"
    db = Rdict(str(tmp_path / "original"), databases.options())
    databases.fill(db, 0, 10)
    shutil.copytree(tmp_path / "original", path)  # closing it would flush
    db.close()
    options: Any = {"storage_class": "STANDARD_IA"}
    with kumo_crt.Repository.create(url(bucket), client=s3, **options) as repository:
        snapshot = repository.backup(path, single_object=True)
        assert not stored_files(snapshot, "sst")
        key = snapshot.single_object
        assert key is not None
        assert _head(boto, bucket, key)["StorageClass"] == "STANDARD_IA"
        put(boto, bucket, key, flipped(get(boto, bucket, key)))
        report = repository.repair(path, level="full")
    assert report.ok, report.remaining
    assert _head(boto, bucket, key).get("StorageClass") == "STANDARD_IA"
    (aside,) = keys(boto, bucket, "quarantine/")
    assert _head(boto, bucket, aside).get("StorageClass") is None


@pytest.mark.parametrize(
    "options",
    [
        {"storage_class": "standard"},
        {"storage_class": "X\r\nY"},
        {"storage_class": "CHEAPEST"},
        {"sse": "rot13"},
        {"kms_key_id": "alias/x"},
        {"kms_key_id": "a\nb", "sse": "aws:kms"},
    ],
    ids=str,
)
def test_settings_that_s3_does_not_have(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, options: Any
) -> None:
    with pytest.raises(ValueError, match=r"storage_class|sse|kms"):
        kumo_crt.Repository.create(url(bucket), client=s3, **options)
    assert keys(boto, bucket) == set()


@pytest.fixture
def archived(
    s3: kumo_crt.S3Client, bucket: str, make: Make
) -> tuple[kumo_crt.Repository, kumo_crt.Snapshot]:
    """A repository whose tables are in Glacier."""
    repository = kumo_crt.Repository.create(url(bucket), client=s3, storage_class="GLACIER")
    return repository, repository.backup(make("plain"))


def test_archived_objects(
    archived: tuple[kumo_crt.Repository, kumo_crt.Snapshot],
    library: Library,
    tmp_path: Path,
) -> None:
    repository, snapshot = archived
    tables = stored_files(snapshot, "sst")
    with pytest.raises(kumo_crt.ArchivedError, match="request_thaw") as caught:
        repository.restore(tmp_path / "restored")
    assert f"{len(tables)} of {len(stored_files(snapshot))} objects" in str(caught.value)
    assert not (tmp_path / "restored").exists()
    # What does not read them works as ever.
    assert repository.snapshots() == [snapshot]
    assert repository.verify(level="quick").ok

    report = repository.request_thaw(days=2)
    assert (report.requested, report.ready) == (len(tables), False)
    assert report.requested_bytes == sum(file.size for file in tables)
    again = repository.request_thaw(days=2)
    assert again.requested == 0
    assert again.ongoing + again.thawed == len(tables)
    assert again.ready == (again.ongoing == 0)  # moto thaws at once
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("plain")


def test_the_archived_objects_of_all_snapshots(
    archived: tuple[kumo_crt.Repository, kumo_crt.Snapshot], make: Make, boto: Any, bucket: str
) -> None:
    repository, first = archived
    second = repository.backup(make("many_files"))
    put(boto, bucket, "snapshots/20200101T000000Z-00000000.json", b"damaged")  # is told elsewhere
    each = [repository.request_thaw(i, days=2, dry_run=True) for i in (first.id, second.id)]
    planned = repository.request_thaw("all", days=2, dry_run=True)
    report = repository.request_thaw("all", days=2)
    assert planned == report
    assert (report.snapshot, report.ready) == ("all", False)
    assert report.requested == sum(item.requested for item in each) > each[1].requested > 0
    assert repository.request_thaw("all", days=2).requested == 0


def test_an_archived_single_object(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, library: Library, tmp_path: Path
) -> None:
    """All of the database is in it: no part of it comes back before it is thawed."""
    with kumo_crt.Repository.create(url(bucket), client=s3, storage_class="GLACIER") as repository:
        snapshot = repository.backup(make("column_families"), single_object=True)
        (key,) = snapshot.object_keys
        assert _head(boto, bucket, key)["StorageClass"] == "GLACIER"
        for families in (None, ["users"]):
            with pytest.raises(kumo_crt.ArchivedError, match="1 of 1 objects"):
                repository.restore(tmp_path / "restored", column_families=families)
        report = repository.request_thaw(days=2)
        assert (report.requested, report.objects) == (1, 1)
        repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("column_families")


def test_archived_objects_of_an_uncommitted_backup(
    archived: tuple[kumo_crt.Repository, kumo_crt.Snapshot],
    boto: Any,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Without a stored checksum, what cannot be read cannot be compared: it is sent anew."""
    repository, snapshot = archived
    remove(boto, bucket, snapshot)
    again = repository.backup(tmp_path / "plain")
    assert {file.path for file in again.files} == {file.path for file in snapshot.files}
    tables = {key_of(file) for file in stored_files(again, "sst")}
    assert tables.isdisjoint(key_of(file) for file in stored_files(snapshot, "sst"))
    assert repository.verify(level="quick").ok


def test_nothing_to_thaw(repository: kumo_crt.Repository, make: Make) -> None:
    repository.backup(make("one_key"))
    report = repository.request_thaw(days=1)
    assert (report.ready, report.requested, report.thawed) == (True, 0, 0)
    with pytest.raises(ValueError, match="days"):
        repository.request_thaw(days=0)
    with pytest.raises(ValueError, match="Bulk"):
        repository.request_thaw(days=1, tier="fast")
