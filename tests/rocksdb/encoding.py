"""Writes RocksDB's log framing and version edits, for cases that no database makes on demand."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import awscrt.checksums

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SET_COMPRESSION, TIMESTAMP_SIZE, PREDECESSOR = 9, 10, 130

COMPARATOR = b"leveldb.BytewiseComparator"


def mask(crc: int) -> int:
    """Masks a CRC as RocksDB stores it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def physical(kind: int, payload: bytes, log_number: int | None = None) -> bytes:
    """Returns one fragment with its header; with a log number it is a recyclable one."""
    number = b"" if log_number is None else struct.pack("<I", log_number)
    covered = bytes([kind]) + number + payload
    crc = mask(awscrt.checksums.crc32c(covered))
    return struct.pack("<IH", crc, len(payload)) + covered


def log(records: Iterable[bytes], *, start: bytes = b"", log_number: int | None = None) -> bytes:
    """Returns a log file of whole records, behind the bytes `start`."""
    out = bytearray(start)
    header = 7 if log_number is None else 11
    for record in records:
        rest, first = memoryview(record), True  # slicing must not copy
        while True:
            room = BLOCK - len(out) % BLOCK
            if room < header:
                out += bytes(room)
                continue
            piece, rest = bytes(rest[: room - header]), rest[room - header :]
            kind = {(True, True): FULL, (True, False): FIRST, (False, False): MIDDLE}.get(
                (first, not rest), LAST
            )
            out += physical(kind + (0 if log_number is None else 4), piece, log_number)
            first = False
            if not rest:
                break
    return bytes(out)


def batch(sequence: int, count: int, size: int = 0) -> bytes:
    """Returns a write batch with nothing but its header and `size` bytes."""
    return struct.pack("<QI", sequence, count) + bytes(size)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value: bytes) -> bytes:
    return varint(len(value)) + value


def number(tag: int, value: int) -> bytes:
    """A field of an edit that is a number (or, for 201 and others, see `field`)."""
    return varint(tag) + varint(value)


def field(tag: int, value: bytes) -> bytes:
    """A field of an edit that is a length and bytes."""
    return varint(tag) + text(value)


def base_edit(log_number: int = 4, next_file: int = 100, sequence: int = 0) -> bytes:
    """The edit that a MANIFEST cannot do without."""
    return field(1, COMPARATOR) + number(2, log_number) + number(3, next_file) + number(4, sequence)


def internal(key: bytes) -> bytes:
    return key + struct.pack("<Q", 1 << 8 | 1)


def new_file(
    file_number: int, *, level: int = 0, key: bytes = b"k", custom: bytes = b"", largest: int = 2
) -> bytes:
    """A NewFile4 entry; `custom` are its tagged fields, `largest` its last sequence number."""
    return (
        varint(103)
        + varint(level)
        + varint(file_number)
        + varint(1000 + file_number)
        + text(internal(key))
        + text(internal(key))
        + varint(1)
        + varint(largest)
        + custom
        + varint(1)
    )
