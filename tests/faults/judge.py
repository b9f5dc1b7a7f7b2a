"""An independent reader of repositories: boto3, JSON, and the checksums of the awscrt package.

It knows docs/format.md and nothing of kumo_crt's code. What is sealed it opens with the key of the
environment (``KUMO_CRT_KEY``, in hexadecimal).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awscrt import checksums
from botocore.exceptions import ClientError

from tests.crypto import reference
from tests.faults.seeds import done


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it."""

    size: int
    etag: str
    modified: Any


@dataclass
class Found:
    """What is in a repository.

    Attributes:
        objects: Everything, by its key below the prefix.
        manifests: By the ids of their snapshots.
    """

    objects: dict[str, Stored]
    manifests: dict[str, dict[str, Any]]

    @property
    def snapshots(self) -> set[str]:
        """Ids of all snapshots."""
        return set(self.manifests)

    def named(self) -> set[str]:
        """Keys that some manifest names."""
        return {f["key"] for m in self.manifests.values() for f in m["files"] if "key" in f}

    def below(self, folder: str) -> set[str]:
        """Keys that begin so."""
        return {key for key in self.objects if key.startswith(folder)}


@dataclass
class Judge:
    """Looks at repositories in one bucket.

    Args:
        boto: A boto3 client.
        bucket: The bucket.
    """

    boto: Any
    bucket: str
    # CRC32C by ETag, the MD5 of what is stored: the same content is read once.
    _known: dict[tuple[str, int], str] = field(default_factory=dict)

    def listed(self, prefix: str) -> dict[str, Stored]:
        """Everything below a prefix."""
        found = {}
        pages = self.boto.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        for page in pages:
            for item in page.get("Contents", []):
                stored = Stored(item["Size"], item["ETag"], item["LastModified"])
                found[item["Key"].removeprefix(prefix)] = stored
        return found

    def get(self, key: str) -> bytes:
        """Content of an object."""
        content: bytes = self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def uploads(self, prefix: str) -> list[str]:
        """Keys of multipart uploads that are neither completed nor aborted."""
        answer = self.boto.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
        return [upload["Key"].removeprefix(prefix) for upload in answer.get("Uploads", [])]

    def look(self, prefix: str) -> Found:
        """Reads a repository, and makes sure that every snapshot in it is whole."""
        objects = self.listed(prefix)
        manifests = {}
        for key in objects:
            if key.startswith("snapshots/"):
                manifest = json.loads(self.get(prefix + key))
                snapshot_id = key.removeprefix("snapshots/").removesuffix(".json")
                assert manifest["id"] == snapshot_id, key
                manifests[snapshot_id] = manifest
        for manifest in manifests.values():
            self._check(prefix, objects, manifest)
        for key in objects:
            if key.startswith("spares/2"):
                # It says that there is such a snapshot: without its manifest, that was lost.
                assert key.removeprefix("spares/").removesuffix(".json") in manifests, key
        return Found(objects, manifests)

    def check(self, prefix: str, snapshot_id: str) -> dict[str, Any]:
        """Makes sure that one snapshot is whole, whatever others are; returns its manifest."""
        manifest: dict[str, Any] = json.loads(self.get(f"{prefix}snapshots/{snapshot_id}.json"))
        self._check(prefix, self.listed(prefix), manifest)
        return manifest

    def _check(self, prefix: str, objects: dict[str, Stored], manifest: dict[str, Any]) -> None:
        what = f"snapshot {manifest['id']} below {prefix}"
        for file in manifest["files"]:
            if "inline" in file:
                content = base64.b64decode(file["inline"], validate=True)
                size, crc = _content(file, content)
            else:
                stored = objects.get(file["key"]) or self._unlisted(prefix + file["key"])
                assert stored is not None, f"{what}: {file['path']}: {file['key']} is missing"
                size, crc = self._part(prefix + file["key"], stored, file)
            assert (size, crc) == (file["size"], _checksum_of(file)), f"{what}: {file['path']}"
        assert manifest["total_bytes"] == sum(file["size"] for file in manifest["files"]), what
        (current,) = (file for file in manifest["files"] if file["kind"] == "current")
        named = _opened(current, base64.b64decode(current["inline"])).decode()
        assert [f["path"] + "\n" for f in manifest["files"] if f["kind"] == "manifest"] == [named]

    def _unlisted(self, key: str) -> Stored | None:
        """An object that SeaweedFS has, killed before it had written its directory's entry."""
        try:
            found = self.boto.head_object(Bucket=self.bucket, Key=key)
        except ClientError:
            return None
        done["objects that the killed server had and did not list"] += 1
        return Stored(found["ContentLength"], found["ETag"], found["LastModified"])

    def _part(self, key: str, stored: Stored, file: dict[str, Any]) -> tuple[int, str]:
        """Size and CRC32C of what an object, or a place in a bundle, holds of a file."""
        if "offset" not in file and "salt" not in file:
            return stored.size, self._checksum(key, stored)
        start = file.get("offset", 0)
        content = self.get(key)
        size = file["size"]
        if "salt" in file:
            size += 32 + 16 * max(1, -(-size // reference.CHUNK))
            assert "offset" in file or len(content) == size, key
        return _content(file, content[start : start + size])

    def _checksum(self, key: str, stored: Stored) -> str:
        identity = (stored.etag, stored.size)
        # The ETag of a multipart upload is no hash of the content.
        if identity not in self._known or "-" in stored.etag:
            self._known[identity] = _crc32c(self.get(key))
        return self._known[identity]


def _crc32c(content: bytes) -> str:
    return f"{checksums.crc32c(content):08x}"


def _key() -> bytes:
    return bytes.fromhex(os.environ["KUMO_CRT_KEY"])


def _opened(file: dict[str, Any], stored: bytes) -> bytes:
    """A file's content, from what is stored of it."""
    if "salt" not in file:
        return stored
    assert _crc32c(stored) == file["sealed_crc32c"], file["path"]
    return reference.restored(_key(), file, stored)


def _content(file: dict[str, Any], stored: bytes) -> tuple[int, str]:
    content = _opened(file, stored)
    return len(content), _crc32c(content)


def _checksum_of(file: dict[str, Any]) -> str:
    """CRC32C of a file's content, by its manifest."""
    crc: str = file["crc32c"]
    if "salt" not in file:
        return crc
    mask = reference.mac(_key(), "kumo-crt 1 crc", bytes.fromhex(file["salt"]))[:4]
    return f"{int(crc, 16) ^ int.from_bytes(mask, 'big'):08x}"


def tree(directory: Path) -> dict[str, str] | None:
    """Files of a database by name, with their CRC32C; None if there is no such directory."""
    if not directory.exists():
        return None
    return {path.name: _crc32c(path.read_bytes()) for path in directory.iterdir()}


def expected_tree(manifest: dict[str, Any]) -> dict[str, str]:
    """What a restore of a snapshot gives."""
    return {file["path"]: _checksum_of(file) for file in manifest["files"]}


def without(keys: Iterable[str], *folders: str) -> set[str]:
    """Keys that are not below some folders."""
    return {key for key in keys if not key.startswith(folders)}
