"""Exports that another program has written, by the words of docs/format.md."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict, SstFileWriter

import kumo_crt
from kumo_crt import export
from kumo_crt.export import _files
from tests.backup.other_program import crc32c, document, without_crc32c
from tests.export.helpers import PLACE, keys, url
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

ENTRIES = [(b"\x00\xff", b"no text"), (b"a", 'ä\n"'.encode()), (b"b", b""), (b"c", b"\xfe")]
HALF = 2


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _bytes(value)


def _bytes(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _lines(form: Any, ascii_only: bool) -> list[bytes]:
    lines = [
        json.dumps({"value": form(value), "key": form(key)}, ensure_ascii=ascii_only) + "\n"
        for key, value in ENTRIES
    ]
    return ["".join(lines[:HALF]).encode(), "".join(lines[HALF:]).encode()]


def _tables(
    directory: Path,
    files: Sequence[Sequence[tuple[bytes, bytes]]] = (ENTRIES[:HALF], ENTRIES[HALF:]),
) -> list[bytes]:
    found = []
    for number, entries in enumerate(files):
        path = directory / f"{number}.sst"
        writer = SstFileWriter(Options(raw_mode=True))
        writer.open(str(path))
        for key, value in entries:
            writer[key] = value
        writer.finish()
        found.append(path.read_bytes())
    return found


def _put(boto: Any, bucket: str, encoding: str, files: list[bytes]) -> dict[str, Any]:
    """Writes the files of an export, and makes its manifest."""
    attempt = hashlib.sha256(b"any").hexdigest()[:16]
    entries: list[dict[str, Any]] = []
    for number, content in enumerate(files):
        key = f"files/{attempt}/{number:06d}.{encoding}"
        boto.put_object(Bucket=bucket, Key=PLACE + key, Body=content, ChecksumAlgorithm="CRC32C")
        count = content.count(b"\n") if encoding == "jsonl" else HALF
        entries.append(
            {"key": key, "size": len(content), "crc32c": crc32c(content), "entries": count}
        )
    return {
        "format": "kumo-export",
        "version": 1,
        "created_at": "2026-11-25T06:00:00Z",
        "encoding": encoding,
        "comparator": "leveldb.BytewiseComparator",
        "db_id": "",
        "column_family": "default",
        "start": None,
        "stop": _bytes(b"d"),
        "entries": sum(entry["entries"] for entry in entries),
        "total_bytes": sum(map(len, files)),
        "files": entries,
    }


def _commit(boto: Any, bucket: str, content: bytes) -> None:
    key = f"{PLACE}kumo-export.json"
    boto.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")


@pytest.mark.parametrize("form", [document, without_crc32c])
@pytest.mark.parametrize("encoding", ["sst", "text", "ascii", "base64"])
def test_import(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path, encoding: str, form: Any
) -> None:
    files = {
        "sst": lambda: _tables(tmp_path),
        "text": lambda: _lines(_text, ascii_only=False),
        "ascii": lambda: _lines(_text, ascii_only=True),
        "base64": lambda: _lines(_bytes, ascii_only=True),
    }[encoding]()
    members = _put(boto, bucket, "sst" if encoding == "sst" else "jsonl", files)
    _commit(boto, bucket, form({**members, "tool": "other 1.0", "of another": []}))
    export.import_(url(bucket), tmp_path / "db", client=s3)
    db = Rdict(str(tmp_path / "db"), databases.options())
    assert list(db.items()) == ENTRIES
    db.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"features": ["unknown"]}, "features"),
        ({"comparator": "another"}, "comparator"),
        ({"encoding": "csv"}, "encoding"),
        ({"entries": 5}, "entries"),
        ({"total_bytes": 5}, "total_bytes"),
        ({"stop": {"base64": "?"}}, "stop"),
    ],
)
def test_refused(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    tmp_path: Path,
    change: Mapping[str, Any],
    message: str,
) -> None:
    members = _put(boto, bucket, "jsonl", _lines(_text, ascii_only=False))
    _commit(boto, bucket, document({**members, **change}))
    before = keys(boto, bucket)
    with pytest.raises(kumo_crt.FormatError, match=f"field {message}"):
        export.import_(url(bucket), tmp_path / "db", client=s3)
    assert not (tmp_path / "db").exists()
    assert keys(boto, bucket) == before


@pytest.mark.parametrize(
    "files",
    [
        [b'{"key":"a","value":""}\n{"key":"b","value":""}\n', b'{"key":"b","value":""}\n'],
        [b'{"key":"a","value":""}\n{"key":"c","value":""}\n', b'{"key":"b","value":""}\n'],
        [b'{"key":"b","value":""}\n', b'{"key":"a","value":""}\n'],
    ],
)
def test_keys_that_do_not_ascend_from_file_to_file(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path, files: list[bytes]
) -> None:
    """Taken in as they are, one of two values of a key would be lost, and nobody told."""
    members = _put(boto, bucket, "jsonl", files)
    _commit(boto, bucket, document(members))
    with pytest.raises(kumo_crt.IntegrityError, match=r"000001\.jsonl: its first key b'[ab]' is"):
        export.import_(url(bucket), tmp_path / "db", client=s3)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(
    "files", [["ac", "ce"], ["ad", "bc"], ["bc", "ad"], ["ab", "cd", "de"], ["ab", "ab"]]
)
def test_tables_that_overlap(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path, files: list[str]
) -> None:
    tables = _tables(tmp_path, [[(key.encode(), b"") for key in keys_] for keys_ in files])
    _commit(boto, bucket, document(_put(boto, bucket, "sst", tables)))
    (tmp_path / "of").mkdir()
    target = tmp_path / "of" / "db"
    with pytest.raises(kumo_crt.IntegrityError, match=r"kumo-export\.json: its SST files overlap"):
        export.import_(url(bucket), target, client=s3)
    assert list(target.parent.iterdir()) == []
    there = Rdict(str(target), databases.options())
    there[b"b"] = b"before"
    with pytest.raises(kumo_crt.IntegrityError, match="overlap"):
        export.import_(url(bucket), there, client=s3, add=True)
    assert list(there.items()) == [(b"b", b"before")]
    there.close()
    assert list(target.parent.iterdir()) == [target]


def test_tables_that_overlap_what_is_there(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path
) -> None:
    """They are in no order, which is no harm."""
    tables = _tables(tmp_path, [ENTRIES[HALF:], ENTRIES[:HALF]])
    _commit(boto, bucket, document(_put(boto, bucket, "sst", tables)))
    there = Rdict(str(tmp_path / "db"), databases.options())
    there[b"a"], there[b"z"] = b"before", b"last"
    export.import_(url(bucket), there, client=s3, add=True)
    assert list(there.items()) == [*ENTRIES, (b"z", b"last")]
    there.close()


def test_tables_that_cannot_be_compared(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are not taken in unseen."""
    _commit(boto, bucket, document(_put(boto, bucket, "sst", _tables(tmp_path))))

    def refuse(source: Path, link: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(link))

    monkeypatch.setattr(_files, "_link", refuse)
    (tmp_path / "of").mkdir()
    with pytest.raises(kumo_crt.RepositoryError, match=r"whether its SST files overlap cannot be"):
        export.import_(url(bucket), tmp_path / "of" / "db", client=s3)
    assert list((tmp_path / "of").iterdir()) == []
