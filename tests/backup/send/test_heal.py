"""A backup puts right what is known to be damaged, or relies on something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.damaging import check_good, contents, damage, known_damage, largest_table, noticed
from tests.backup.helpers import (
    bundles_of,
    compact_tables,
    content_of,
    delete,
    get,
    key_of,
    keys,
    manifest_key,
    put,
    stored_files,
    url,
    write_tables,
)
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.servers("seaweed-http", "moto")
@pytest.mark.usefixtures("each_alone")
@pytest.mark.parametrize("how", ["checksum", "missing", "size"])
def test_damage_that_a_verification_found(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, how: str
) -> None:
    path = make("deletions")
    first, file, good = largest_table(repository, boto, bucket, path)
    bad = damage(boto, bucket, key_of(file), how)
    assert not repository.verify(level="full").ok
    assert noticed(boto, bucket) == {key_of(file): how}
    assert known_damage(repository) == {key_of(file)}

    planned = repository.backup(path, dry_run=True)
    assert planned.uploaded_bytes == file.size
    second = repository.backup(path)
    assert second.object_keys == first.object_keys
    assert (second.uploaded_bytes, second.reused_bytes) == (
        file.size,
        first.uploaded_bytes - file.size,
    )
    assert any(key_of(file) in text and "sent again" in text for text in second.warnings)
    assert get(boto, bucket, key_of(file)) == good
    aside = keys(boto, bucket, "quarantine/")
    assert [get(boto, bucket, key) for key in aside] == ([] if how == "missing" else [bad])
    check_good(repository, boto, bucket)


def test_a_bundle(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    (key,) = bundles_of(first)
    good = get(boto, bucket, key)
    damage(boto, bucket, key, "checksum")
    assert not repository.verify(level="full").ok
    second = repository.backup(path)
    assert second.object_keys == first.object_keys
    assert get(boto, bucket, key) == good
    check_good(repository, boto, bucket)


def test_a_bundle_of_which_something_is_lost(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path
) -> None:
    """What the database still has goes into a new one; what it has not, stays damaged."""
    path = tmp_path / "db"
    write_tables(path, 0, 20, value_size=2000)
    first = repository.backup(path)
    (key,) = bundles_of(first)
    delete(boto, bucket, key)
    assert not repository.verify().ok
    compact_tables(path, 4)
    second = repository.backup(path)
    assert key not in second.object_keys
    assert any(key in text and "another name" in text for text in second.warnings)
    assert repository.verify(level="full").ok
    assert noticed(boto, bucket) == {key: "missing"}
    assert known_damage(repository) == {key}
    # From then on it costs nothing.
    third = repository.backup(path)
    assert third.uploaded_bytes == 0
    assert third.warnings == ()
    # Gone with its snapshot.
    repository.prune(keep_last=1)
    check_good(repository, boto, bucket)


DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 51\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message/></Error>\n"
)


@pytest.mark.usefixtures("each_alone")
def test_what_may_not_be_replaced(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    proxy: FaultProxy,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    """A client that may only add, such as one that no ransom can delete with."""
    path = make("plain")
    first = repository.backup(path)
    file = stored_files(first, "sst")[0]
    bad = damage(boto, bucket, key_of(file), "checksum")
    assert not repository.verify().ok
    proxy.add(Fault("answer", "request", target="/quarantine/", answer=DENIED, times=99))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as adding:
        second = adding.backup(path)
        assert second.uploaded_bytes == file.size
        assert get(boto, bucket, key_of(file)) == bad
        (new,) = second.object_keys - first.object_keys
        name = key_of(file).rpartition("/")[2]
        assert new.rpartition("/")[2].startswith(f"{name}.")
        # Neither sent again, nor looked at again.
        proxy.requests.clear()
        assert adding.backup(path).object_keys == second.object_keys
        assert len(proxy.requests) == 10
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("plain")
    assert known_damage(repository) == {key_of(file)}
    assert repository.repair(path).ok
    check_good(repository, boto, bucket)


@pytest.mark.parametrize("how", ["checksum", "missing"])
def test_encrypted(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    how: str,
) -> None:
    path = make("blobs")
    first = encrypted.backup(path)
    before = contents(boto, bucket)
    for key in first.object_keys:
        damage(boto, bucket, key, how)
    # Who verifies needs no key, who backs up has it.
    assert not keyless.verify(level="full").ok
    assert set(noticed(boto, bucket)) == first.object_keys
    second = encrypted.backup(path)
    assert second.object_keys == first.object_keys
    assert contents(boto, bucket) == before
    check_good(encrypted, boto, bucket)


@pytest.mark.parametrize("kind", ["repository", "encrypted"])
@pytest.mark.parametrize("how", ["checksum", "missing", "size"])
def test_a_single_object(
    request: pytest.FixtureRequest, boto: Any, bucket: str, make: Make, how: str, kind: str
) -> None:
    repository: kumo_crt.Repository = request.getfixturevalue(kind)
    path = make("column_families")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    good = get(boto, bucket, key)
    damage(boto, bucket, key, how)
    assert not repository.verify(level="full").ok
    # Other backups never rely on it.
    repository.backup(path)
    assert noticed(boto, bucket) == {key: how}
    second = repository.backup(path, single_object=True)
    assert second.object_keys == {key}
    assert get(boto, bucket, key) == good
    check_good(repository, boto, bucket)


def test_a_single_object_whose_manifest_is_damaged(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Nobody knows any more what it was: it is left alone, and another one made."""
    path = make("plain")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    bad = damage(boto, bucket, key, "checksum")
    assert not repository.verify(level="full").ok
    put(boto, bucket, manifest_key(first), b"?")
    second = repository.backup(path, single_object=True)
    assert second.object_keys != {key}
    assert get(boto, bucket, key) == bad
    assert repository.verify(second.id, level="full").ok
