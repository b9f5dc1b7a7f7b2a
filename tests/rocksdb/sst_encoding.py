"""Writes the metadata part of block-based tables, for formats that no database at hand makes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import awscrt.checksums

from .encoding import COMPARATOR, mask, varint

_MAGIC = 0x88E241B785F4CFF7
_CRC32C = 1
_CONTEXT = 0x12345678


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """Returns a key-value block with one restart point."""
    out = bytearray()
    last = b""
    for key, value in sorted(entries.items()):
        shared = 0
        while shared < min(len(last), len(key)) and last[shared] == key[shared]:
            shared += 1
        out += (
            varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        )
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def _crc(data: bytes, offset: int) -> int:
    low_and_high = (offset & 0xFFFFFFFF) + (offset >> 32)
    return (mask(awscrt.checksums.crc32c(data)) + (_CONTEXT ^ low_and_high)) & 0xFFFFFFFF


def _with_trailer(content: bytes, offset: int) -> bytes:
    return content + b"\0" + struct.pack("<I", _crc(content + b"\0", offset))


def properties(**changes: bytes) -> dict[bytes, bytes]:
    """The properties of a complete identity; keyword names have `_` for `.`."""
    found = {
        b"rocksdb.creating.db.identity": b"db",
        b"rocksdb.creating.session.identity": b"0123456789ABCDEFGHIJ",
        b"rocksdb.original.file.number": varint(300),
        b"rocksdb.comparator": COMPARATOR,
        b"rocksdb.num.entries": varint(1 << 40),
    }
    for name, value in changes.items():
        found[b"rocksdb." + name.replace("_", ".").encode()] = value
    return found


def table(
    entries: Mapping[bytes, bytes],
    *,
    version: int = 7,
    data: bytes = b"",
    reserved: bytes = bytes(8),
) -> bytes:
    """Returns a table file of format version 6 or later with these properties."""
    return table_of_block(block(entries), version=version, data=data, reserved=reserved)


def table_of_block(
    content: bytes, *, version: int = 7, data: bytes = b"", reserved: bytes = bytes(8)
) -> bytes:
    """Returns a table file with these bytes as its properties block, whatever they are."""
    handle = varint(len(data)) + varint(len(content))
    return table_of_metaindex(
        block({b"rocksdb.properties": handle}),
        start=data + _with_trailer(content, len(data)),
        version=version,
        reserved=reserved,
    )


def table_of_metaindex(
    metaindex: bytes, *, start: bytes = b"", version: int = 7, reserved: bytes = bytes(8)
) -> bytes:
    """Returns a table file with these bytes as its metaindex block, behind the bytes `start`."""
    out = start + _with_trailer(metaindex, len(start))
    return out + footer(len(out), len(metaindex), version, reserved)


def footer(offset: int, metaindex_size: int, version: int, reserved: bytes = bytes(8)) -> bytes:
    """Returns a footer of format version 6 or later, with its checksum."""

    def parts(checksum: int) -> bytes:
        return (
            struct.pack("<B4sIII", _CRC32C, b"\x3e\0\x7a\0", checksum, _CONTEXT, metaindex_size)
            + bytes(16)
            + reserved
            + struct.pack("<IQ", version, _MAGIC)
        )

    return parts(_crc(parts(0), offset))
