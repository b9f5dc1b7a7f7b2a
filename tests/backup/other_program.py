"""Another program, written after docs/format.md alone: boto3, the standard library, cryptography.

It knows nothing of kumo_crt, and writes what a repository may hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tarfile
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.crypto import reference

_KINDS = {
    r"[0-9]{6,}\.sst": "sst",
    r"[0-9]{6,}\.blob": "blob",
    r"[0-9]{6,}\.log": "wal",
    r"OPTIONS-[0-9]+": "options",
    r"rocksdict-config\.json": "config",
    r"MANIFEST-[0-9]+": "manifest",
    r"CURRENT": "current",
}
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(content: bytes) -> str:
    """CRC32C of a content, as documents have it."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return f"{value ^ 0xFFFFFFFF:08x}"


def sha256(content: bytes) -> str:
    """SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()


def document(members: Mapping[str, Any], key: bytes | None = None) -> bytes:
    """A document with its seal, if there is a key, and its CRC32C."""
    text = json.dumps(members).encode()[:-1]
    if key is not None:
        text += b',"seal":"' + reference.mac(key, "kumo-crt 1 manifest", text).hex().encode() + b'"'
    return text + b',"crc32c":"' + crc32c(text).encode() + b'"}\n'


def without_crc32c(members: Mapping[str, Any]) -> bytes:
    """A document as older versions wrote it."""
    return json.dumps(members, indent=1).encode()


def hash_of(key: str) -> str:
    """What leases and marks have for a data object."""
    name = re.sub(r"\.[0-9a-f]{8}$", "", key.rpartition("/")[2])
    return sha256(name.encode())[:16]


def now() -> str:
    """The time, as documents have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tar_of(members: Mapping[str, bytes]) -> tuple[bytes, dict[str, int]]:
    """A tar as archives are, and where contents begin in it."""
    whole = bytearray()
    places = {}
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), 0o644, 946684800
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        header[329:345] = b"0000000\0" * 2  # devices, which Python leaves out
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        whole += header
        places[name] = len(whole)
        whole += content + bytes(-len(content) % 512)
    return bytes(whole) + bytes(1024), places


