"""A repository whose configuration is lost: nothing takes it for none, and it can be had again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._format import _configuration
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.doctoring import doctor_of, findings_of
from tests.backup.helpers import (
    KEY,
    closed,
    content_of,
    delete,
    flipped,
    get,
    keys,
    manifest_key,
    put,
    remove,
    spare_key,
    url,
)
from tests.backup.pruning import ids

pytestmark = pytest.mark.servers("seaweed-http")
CONFIG = "kumo-repository.json"
TERMS = ("environment", "storage_class", "sse", "kms_key_id")
OTHER = kumo_crt.Key(bytes(range(2, 34)))


@pytest.mark.servers("seaweed-http", "moto")
def test_nothing_takes_it_for_none(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    path = make("one_key")
    snapshot = repository.backup(path)
    repository.backup(path)
    delete(boto, bucket, CONFIG)
    before = keys(boto, bucket)
    calls: list[Any] = [
        lambda: kumo_crt.Repository.open(url(bucket), client=s3),
        lambda: kumo_crt.Repository.create(url(bucket), client=s3),
        lambda: kumo_crt.Repository.create(url(bucket), client=s3, encryption_key=KEY),
        lambda: repository.backup(path),
        lambda: repository.restore(tmp_path / "restored"),
        lambda: repository.verify("all"),
        lambda: repository.prune(keep_last=1),
        lambda: repository.pin(snapshot.id),
        lambda: repository.delete_snapshot(snapshot.id),
        lambda: repository.snapshots(),
    ]
    for call in calls:
        with pytest.raises(
            kumo_crt.FormatError, match=r"kumo-repository.json: .* is lost; 2 snapshots are .*anew"
        ):
            call()
    ((severity, message),) = findings_of(doctor_of(repository), "repository")
    assert severity == "error"
    assert "is lost; 2 snapshots are" in message
    remove(boto, bucket, snapshot)
    with pytest.raises(kumo_crt.FormatError, match="is lost; 1 snapshot is there"):
        repository.snapshots()
    for key in keys(boto, bucket, "snapshots/"):
        delete(boto, bucket, key)
    with pytest.raises(kumo_crt.FormatError, match="is lost; 1 snapshot is there"):
        repository.snapshots()
    for key in keys(boto, bucket, "spares/"):
        delete(boto, bucket, key)
    for call in calls[:4]:
        with pytest.raises(kumo_crt.FormatError, match=r"every manifest with it.*Nothing was wr"):
            call()
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="there is no snapshot, whose"):
        repository.recover_config()
    assert keys(boto, bucket) == {key for key in before if key.startswith("data/")}


def test_what_is_none(s3: kumo_crt.S3Client, boto: Any, bucket: str) -> None:
    """What others have there, and what could not be removed, is no repository."""
    for key in ("data/00/kumo-doctor-0a1b", "data/00/kumo-create-0a", "data/x", "snapshots/x.json"):
        put(boto, bucket, key, b"x")
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no repository here"):
        kumo_crt.Repository.open(url(bucket), client=s3)
    with kumo_crt.Repository.create(url(bucket), client=s3, storage_class="STANDARD") as created:
        assert created.snapshots() == []


def test_one_that_is_created_meanwhile_is_not_lost(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    other = kumo_crt.Repository.create(url(bucket), client=s3)
    config = get(boto, bucket, CONFIG)
    other.backup(path)
    delete(boto, bucket, CONFIG)

    def come(_: int, sent: Sent) -> None:
        if sent.operation == "ListObjectsV2":
            put(boto, bucket, CONFIG, config)

    with watched(s3, come):
        assert len(kumo_crt.Repository(url(bucket), client=s3).snapshots()) == 1
        delete(boto, bucket, CONFIG)
        with pytest.raises(kumo_crt.RepositoryError, match="already: open it"):
            kumo_crt.Repository.create(url(bucket), client=s3)


@pytest.mark.servers("seaweed-http", "moto")
@pytest.mark.parametrize("key", [None, KEY])
def test_it_is_written_anew(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    key: kumo_crt.Key | None,
) -> None:
    terms: Any = {"environment": "prod", "storage_class": "STANDARD_IA"}
    path = make("blobs")
    with kumo_crt.Repository.create(url(bucket), client=s3, encryption_key=key, **terms) as made:
        snapshot = made.backup(path)
    manifest = json.loads(get(boto, bucket, manifest_key(snapshot)))
    assert {name: manifest.get(name) for name in TERMS} == {**dict.fromkeys(TERMS), **terms}
    old = json.loads(get(boto, bucket, CONFIG))
    delete(boto, bucket, CONFIG)

    named = kumo_crt.Repository(url(bucket), client=s3, encryption_key=key)
    for dry_run in (True, False):
        assert (CONFIG in keys(boto, bucket)) is False
        assert named.recover_config(dry_run=dry_run) == old["repository_id"]
    new = json.loads(get(boto, bucket, CONFIG))
    its_own = {"created_at": "", "crc32c": ""}
    assert {**new, **its_own} == {**old, **its_own}
    with pytest.raises(kumo_crt.RepositoryError, match="nothing is to be done"):
        named.recover_config()

    opened = kumo_crt.Repository.open(url(bucket), client=s3, encryption_key=key)
    assert opened.snapshots() == [snapshot]
    opened.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("blobs")
    assert opened.backup(path).uploaded_bytes == 0
    assert opened.verify("all", level="quick").ok
    dev = kumo_crt.Repository(url(bucket), client=s3, environment="dev", encryption_key=key)
    with pytest.raises(kumo_crt.EnvironmentMismatchError):
        dev.prune(keep_last=1)


def test_it_is_never_overwritten(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    repository.backup(make("one_key"))
    config = get(boto, bucket, CONFIG)
    delete(boto, bucket, CONFIG)

    def come(_: int, sent: Sent) -> None:
        if sent.operation == "PutObject":
            put(boto, bucket, CONFIG, config)

    with watched(s3, come), pytest.raises(kumo_crt.RepositoryError, match="already: open it"):
        repository.recover_config()
    assert get(boto, bucket, CONFIG) == config


def test_another_environment_does_not_write_it(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    with kumo_crt.Repository.create(url(bucket), client=s3, environment="prod") as made:
        made.backup(make("one_key"))
    delete(boto, bucket, CONFIG)
    dev = kumo_crt.Repository(url(bucket), client=s3, environment="dev")
    with pytest.raises(kumo_crt.EnvironmentMismatchError, match=r"'prod'.*'dev'.*nothing was"):
        dev.recover_config()
    assert CONFIG not in keys(boto, bucket)


def test_keys(
    encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    first, second = (encrypted.backup(make(name)) for name in ("one_key", "plain"))
    delete(boto, bucket, CONFIG)

    def recover(key: kumo_crt.Key | None) -> str:
        with kumo_crt.Repository(url(bucket), client=s3, encryption_key=key) as lost:
            return lost.recover_config()

    with pytest.raises(kumo_crt.EncryptionKeyError, match=r"encrypted \(2 of 2\).*--key-file"):
        recover(None)
    with pytest.raises(kumo_crt.EncryptionKeyError, match="none of its 2 encrypted snapshots was"):
        recover(OTHER)
    assert CONFIG not in keys(boto, bucket)
    # Somebody has written to it: what was made with the key tells.
    document = json.loads(get(boto, bucket, manifest_key(second)))
    put(boto, bucket, manifest_key(second), json.dumps(document).encode())
    recover(KEY)
    found: list[str] = []
    snapshots = encrypted.snapshots(on_damage=lambda snapshot_id, _: found.append(snapshot_id))
    assert [s.id for s in snapshots] == [first.id]
    assert found == [second.id]


def test_a_key_for_what_is_not_encrypted(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    repository.backup(make("one_key"))
    delete(boto, bucket, CONFIG)
    with (
        kumo_crt.Repository(url(bucket), client=s3, encryption_key=KEY) as lost,
        pytest.raises(kumo_crt.EncryptionKeyError, match="not encrypted, and a key was given"),
    ):
        lost.recover_config()
    assert CONFIG not in keys(boto, bucket)


def test_sealed_manifests_of_two_repositories(
    encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    encrypted.backup(path)
    elsewhere = f"{url(bucket)}-elsewhere"
    with kumo_crt.Repository.create(elsewhere, client=s3, encryption_key=KEY) as other:
        stranger = other.backup(path)
    key = manifest_key(stranger)
    found = boto.get_object(Bucket=bucket, Key=f"kv/main-elsewhere/{key}")["Body"].read()
    put(boto, bucket, key, found)
    delete(boto, bucket, CONFIG)
    with pytest.raises(kumo_crt.FormatError, match=r"snapshots of 2 repositories .*Move those"):
        encrypted.recover_config()
    assert CONFIG not in keys(boto, bucket)


def test_damaged_manifests(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    first, second = (repository.backup(make(name)) for name in ("one_key", "plain"))
    wanted = json.loads(get(boto, bucket, CONFIG))["repository_id"]
    delete(boto, bucket, CONFIG)
    put(boto, bucket, manifest_key(second), b"{}")
    assert repository.recover_config() == wanted
    delete(boto, bucket, CONFIG)
    put(boto, bucket, manifest_key(first), b"[]")
    # Their spares know as much.
    assert repository.recover_config(dry_run=True) == wanted
    for snapshot in (first, second):
        put(boto, bucket, spare_key(snapshot), b"[]")
    with pytest.raises(kumo_crt.FormatError, match=r"no manifest can be read.*snapshots/"):
        repository.recover_config()


def test_the_newest_manifest_tells(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    """As after a repository whose configuration was changed by hand; and one of another tool."""
    with kumo_crt.Repository.create(url(bucket), client=s3, environment="staging") as made:
        first = made.backup(make("one_key"))
    config = json.loads(get(boto, bucket, CONFIG))
    config |= {"environment": "prod", "storage_class": "STANDARD_IA"}
    put(boto, bucket, CONFIG, closed(config))
    lost = kumo_crt.Repository(url(bucket), client=s3)
    second = lost.backup(make("plain"))
    delete(boto, bucket, CONFIG)
    lost.recover_config()
    found = json.loads(get(boto, bucket, CONFIG))
    assert (found["environment"], found["storage_class"]) == ("prod", "STANDARD_IA")

    delete(boto, bucket, CONFIG)
    for snapshot, changes in ((second, {"sse": "ROT13"}), (first, {"environment": 5})):
        document = json.loads(get(boto, bucket, manifest_key(snapshot)))
        put(boto, bucket, manifest_key(snapshot), closed({**document, **changes}))
        delete(boto, bucket, spare_key(snapshot))
        if snapshot is second:
            lost.recover_config()
            assert json.loads(get(boto, bucket, CONFIG))["environment"] == "staging"
            delete(boto, bucket, CONFIG)
    with pytest.raises(kumo_crt.FormatError, match=r"no manifest can be read.*environment: expec"):
        lost.recover_config()
    del document["environment"]
    put(boto, bucket, manifest_key(first), closed(document))
    with pytest.raises(kumo_crt.FormatError, match=r"environment: is missing: .* whose"):
        lost.recover_config()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "kumo-repository", "version": 1}'])
def test_damaged(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, content: bytes
) -> None:
    """It is told what to do; nothing replaces what may be of use to somebody."""
    snapshot = repository.backup(make("one_key"))
    put(boto, bucket, CONFIG, content)
    calls: list[Any] = [
        repository.snapshots,
        repository.prune,
        lambda: repository.recover_config(),
    ]
    for call in calls:
        with pytest.raises(kumo_crt.FormatError, match=r"is damaged.*delete it.*repair-config"):
            call()
    assert get(boto, bucket, CONFIG) == content
    delete(boto, bucket, CONFIG)
    repository.recover_config()
    assert ids(repository) == [snapshot.id]


@pytest.mark.parametrize("key", [None, KEY])
def test_any_bit(key: kumo_crt.Key | None) -> None:
    """One in the repository's id would make every snapshot another repository's."""
    config = _configuration.new_config("prod", "STANDARD_IA", "AES256", None, key)
    text = _configuration.encode_config(config)
    assert _configuration.decode_config(text, "s3://b/x") == config
    for bit in range(8 * len(text)):
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(kumo_crt.FormatError, match="s3://b/x"):
            _configuration.decode_config(bytes(changed), "s3://b/x")


def test_a_changed_id(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    repository.backup(make("one_key"))
    content = get(boto, bucket, CONFIG)
    start = content.index(b'"repository_id": "') + 18
    put(boto, bucket, CONFIG, flipped(content, start))
    calls: list[Any] = [
        lambda: repository.restore(tmp_path / "restored"),
        lambda: repository.backup(tmp_path / "one_key"),
        lambda: repository.verify("all"),
    ]
    for call in calls:
        with pytest.raises(kumo_crt.FormatError, match=r"kumo-repository.json.*is damaged"):
            call()


def test_of_a_newer_version(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    put(boto, bucket, CONFIG, b'{"format": "kumo-repository", "version": 2}')
    with pytest.raises(kumo_crt.FormatError, match=r"use a newer kumo_crt$"):
        repository.snapshots()
