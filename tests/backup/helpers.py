"""What the backup tests ask of repositories and databases."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._format import _manifest
from tests.support import databases
from tests.support.databases import Entry

PREFIX = "kv/main"
# Of encrypted repositories.
MATERIAL = bytes(range(1, 33))
KEY = kumo_crt.Key(MATERIAL)


def url(bucket: str, prefix: str = PREFIX) -> str:
    """URL of the repository of a test."""
    return f"s3://{bucket}/{prefix}"


def keys(boto: Any, bucket: str, below: str = "") -> set[str]:
    """Keys in the repository, relative to it, as boto3 lists them."""
    pages = boto.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{PREFIX}/")
    found = (item["Key"] for page in pages for item in page.get("Contents", []))
    return {key for full in found if (key := full.removeprefix(f"{PREFIX}/")).startswith(below)}


def get(boto: Any, bucket: str, key: str) -> bytes:
    """Content of an object of the repository, as boto3 reads it."""
    content: bytes = boto.get_object(Bucket=bucket, Key=f"{PREFIX}/{key}")["Body"].read()
    return content


def put(boto: Any, bucket: str, key: str, content: bytes) -> None:
    """Replaces an object of the repository, with a CRC32C as kumo_crt stores it."""
    boto.put_object(Bucket=bucket, Key=f"{PREFIX}/{key}", Body=content, ChecksumAlgorithm="CRC32C")


def delete(boto: Any, bucket: str, key: str) -> None:
    """Deletes an object of the repository."""
    boto.delete_object(Bucket=bucket, Key=f"{PREFIX}/{key}")


def manifest_key(snapshot: kumo_crt.Snapshot) -> str:
    """Key of a snapshot's manifest, by docs/format.md."""
    return f"snapshots/{snapshot.id}.json"


def spare_key(snapshot: kumo_crt.Snapshot) -> str:
    """Key of the spare of its manifest."""
    return f"spares/{snapshot.id}.json"


def remove(boto: Any, bucket: str, snapshot: kumo_crt.Snapshot) -> None:
    """Removes a snapshot as a deletion does: its manifest alone would count as lost."""
    delete(boto, bucket, spare_key(snapshot))
    delete(boto, bucket, manifest_key(snapshot))


def replace_manifest(boto: Any, bucket: str, snapshot: kumo_crt.Snapshot, content: bytes) -> None:
    """Puts something in the place of a manifest that has no spare."""
    delete(boto, bucket, spare_key(snapshot))
    put(boto, bucket, manifest_key(snapshot), content)


def manifest(boto: Any, bucket: str, snapshot: kumo_crt.Snapshot) -> Any:
    """A snapshot's manifest as plain JSON."""
    return json.loads(get(boto, bucket, manifest_key(snapshot)))


def closed(document: Mapping[str, Any]) -> bytes:
    """A manifest that was changed, with the CRC32C of what it is now."""
    members = {name: value for name, value in document.items() if name != "crc32c"}
    return _manifest.close_document(json.dumps(members).encode())


def stored_files(
    snapshot: kumo_crt.Snapshot, kind: str | None = None
) -> list[kumo_crt.SnapshotFile]:
    """Files that are data objects, largest first."""
    found = [f for f in snapshot.files if f.key is not None and kind in (None, f.kind)]
    return sorted(found, key=lambda file: file.size, reverse=True)


def key_of(file: kumo_crt.SnapshotFile) -> str:
    """Key of a file's data object."""
    assert file.key is not None
    return file.key


def content_of(path: Path) -> list[Entry]:
    """Every (column family, key, value) of a database, which stays as it is."""
    copy = path.with_name(f"{path.name}.read")
    shutil.copytree(path, copy)
    try:
        return databases.read_all(copy)
    finally:
        shutil.rmtree(copy)


def tree(directory: Path) -> dict[str, str]:
    """Every file below a directory with the SHA-256 of its content, hidden ones included."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "directory"
        for path in sorted(directory.rglob("*"))
    }


def leftovers(directory: Path) -> list[str]:
    """Names of kumo_crt's working directories."""
    return sorted(path.name for path in directory.iterdir() if ".kumo-" in path.name)


def open_uploads(boto: Any, bucket: str) -> list[str]:
    """Keys of multipart uploads that were neither completed nor aborted."""
    answer = boto.list_multipart_uploads(Bucket=bucket)
    return [upload["Key"] for upload in answer.get("Uploads", [])]


def flipped(content: bytes, position: int | None = None) -> bytes:
    """The content with one bit of one byte changed."""
    position = len(content) // 2 if position is None else position
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def names_in(value: object) -> Iterator[str]:
    """Names of all members of a JSON value, at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from names_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from names_in(member)


def bundles_of(snapshot: kumo_crt.Snapshot) -> set[str]:
    """Keys of the bundles that hold files of a snapshot."""
    return {key_of(file) for file in stored_files(snapshot) if file.offset is not None}


def write_tables(path: Path, first: int, last: int, *, value_size: int = 300) -> None:
    """A table file for every key."""
    db = Rdict(str(path), databases.options(small_files=True))
    for number in range(first, last):
        databases.fill(db, number, number + 1, value_size=value_size)
        db.flush()
    db.close()


def compact_tables(path: Path, last: int) -> None:
    """Puts the tables of the first keys together."""
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 0, last + 1, value_size=2000)  # else they are moved, not put together
    db.flush()
    db.compact_range(b"key-", b"key-%08d" % last)
    db.close()