class Program:
    """What works on a repository.

    Args:
        boto: A client of boto3.
        bucket: The bucket.
        prefix: The repository's, without a slash at its end.
        key: Its key, if it is encrypted.
        optional: Whether to write the members that may be left out, too.
    """

    def __init__(
        self, boto: Any, bucket: str, prefix: str, key: bytes | None, *, optional: bool = True
    ) -> None:
        self._boto = boto
        self._place = (bucket, prefix)
        self._key = key
        self._optional = optional
        self._there: set[str] = set()
        self.repository_id = str(uuid.uuid4())

    def put(self, key: str, content: bytes) -> None:
        """Writes an object that does not exist yet."""
        bucket, prefix = self._place
        self._boto.put_object(
            Bucket=bucket,
            Key=f"{prefix}/{key}",
            Body=content,
            IfNoneMatch="*",
            ChecksumAlgorithm="CRC32C",
        )

    def create(self) -> None:
        """Writes the configuration."""
        config: dict[str, Any] = {
            "format": "kumo-repository",
            "version": 1,
            "repository_id": self.repository_id,
            "environment": None,
            "created_at": now(),
        }
        if self._key is not None:
            check = reference.mac(self._key, "kumo-crt 1 check", self.repository_id.encode())[:16]
            config["features"] = ["encrypted"]
            config["encryption"] = {
                "algorithm": "AES-256-GCM-STREAM-1",
                "key_check": check.hex(),
            }
        self.put("kumo-repository.json", document(config))

    # -- snapshots -------------------------------------------------------------------------

    def _named(self, digest: str) -> str:
        if self._key is None:
            return digest
        return reference.mac(self._key, "kumo-crt 1 name", digest.encode()).hex()

    def _stored(self, content: bytes) -> bytes:
        return content if self._key is None else reference.sealed(self._key, content)

    def _entry(self, path: str, kind: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": path, "kind": kind, "size": len(content)}
        entry["crc32c"] = crc32c(content)
        if self._key is not None:
            salt = reference.salt_of(self._key, content)
            mask = reference.mac(self._key, "kumo-crt 1 crc", salt)[:4]
            bare = bytes.fromhex(entry["crc32c"])
            entry["crc32c"] = bytes(a ^ b for a, b in zip(bare, mask, strict=True)).hex()
            entry["sealed_crc32c"] = crc32c(self._stored(content))
            entry["salt"] = salt.hex()
        return entry

    def _put_data(self, name: str, content: bytes) -> str:
        key = f"data/{sha256(name.encode())[:2]}/{name}"
        if key not in self._there:  # files that are alike have one name
            self.put(key, content)
            self._there.add(key)
        return key

    def _name_of(self, kind: str, content: bytes) -> str:
        suffix = {"sst": ".sst", "blob": ".blob"}.get(kind, "")
        return f"{kind}-{self._named(sha256(content))}-{len(content)}{suffix}"

    def backup(
        self, directory: Path, sequence_number: int, families: list[str], shape: str
    ) -> tuple[str, dict[str, Any]]:
        """Stores a closed database.

        Args:
            directory: Where it is.
            sequence_number: The last one in it.
            families: Its column families.
            shape: ``files``, ``bundle`` or ``archive``.

        Returns:
            The snapshot's id, and its manifest.
        """
        current = (directory / "CURRENT").read_text().strip()
        files = [
            (path.name, kind, path.read_bytes())
            for pattern, kind in _KINDS.items()
            for path in sorted(directory.iterdir())
            if re.fullmatch(pattern, path.name) and (kind != "manifest" or path.name == current)
        ]
        entries = [self._entry(*file) for file in files]
        store: Callable[..., dict[str, Any]] = getattr(self, f"_store_{shape}")
        objects = store(files, entries)
        snapshot_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"
        members: dict[str, Any] = {
            "format": "kumo-snapshot",
            "version": 1,
            "id": snapshot_id,
            "repository_id": self.repository_id,
            "created_at": now(),
            "db_id": (directory / "IDENTITY").read_text().strip(),
            "sequence_number": sequence_number,
            "column_families": families,
            "tags": {},
            "files": entries,
            "total_bytes": sum(len(content) for _, _, content in files),
        }
        features = ["packed"] if objects else []
        features += ["sealed"] if self._key is not None else []
        features += ["sealed-archive"] if self._key is not None and shape == "archive" else []
        if features:
            members["features"] = features
        if objects:
            members["objects"] = objects
        if self._optional:
            members |= {"environment": None, "tool": "other 1.0", "of another": [{"1": None}]}
            members |= {"uploaded_bytes": 1, "reused_bytes": 2}
        content = document(members, self._key)
        self.put(f"snapshots/{snapshot_id}.json", content)
        self.put(f"spares/{snapshot_id}.json", content)
        return snapshot_id, members

    def _store_files(
        self, files: list[tuple[str, str, bytes]], entries: list[dict[str, Any]]
    ) -> dict[str, Any]:
        for entry, (_, kind, content) in zip(entries, files, strict=True):
            stored = self._stored(content)
            if kind == "current" or (len(content) <= 4096 and kind not in ("sst", "blob")):
                entry["inline"] = base64.b64encode(stored).decode()
            else:
                entry["key"] = self._put_data(self._name_of(kind, content), stored)
        return {}

    def _store_bundle(
        self, files: list[tuple[str, str, bytes]], entries: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """All but CURRENT in one object."""
        whole, names = b"", ""
        packed = []
        for entry, (_, kind, content) in zip(entries, files, strict=True):
            stored = self._stored(content)
            if kind == "current":
                entry["inline"] = base64.b64encode(stored).decode()
                continue
            entry["name"], entry["offset"] = self._name_of(kind, content), len(whole)
            names += f"{entry['name']} {entry['size']}\n"
            whole += stored
            packed.append(entry)
        key = self._put_data(f"bundle-{sha256(names.encode())}-{len(whole)}", whole)
        for entry in packed:
            entry["key"] = key
        return {key: {"size": len(whole), "crc32c": crc32c(whole)}}

    def _store_archive(
        self, files: list[tuple[str, str, bytes]], entries: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """A tar of all files; its index is not needed where there is a manifest."""
        members = {
            path if self._key is None else f"{number:06d}.sealed": self._stored(content)
            for number, (path, _, content) in enumerate(files)
        }
        tar, places = tar_of({**members, "kumo-index.json": b"{}\n"})
        key = self._put_data(f"archive-{sha256(tar)}-{len(tar)}.tar", tar)
        for entry, place, (_, kind, content) in zip(
            entries, list(places.values())[:-1], files, strict=True
        ):
            if kind in ("current", "config"):
                entry["inline"] = base64.b64encode(self._stored(content)).decode()
            else:
                entry |= {"key": key, "offset": place, "name": self._name_of(kind, content)}
        return {key: {"size": len(tar), "crc32c": crc32c(tar)}}

    # -- those who work --------------------------------------------------------------------

    def lease(self, kind: str, objects: list[str], snapshots: list[str]) -> dict[str, Any]:
        """A lease's document."""
        return {
            "format": "kumo-lease",
            "version": 1,
            "kind": kind,
            "host": "elsewhere",
            "pid": 1,
            "objects": objects,
            "snapshots": snapshots,
            **({"tool": "other 1.0"} if self._optional else {}),
        }

    def inflight(self, kind: str, content: bytes, number: int = 0) -> str:
        """Writes something below ``inflight/``; returns its key."""
        key = f"inflight/{kind}-{os.urandom(16).hex()}-{number:06d}.json"
        self.put(key, content)
        return key
