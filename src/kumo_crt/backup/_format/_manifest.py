"""Writes and reads manifests. What is read is not trusted."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._format import _layout, _sealing
from kumo_crt.backup._format._documents import VERSION, Reader, close, is_number, opened, time_text
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed, Snapshot, SnapshotFile, StoredObject

# Features of manifests: files may be parts of data objects; they are sealed; both, in an archive.
PACKED = "packed"
SEALED = "sealed"
SEALED_ARCHIVE = "sealed-archive"
FEATURES = (PACKED, SEALED, SEALED_ARCHIVE)
_CRC = re.compile(r"[0-9a-f]{8}")
# The end of a manifest: the CRC32C of all bytes before it.
_32_DIGITS = re.compile(r"[0-9a-f]{32}")
_MAX_SEQUENCE = (1 << 56) - 1  # RocksDB keeps the type of an entry in the other eight bits


def encode_snapshot(
    snapshot: Snapshot,
    repository_id: str,
    tool: str,
    key: Key | None = None,
    terms: Mapping[str, str | None] | None = None,
) -> bytes:
    """A snapshot's manifest as a document; sealed with the key, if its files are.

    Args:
        snapshot: The snapshot.
        repository_id: Of its repository.
        tool: What wrote it.
        key: The repository's, if it is encrypted.
        terms: The repository's, should its configuration be lost.
    """
    files = []
    for file in snapshot.files:
        entry: dict[str, Any] = {
            "path": file.path,
            "kind": file.kind,
            "size": file.size,
            "crc32c": f"{file.crc32c:08x}",
        }
        inline: bytes | bytearray | None = file.inline
        if key is not None and file.sealed is not None:
            salt = file.sealed.salt
            entry["crc32c"] = f"{_sealing.masked(key, salt, file.crc32c):08x}"
            entry["sealed_crc32c"] = f"{file.sealed.crc32c:08x}"
            entry["salt"] = salt.hex()
            inline = None if inline is None else _sealing.seal_memory(key, inline)[0]
        if inline is not None:
            entry["inline"] = base64.b64encode(inline).decode()
        else:
            entry["key"] = file.key
        if file.offset is not None:
            entry["offset"] = file.offset
            entry["name"] = file.name
        files.append(entry)
    document: dict[str, Any] = {
        "format": "kumo-snapshot",
        "version": VERSION,
        "id": snapshot.id,
        "repository_id": repository_id,
        **(terms or {}),
        "created_at": time_text(snapshot.created_at),
        "db_id": snapshot.db_id,
        "sequence_number": snapshot.sequence_number,
        "column_families": list(snapshot.column_families),
        "tags": dict(snapshot.tags),
        "tool": tool,
        "total_bytes": snapshot.total_bytes,
        "uploaded_bytes": snapshot.uploaded_bytes,
        "reused_bytes": snapshot.reused_bytes,
        "files": files,
    }
    containers = {file.key: file.container for file in snapshot.files if file.container is not None}
    features = [PACKED] * bool(containers) + [SEALED] * (key is not None)
    features += [SEALED_ARCHIVE] * (key is not None and snapshot.single_object is not None)
    if features:
        document["features"] = features
    if containers:
        document["objects"] = {
            key: {"size": item.size, "crc32c": f"{item.crc32c:08x}"}
            for key, item in containers.items()
        }
    if snapshot.table_entries is not None:
        document["table_entries"] = snapshot.table_entries
    return close_document(json.dumps(document, separators=(",", ":")).encode(), key)


def close_document(document: bytes, key: Key | None = None) -> bytes:
    """A manifest with its last members: the seal, if there is a key, and the CRC32C of all."""
    members = document.rstrip().removesuffix(b"}")
    if key is not None:
        members = _sealing.with_seal(key, members)
    return close(members)


def decode_snapshot(
    document: bytes | memoryview,
    where: str,
    snapshot_id: str,
    key: Key | None = None,
    repository_id: str | None = None,
) -> Snapshot:
    """Reads a manifest.

    Args:
        document: The JSON text.
        where: Its URL, for messages.
        snapshot_id: The id that its key promises.
        key: The repository's, if it is encrypted and the key is at hand.
        repository_id: Of that repository: several may have one key.

    Raises:
        FormatError: It is malformed, hostile, or of an unknown version; names the field.
    """
    reader = Reader(document, where, "kumo-snapshot", FEATURES)
    members, is_whole = opened(document)
    if key is not None and not _sealing.has_seal(key, members):
        raise reader.error(
            "seal",
            "it was not made with this repository's key, or has been changed since: somebody else "
            "has written to the repository",
        )
    if key is not None and repository_id not in (None, reader.text("repository_id")):
        raise reader.error("repository_id", f"expected {repository_id}: it is another repository's")
    if reader.text("id") != snapshot_id:
        raise reader.error("id", f"expected {snapshot_id}, as the key says")
    entries = reader.value("files")
    if not isinstance(entries, list):
        raise reader.error("files", "expected a list")
    objects = _objects(reader)
    files = tuple(_file(reader, objects, index, entry, key) for index, entry in enumerate(entries))
    _check_together(reader, files, readable=key is not None or SEALED not in reader.features)
    _check_objects(reader, objects, files)
    total = reader.number("total_bytes", 1 << 62)
    if total != sum(file.size for file in files):
        raise reader.error("total_bytes", "not the sum of the files' sizes")
    snapshot = Snapshot(
        id=snapshot_id,
        created_at=reader.time("created_at"),
        db_id=reader.text("db_id"),
        files=files,
        total_bytes=total,
        uploaded_bytes=reader.number("uploaded_bytes", 1 << 62, default=0),
        reused_bytes=reader.number("reused_bytes", 1 << 62, default=0),
        sequence_number=reader.number("sequence_number", _MAX_SEQUENCE),
        column_families=reader.texts("column_families"),
        tags=reader.text_map("tags"),
        table_entries=None
        if reader.value("table_entries") is None
        else reader.number("table_entries", 1 << 62),
    )
    # The last of all, so that other errors tell what is wrong.
    if not is_whole:
        raise reader.changed()
    return snapshot


def _objects(reader: Reader) -> dict[str, StoredObject]:
    """Data objects that are something else than one file."""
    found = reader.value("objects") if PACKED in reader.features else {}
    if not isinstance(found, dict):
        raise reader.error("objects", "expected an object")
    objects = {}
    for key, entry in found.items():
        field = f"objects[{key[:80]!r}]"
        if not _layout.is_data_key(key):
            raise reader.error(field, "is not a key below data/")
        size, crc = _size_and_crc(reader, field, entry)
        objects[key] = StoredObject(key, size, crc)
    return objects


def _size_and_crc(reader: Reader, field: str, entry: object) -> tuple[int, int]:
    if not isinstance(entry, dict):
        raise reader.error(field, "expected an object")
    size, crc = entry.get("size"), entry.get("crc32c")
    if not is_number(size, _layout.MAX_FILE_SIZE):
        raise reader.error(f"{field}.size", f"{size!r}"[:80] + " is not a size that S3 can hold")
    if not isinstance(crc, str) or not _CRC.fullmatch(crc):
        raise reader.error(f"{field}.crc32c", "expected 8 hexadecimal digits")
    return size, int(crc, 16)


def _file(
    reader: Reader,
    objects: Mapping[str, StoredObject],
    index: int,
    entry: object,
    seal: Key | None,
) -> SnapshotFile:
    field = f"files[{index}]"
    if not isinstance(entry, dict):
        raise reader.error(field, "expected an object")
    kind, path = entry.get("kind"), entry.get("path")
    if not isinstance(kind, str) or kind not in _layout.KINDS:
        shown = repr(kind)[:80]
        raise reader.error(f"{field}.kind", f"{shown} is not one of {', '.join(_layout.KINDS)}")
    if not isinstance(path, str) or not _layout.is_file_name(kind, path):
        shown = repr(path)[:80]
        raise reader.error(f"{field}.path", f"{shown} is not the name of a {kind} file of RocksDB")
    size, crc = _size_and_crc(reader, field, entry)
    sealed = _sealed(reader, field, entry, size)
    if sealed is not None and seal is not None:
        crc = _sealing.masked(seal, sealed.salt, crc)
    key, inline = entry.get("key"), entry.get("inline")
    if (key is None) == (inline is None):
        raise reader.error(field, "expected either key or inline")
    if inline is not None:
        return _inline_file(
            reader, field, SnapshotFile(path, kind, size, crc, sealed=sealed), inline, seal
        )
    if not isinstance(key, str) or not _layout.is_data_key(key):
        raise reader.error(f"{field}.key", f"{key!r}"[:80] + " is not a key below data/")
    file = SnapshotFile(path, kind, size, crc, key=key, sealed=sealed)
    container = objects.get(key)
    if container is None:
        if "offset" in entry:
            raise reader.error(f"{field}.offset", "objects, or features, does not tell of its key")
        return file
    offset, name = entry.get("offset"), entry.get("name")
    if not is_number(offset, container.size - file.stored_size):
        raise reader.error(f"{field}.offset", f"{offset!r}"[:80] + " is not a place in its object")
    if not isinstance(name, str) or not _layout.is_data_name(name):
        raise reader.error(f"{field}.name", f"{name!r}"[:80] + " is not the name of a data object")
    return replace(file, offset=offset, name=name, container=container)


def _sealed(reader: Reader, field: str, entry: Mapping[str, Any], size: int) -> Sealed | None:
    """How a file is stored, if it is sealed."""
    if SEALED not in reader.features:
        return None
    crc, salt = entry.get("sealed_crc32c"), entry.get("salt")
    if not isinstance(crc, str) or not _CRC.fullmatch(crc):
        raise reader.error(f"{field}.sealed_crc32c", "expected 8 hexadecimal digits")
    if not isinstance(salt, str) or not _32_DIGITS.fullmatch(salt):
        raise reader.error(f"{field}.salt", "expected 32 hexadecimal digits")
    return Sealed(_core.sealed_size(size), int(crc, 16), bytes.fromhex(salt))


def _inline_file(
    reader: Reader, field: str, file: SnapshotFile, text: object, seal: Key | None
) -> SnapshotFile:
    content: bytes | None = _inline(text, _layout.INLINE_LIMIT + file.stored_size - file.size)
    if (
        content is None
        or len(content) != file.stored_size
        or _core.crc32c(content) != file.stored_crc32c
    ):
        raise reader.error(f"{field}.inline", "does not have the size and CRC32C it says")
    if file.sealed is not None and seal is not None:
        try:
            content = bytes(_sealing.open_memory(seal, bytearray(content), file.sealed.salt))
        except _core.SealError as error:
            raise reader.error(f"{field}.inline", str(error)) from None
        if _core.crc32c(content) != file.crc32c:
            raise reader.error(f"{field}.inline", "its content does not have the CRC32C it says")
    return replace(file, inline=content)


def _inline(text: object, limit: int) -> bytes | None:
    if not isinstance(text, str) or len(text) > 2 * limit:
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if len(content) <= limit else None


def _check_objects(
    reader: Reader, objects: Mapping[str, StoredObject], files: tuple[SnapshotFile, ...]
) -> None:
    """Makes sure that objects are used, and that files in them do not overlap."""
    packed = [file for file in files if file.offset is not None]
    if unused := objects.keys() - {file.key for file in packed}:
        raise reader.error("objects", f"no file is in {min(unused)}"[:200])
    # Files that are alike are one.
    places = sorted({(f.key or "", f.offset or 0, f.stored_size, f.stored_crc32c) for f in packed})
    for (key, offset, size, _), (following, start, *_) in pairwise(places):
        if key == following and start < offset + size:
            raise reader.error("files", f"two overlap in {key} at {start}"[:200])


def _check_together(reader: Reader, files: tuple[SnapshotFile, ...], *, readable: bool) -> None:
    seen: set[str] = set()
    for index, file in enumerate(files):
        if file.path in seen:
            raise reader.error(f"files[{index}].path", f"{file.path!r} is there twice")
        seen.add(file.path)
    current = [file for file in files if file.kind == "current"]
    manifests = [file for file in files if file.kind == "manifest"]
    if len(current) != 1 or len(manifests) != 1:
        raise reader.error("files", "expected exactly one CURRENT and one MANIFEST")
    content = current[0].inline
    if content is None or (readable and content != manifests[0].path.encode() + b"\n"):
        raise reader.error("files", f"CURRENT does not name {manifests[0].path}")
