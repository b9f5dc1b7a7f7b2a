"""The repository is what docs/format.md says, and can be restored without kumo_crt."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import awscrt.checksums
import pytest

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    closed,
    get,
    key_of,
    keys,
    manifest,
    put,
    stored_files,
    url,
)
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_ID = r"\d{8}T\d{6}Z-[0-9a-f]{8}"
_NAMES = {
    "sst": rf"sst-{_UUID}-[0-9A-Z]{{20}}-\d+-(?P<size>\d+)\.sst",
    "blob": rf"blob-{_UUID}-\d+-[0-9a-f]{{64}}-(?P<size>\d+)\.blob",
    "wal": r"wal-(?P<sha>[0-9a-f]{64})-(?P<size>\d+)",
    "manifest": r"manifest-(?P<sha>[0-9a-f]{64})-(?P<size>\d+)",
    "options": r"options-(?P<sha>[0-9a-f]{64})-(?P<size>\d+)",
}


def _is_now(text: str) -> bool:
    assert re.fullmatch(_TIME, text)
    then = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return abs(datetime.now(UTC) - then) < timedelta(minutes=1)


@pytest.mark.parametrize("environment", [None, "prod"])
def test_configuration(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, environment: str | None
) -> None:
    kumo_crt.Repository.create(url(bucket), client=s3, environment=environment)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    document = json.loads(get(boto, bucket, "kumo-repository.json"))
    names = {"format", "version", "repository_id", "environment", "created_at", "crc32c"}
    assert set(document) == names
    assert document["format"] == "kumo-repository"
    assert document["version"] == 1
    assert re.fullmatch(_UUID, document["repository_id"])
    assert document["environment"] == environment
    assert _is_now(document["created_at"])


@pytest.mark.parametrize("name", ["blobs", "unflushed_wal", "column_families", "many_files"])
@pytest.mark.usefixtures("each_alone")
def test_manifest(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, name: str
) -> None:
    path = make(name)
    snapshot = repository.backup(path, tags={"host": "kv-7", "größe": "ü"})
    document = manifest(boto, bucket, snapshot)
    config = json.loads(get(boto, bucket, "kumo-repository.json"))
    assert set(document) == {
        "format",
        "version",
        "id",
        "repository_id",
        "environment",
        "created_at",
        "db_id",
        "sequence_number",
        "column_families",
        "tags",
        "tool",
        "files",
        "total_bytes",
        "uploaded_bytes",
        "reused_bytes",
        "table_entries",
        "crc32c",
    }
    text = get(boto, bucket, f"snapshots/{snapshot.id}.json")
    members, _, crc = text.rpartition(b',"crc32c":')
    assert crc == b'"%08x"}\n' % awscrt.checksums.crc32c(members)
    assert document["format"] == "kumo-snapshot"
    assert document["version"] == 1
    assert re.fullmatch(_ID, document["id"])
    assert document["id"] == snapshot.id
    assert _is_now(document["created_at"])
    assert document["id"][:16] == re.sub(r"[-:]", "", document["created_at"])
    assert document["repository_id"] == config["repository_id"]
    assert document["environment"] == config["environment"]
    assert document["db_id"] == snapshot.db_id == (path / "IDENTITY").read_text().strip()
    assert document["sequence_number"] == snapshot.sequence_number
    assert document["column_families"] == list(snapshot.column_families)
    assert document["tags"] == {"host": "kv-7", "größe": "ü"}
    assert document["tool"] == f"kumo_crt {kumo_crt.__version__}"
    assert document["total_bytes"] == sum(file["size"] for file in document["files"])
    assert document["uploaded_bytes"] == sum(f["size"] for f in document["files"] if "key" in f)
    assert document["reused_bytes"] == 0
    paths = [file["path"] for file in document["files"]]
    assert len(set(paths)) == len(paths)
    # Everything below data/ is named, and nothing else is there.
    assert keys(boto, bucket) == {
        "kumo-repository.json",
        f"snapshots/{snapshot.id}.json",
        f"spares/{snapshot.id}.json",
        *(file["key"] for file in document["files"] if "key" in file),
    }


@pytest.mark.parametrize("name", ["blobs", "unflushed_wal", "one_key"])
def test_files_of_a_manifest(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, name: str
) -> None:
    path = make(name)
    document = manifest(boto, bucket, repository.backup(path))
    kinds = [file["kind"] for file in document["files"]]
    assert kinds.count("current") == kinds.count("manifest") == 1
    for file in document["files"]:
        content = (path / file["path"]).read_bytes()
        assert file["size"] == len(content)
        assert file["crc32c"] == f"{kumo_crt.crc32c(content):08x}"
        if "inline" in file:
            assert set(file) == {"path", "kind", "size", "crc32c", "inline"}
            assert len(content) <= 4096
            assert base64.b64decode(file["inline"], validate=True) == content
            continue
        assert set(file) == {"path", "kind", "size", "crc32c", "key"}
        start, digits, object_name = file["key"].split("/")
        assert start == "data"
        assert digits == hashlib.sha256(object_name.encode()).hexdigest()[:2]
        match = re.fullmatch(_NAMES[file["kind"]], object_name)
        assert match, object_name
        assert int(match["size"]) == len(content)
        if "sha" in match.groupdict():
            assert match["sha"] == hashlib.sha256(content).hexdigest()
        number = re.search(r"\d+", file["path"])
        assert number
        if file["kind"] == "sst":
            assert object_name.split("-")[-2] == str(int(number[0]))
    current = next(file for file in document["files"] if file["kind"] == "current")
    manifest_name = next(f["path"] for f in document["files"] if f["kind"] == "manifest")
    assert base64.b64decode(current["inline"]) == manifest_name.encode() + b"\n"


def test_names_of_blob_files(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("blobs")
    snapshot = repository.backup(path, bundle_below=0)
    blobs = stored_files(snapshot, "blob")
    assert blobs
    for file in blobs:
        content = (path / file.path).read_bytes()
        time = (path / file.path).stat().st_mtime_ns
        ends = hashlib.sha256(content[:4096] + content[-65536:] + str(time).encode()).hexdigest()
        name = f"blob-{snapshot.db_id}-{int(file.path[:6])}-{ends}-{len(content)}.blob"
        assert key_of(file).rpartition("/")[2] == name


@pytest.mark.parametrize("name", ["large", "blobs"])
def test_objects_are_stored_with_their_full_crc32c(
    small_parts: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, name: str
) -> None:
    repository = kumo_crt.Repository.create(url(bucket), client=small_parts)
    document = manifest(boto, bucket, repository.backup(make(name)))
    crcs = {f["key"]: bytes.fromhex(f["crc32c"]) for f in document["files"] if "key" in f}
    for key in ("kumo-repository.json", f"snapshots/{document['id']}.json"):
        crcs[key] = kumo_crt.crc32c(get(boto, bucket, key)).to_bytes(4, "big")
    for key, crc in crcs.items():
        found = boto.head_object(Bucket=bucket, Key=f"{PREFIX}/{key}", ChecksumMode="ENABLED")
        assert base64.b64decode(found["ChecksumCRC32C"]) == crc, key


@pytest.mark.parametrize("name", ["blobs", "unflushed_wal", "column_families"])
def test_restoring_without_kumo_crt(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    document = manifest(boto, bucket, repository.backup(make(name)))
    target = tmp_path / "by-hand"
    target.mkdir()
    for file in document["files"]:
        if "key" in file:
            boto.download_file(bucket, f"{PREFIX}/{file['key']}", str(target / file["path"]))
        else:
            (target / file["path"]).write_bytes(base64.b64decode(file["inline"]))
    assert databases.read_all(target) == library.truth(name)


def test_unknown_members_are_ignored(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("one_key"))
    document = manifest(boto, bucket, snapshot)
    document["future"] = {"a": [1]}
    for file in document["files"]:
        file["future"] = None
    put(boto, bucket, f"snapshots/{snapshot.id}.json", closed(document))
    assert repository.snapshot(snapshot.id) == snapshot
    for member in ("uploaded_bytes", "reused_bytes"):
        del document[member]
    put(boto, bucket, f"snapshots/{snapshot.id}.json", closed(document))
    assert repository.snapshot(snapshot.id).files == snapshot.files


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": 2}, "version"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"format": "kumo-snapshot"}, "format"),
        ({"environment": 5}, "environment"),
        ({"repository_id": None}, "repository_id"),
        ({"created_at": "yesterday"}, "created_at"),
    ],
)
def test_configurations_that_are_not_known(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    changes: dict[str, object],
    field: str,
) -> None:
    document = json.loads(get(boto, bucket, "kumo-repository.json"))
    put(boto, bucket, "kumo-repository.json", closed({**document, **changes}))
    with pytest.raises(
        kumo_crt.FormatError, match=rf"{PREFIX}/kumo-repository\.json, field {field}:"
    ):
        kumo_crt.Repository.open(url(bucket), client=s3)
    with pytest.raises(kumo_crt.FormatError):
        repository.backup(make("one_key"))
    assert keys(boto, bucket) == {"kumo-repository.json"}
