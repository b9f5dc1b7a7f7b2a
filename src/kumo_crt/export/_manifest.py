"""The manifest of an export; what is read is not trusted."""

from __future__ import annotations

import re
from typing import Any

from kumo_crt.backup._format import _documents
from kumo_crt.backup._format._documents import VERSION, Reader, is_number, time_text
from kumo_crt.backup._format._layout import MAX_FILE_SIZE
from kumo_crt.export._encoding import from_json, to_json
from kumo_crt.export._results import ENCODINGS, ExportedFile, ExportInfo

FORMAT = "kumo-export"
KEY = "kumo-export.json"
DATA = "files/"
COMPARATOR = "leveldb.BytewiseComparator"

_CRC = re.compile(r"[0-9a-f]{8}")
_FILE_KEY = re.compile(r"files/[0-9a-f]{16}/[0-9]{6,9}\.(sst|jsonl)")
_MAX_ENTRIES = (1 << 56) - 1


def encode(info: ExportInfo, tool: str) -> bytes:
    """A manifest as a document."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "created_at": time_text(info.created_at),
        "tool": tool,
        "encoding": info.encoding,
        "comparator": COMPARATOR,
        "db_id": info.db_id,
        "column_family": info.column_family,
        "start": None if info.start is None else to_json(info.start),
        "stop": None if info.stop is None else to_json(info.stop),
        "entries": info.entries,
        "total_bytes": info.total_bytes,
        "files": [
            {
                "key": file.key,
                "size": file.size,
                "crc32c": f"{file.crc32c:08x}",
                "entries": file.entries,
            }
            for file in info.files
        ],
    }
    return _documents.encode(document)


def decode(document: bytes | memoryview, where: str, url: str) -> ExportInfo:
    """Reads a manifest.

    Raises:
        FormatError: It is malformed, hostile, or of an unknown version; names the field.
    """
    reader = Reader(document, where, FORMAT)
    encoding = reader.text("encoding")
    if encoding not in ENCODINGS:
        raise reader.error("encoding", f"{encoding!r}"[:40] + " is not sst or jsonl")
    if reader.text("comparator") != COMPARATOR:
        raise reader.error("comparator", f"expected {COMPARATOR}")
    entries = reader.value("files")
    if not isinstance(entries, list):
        raise reader.error("files", "expected a list")
    files = tuple(_file(reader, encoding, index, entry) for index, entry in enumerate(entries))
    if len({file.key for file in files}) != len(files):
        raise reader.error("files", "a key is there twice")
    info = ExportInfo(
        url=url,
        created_at=reader.time("created_at"),
        encoding=encoding,
        column_family=_family(reader),
        db_id=reader.text("db_id"),
        start=_bound(reader, "start"),
        stop=_bound(reader, "stop"),
        entries=reader.number("entries", _MAX_ENTRIES),
        total_bytes=reader.number("total_bytes", 1 << 62),
        files=files,
    )
    if info.entries != sum(file.entries for file in files):
        raise reader.error("entries", "not the sum of the files' entries")
    if info.total_bytes != sum(file.size for file in files):
        raise reader.error("total_bytes", "not the sum of the files' sizes")
    reader.check_crc()
    return info


def _family(reader: Reader) -> str:
    # RocksDB allows any name: the empty one, too, and one that no line of text could have.
    name = reader.value("column_family")
    if not isinstance(name, str) or len(name) > 1024:
        raise reader.error("column_family", "expected a name")
    return name


def _bound(reader: Reader, name: str) -> bytes | None:
    value = reader.value(name)
    if value is None:
        return None
    try:
        return from_json(value)
    except ValueError as error:
        raise reader.error(name, str(error)) from None


def _file(reader: Reader, encoding: str, index: int, entry: Any) -> ExportedFile:
    field = f"files[{index}]"
    if not isinstance(entry, dict):
        raise reader.error(field, "expected an object")
    key, size, crc, entries = (entry.get(name) for name in ("key", "size", "crc32c", "entries"))
    match = _FILE_KEY.fullmatch(key) if isinstance(key, str) else None
    if match is None or match[1] != encoding:
        raise reader.error(f"{field}.key", f"{key!r}"[:80] + f" is no key of a file of {encoding}")
    if not is_number(size, MAX_FILE_SIZE):
        raise reader.error(f"{field}.size", f"{size!r}"[:80] + " is not a size that S3 can hold")
    if not isinstance(crc, str) or not _CRC.fullmatch(crc):
        raise reader.error(f"{field}.crc32c", "expected 8 hexadecimal digits")
    if not is_number(entries, _MAX_ENTRIES) or entries == 0:
        raise reader.error(f"{field}.entries", "expected a whole number above zero")
    return ExportedFile(match[0], size, int(crc, 16), entries)
