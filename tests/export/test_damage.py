"""Exports that are damaged, or that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import export
from kumo_crt.backup._format import _documents
from kumo_crt.export import _manifest
from tests.export.helpers import PLACE, url
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def _flip(content: bytes) -> bytes:
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_flip, "CRC32C"),
        (lambda content: content[:-1], "bytes"),
        (lambda content: content + b"x", "bytes"),
        (None, "missing"),
    ],
    ids=["flipped", "shorter", "longer", "missing"],
)
@pytest.mark.parametrize("new", [True, False], ids=["new", "there"])
def test_a_damaged_file_changes_nothing(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    made: str,
    tmp_path: Path,
    damage: Callable[[bytes], bytes] | None,
    match: str,
    new: bool,
) -> None:
    key = PLACE + export.inspect(made, client=s3).files[2].key
    content = boto.get_object(Bucket=bucket, Key=key)["Body"].read()
    boto.delete_object(Bucket=bucket, Key=key)
    if damage is not None:
        boto.put_object(Bucket=bucket, Key=key, Body=damage(content))
    target = tmp_path / "target"
    if not new:
        db = Rdict(str(target), databases.options())
        db[b"key"] = b"value"
        db.close()
    with pytest.raises(kumo_crt.IntegrityError, match=match) as caught:
        export.import_(made, target, client=s3, column_family="new")
    assert key in str(caught.value)
    assert "The database is as it was: export once more" in str(caught.value)
    if new:
        assert not target.exists()
    else:
        assert databases.read_all(target) == [("default", b"key", b"value")]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _replace_file(boto: Any, bucket: str, content: bytes, entries: int) -> None:
    """Makes the export's only file another one that its manifest fits."""
    key = f"{PLACE}kumo-export.json"
    document = json.loads(boto.get_object(Bucket=bucket, Key=key)["Body"].read())
    (file,) = document["files"]
    boto.put_object(Bucket=bucket, Key=PLACE + file["key"], Body=content)
    file["crc32c"] = f"{kumo_crt.crc32c(content):08x}"
    file["size"] = document["total_bytes"] = len(content)
    file["entries"] = document["entries"] = entries
    del document["crc32c"]
    boto.put_object(
        Bucket=bucket, Key=key, Body=_documents.encode(document), ChecksumAlgorithm="CRC32C"
    )


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (b'{"key":"b","value":""}\n{"key":"a","value":""}\n', "line 2: .* order of their keys"),
        (b'{"key":"a","value":""}\n{"key":"a","value":""}\n', "line 2: .* order of their keys"),
        (b'{"key":"a","value":""}\n', "1 lines, the manifest says 2"),
        (b'{"key":"a"}\n{"key":"b","value":""}\n', "line 1: expected an object"),
        (b'{"key":"a","value":""}\n{"key":"b","value":5}\n', "line 2: expected a text"),
        (b'{"key":"a","value":""}\n{"key":"b","value":{"base64":"*"}}\n', "line 2: no base64"),
        (b'{"key":"a","value":""}\n{"key":"b","value":"\\ud800"}\n', "line 2: .*surrogates"),
        (b'{"key":"a","value":""}\nnonsense\n', "line 2: "),
        (b'{"key":"a","value":""}\n' + b"[" * 100_000 + b"\n", "line 2: "),
        (b"\xff\n\xff\n", "line 1: "),
    ],
)
def test_lines_that_are_no_export(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    database: Path,
    tmp_path: Path,
    lines: bytes,
    match: str,
) -> None:
    export.export(database, url(bucket), client=s3, encoding="jsonl")
    _replace_file(boto, bucket, lines, 2)
    with pytest.raises(kumo_crt.IntegrityError, match=match):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert not (tmp_path / "copy").exists()


def test_lines_written_by_somebody_else(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    """Spaces, escapes, another order of members and no newline at the end are all right."""
    export.export(database, url(bucket), client=s3, encoding="jsonl")
    lines = (
        b'{ "value" : {"base64": "AA=="}, "key": "\\u0061" }\r\n'
        b'{"key":{"base64":"/w=="},"value":""}'
    )
    _replace_file(boto, bucket, lines, 2)
    export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert databases.read_all(tmp_path / "copy") == [
        ("default", b"a", b"\0"),
        ("default", b"\xff", b""),
    ]


def test_a_file_that_is_no_table(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    info = export.export(database, url(bucket), client=s3).info
    content = boto.get_object(Bucket=bucket, Key=PLACE + info.files[0].key)["Body"].read()
    _replace_file(boto, bucket, content, 1_999)
    with pytest.raises(kumo_crt.IntegrityError, match="2000 entries, the manifest says 1999"):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    _replace_file(boto, bucket, b"no table" * 100, 2_000)
    with pytest.raises(kumo_crt.IntegrityError, match="is no SST file"):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert not (tmp_path / "copy").exists()


_FILE = {"key": f"files/{'0' * 16}/000000.sst", "size": 10, "crc32c": "00000000", "entries": 2}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "kumo-snapshot"}, "format"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"encoding": "csv"}, "encoding"),
        ({"encoding": "jsonl"}, r"files\[0\].key"),
        ({"comparator": "mine"}, "comparator"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"column_family": 5}, "column_family"),
        ({"column_family": "x" * 2_000}, "column_family"),
        ({"start": 5}, "start"),
        ({"stop": {"base64": "*"}}, "stop"),
        ({"entries": 3}, "entries"),
        ({"entries": -1}, "entries"),
        ({"total_bytes": 11}, "total_bytes"),
        ({"files": {}}, "files"),
        ({"files": [5]}, r"files\[0\]"),
        ({"files": [_FILE, _FILE]}, "twice"),
        ({"files": [{**_FILE, "key": "../../other/000000.sst"}]}, r"files\[0\].key"),
        ({"files": [{**_FILE, "key": f"files/{'0' * 16}/../x.sst"}]}, r"files\[0\].key"),
        ({"files": [{**_FILE, "size": -1}]}, r"files\[0\].size"),
        ({"files": [{**_FILE, "size": 1 << 60}]}, r"files\[0\].size"),
        ({"files": [{**_FILE, "crc32c": 5}]}, r"files\[0\].crc32c"),
        ({"files": [{**_FILE, "entries": 0}]}, r"files\[0\].entries"),
        ({"files": [{**_FILE, "entries": True}]}, r"files\[0\].entries"),
    ],
)
def test_hostile_manifests(change: dict[str, Any], match: str) -> None:
    document = {
        **{"format": "kumo-export", "version": 1, "created_at": "2026-11-25T00:00:00Z"},
        **{"tool": "", "encoding": "sst", "comparator": "leveldb.BytewiseComparator"},
        **{"db_id": "", "column_family": "default", "start": None, "stop": None},
        **{"entries": 2, "total_bytes": 10, "files": [_FILE]},
    }
    where = "s3://bucket/exports/kumo-export.json"
    assert _manifest.decode(json.dumps(document).encode(), where, "").entries == 2
    changed = json.dumps({**document, **change}).encode()
    with pytest.raises(kumo_crt.FormatError, match=match) as caught:
        _manifest.decode(changed, where, "")
    assert where in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_manifests_that_are_none(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, document: bytes
) -> None:
    boto.put_object(Bucket=bucket, Key=f"{PLACE}kumo-export.json", Body=document)
    with pytest.raises(kumo_crt.FormatError, match=r"exports/one/kumo-export\.json"):
        export.inspect(url(bucket), client=s3)
