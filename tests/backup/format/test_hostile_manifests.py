"""Manifests that somebody else wrote: refused by name, before anything is written."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._format import _manifest
from tests.backup.conftest import Make
from tests.backup.helpers import closed, manifest, manifest_key, replace_manifest, tree

pytestmark = pytest.mark.servers("seaweed-http")

ID = "20261123T060000Z-0a1b2c3d"
WHERE = f"s3://bucket/{ID}.json"
SST = 0
MANIFEST = 1
CURRENT = 2
Edit = Callable[[dict[str, Any]], object]


def valid() -> dict[str, Any]:
    """A manifest with nothing wrong with it."""
    current = b"MANIFEST-000005\n"
    return {
        "format": "kumo-snapshot",
        "version": 1,
        "id": ID,
        "repository_id": "d54ab1e3-61c4-4d0f-9b1e-0f4ed67f2f5c",
        "created_at": "2026-11-23T06:00:00Z",
        "db_id": "a4f7c8d2-1f0e-4f43-8a8e-2b8f1df1b111",
        "sequence_number": 5,
        "column_families": ["default"],
        "tags": {},
        "tool": "a test",
        "files": [
            {
                "path": "000012.sst",
                "kind": "sst",
                "size": 1000,
                "crc32c": "e3069283",
                "key": "data/1f/sst-x-1000.sst",
            },
            {
                "path": "MANIFEST-000005",
                "kind": "manifest",
                "size": 5000,
                "crc32c": "00000000",
                "key": "data/2f/manifest-x-5000",
            },
            {
                "path": "CURRENT",
                "kind": "current",
                "size": len(current),
                "crc32c": f"{kumo_crt.crc32c(current):08x}",
                "inline": "TUFOSUZFU1QtMDAwMDA1Cg==",
            },
        ],
        "total_bytes": 6016,
    }


def _file(index: int, **changes: object) -> Edit:
    return lambda document: document["files"][index].update(changes)


def _top(**changes: object) -> Edit:
    return lambda document: document.update(changes)


def _without(name: str, index: int | None = None) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        del (document if index is None else document["files"][index])[name]

    return edit


def _inline(content: bytes, text: str, **changes: object) -> Edit:
    crc = f"{kumo_crt.crc32c(content):08x}"

    def edit(document: dict[str, Any]) -> None:
        file = document["files"][CURRENT]
        file.update({"size": len(content), "crc32c": crc, "inline": text, **changes})

    return edit


def _duplicate(document: dict[str, Any]) -> None:
    document["files"].append(copy.deepcopy(document["files"][SST]))
    document["total_bytes"] += 1000


def _second_current(document: dict[str, Any]) -> None:
    document["files"].append(copy.deepcopy(document["files"][CURRENT]))


def _second_manifest(document: dict[str, Any]) -> None:
    extra = {**document["files"][MANIFEST], "path": "MANIFEST-000006"}
    document["files"].append(extra)


def _same_file_as_two_kinds(document: dict[str, Any]) -> None:
    document["files"].append({**document["files"][SST], "kind": "blob", "path": "000012.sst"})


def _remove(index: int) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        document["total_bytes"] -= document["files"].pop(index)["size"]

    return edit


PATHS = [
    "../000012.sst",
    "../../etc/000012.sst",
    "/etc/passwd",
    "/000012.sst",
    "sub/000012.sst",
    "sub\\000012.sst",
    "./000012.sst",
    "..",
    ".",
    "",
    " 000012.sst",
    "000012.sst ",
    "000012.sst\n",
    "000012.sst\0",
    "\x00",
    "000012\x1b.sst",
    "000012.sst\u202e",
    "٠٠٠٠١٢.sst",
    "000012.SST",
    "12.sst",
    "-00012.sst",
    "000012.sst/",
    "0" * 255 + ".sst",
    "LOCK",
    "IDENTITY",
    "CURRENT",
    ".bashrc",
    "authorized_keys",
    "con.sst",
    "\ud800.sst",
    5,
    None,
    ["000012.sst"],
    {"a": 1},
]
SIZES = [-1, 48_800_000_000_001, 1 << 63, 1 << 64, 10**400, True, False, 1000.0, "1000", None, []]
CRCS = ["", "e306928", "e30692833", "E3069283", "0xe30692", "g3069283", "e3069283\n", 5, None, []]
KINDS: list[object] = ["", "SST", "lock", "x" * 100_000, None, 5, [], {"sst": 1}]
KEYS = [
    "",
    "data",
    "data/",
    "data/1f",
    "data/1f/",
    "data/../x",
    "data/1f/../x",
    "data/1f/..",
    "data/1f/.x",
    "data/1f/a/b",
    "data//a",
    "/data/1f/a",
    "data/1F/a",
    "data/1ff/a",
    "data/1f/a b",
    "data/1f/a\n",
    "data/1f/a%2fb",
    "data/1f/" + "a" * 401,
    "snapshots/1f/a",
    f"snapshots/{ID}.json",
    "kumo-repository.json",
    "../other/data/1f/a",
    "s3://bucket/data/1f/a",
    5,
    True,
    ["data/1f/a"],
]

EDITS: list[tuple[str, Edit, str]] = [
    *((f"path {p!r:.40}", _file(SST, path=p), "files[0].path") for p in PATHS),
    *((f"size {s!r:.40}", _file(SST, size=s), "files[0].size") for s in SIZES),
    *((f"crc32c {c!r}", _file(SST, crc32c=c), "files[0].crc32c") for c in CRCS),
    *((f"key {k!r:.40}", _file(SST, key=k), "files[0].key") for k in KEYS),
    *((f"kind {k!r:.40}", _file(SST, kind=k), "files[0].kind") for k in KINDS),
    ("kind of another file", _file(SST, kind="blob"), "files[0].path"),
    ("kind and path of another", _file(SST, kind="config"), "files[0].path"),
    ("neither key nor inline", _without("key", SST), "files[0]"),
    ("key and inline", _file(CURRENT, key="data/1f/x"), "files[2]"),
    ("inline of an SST's size", _file(CURRENT, size=17), "files[2].inline"),
    ("inline with another CRC32C", _file(CURRENT, crc32c="00000000"), "files[2].inline"),
    ("inline is no base64", _inline(b"", "%%%"), "files[2].inline"),
    ("inline is not ASCII", _inline(b"", "ü" * 4), "files[2].inline"),
    ("inline with line breaks", _inline(b"a" * 3, "YW\nFh"), "files[2].inline"),
    ("inline is no text", _inline(b"", "", inline=[]), "files[2].inline"),
    ("inline is too large", _inline(b"\0" * 4098, "A" * 5464), "files[2].inline"),
    ("inline is huge", _inline(b"", "A" * 1_000_000), "files[2].inline"),
    ("CURRENT names another", _inline(b"MANIFEST-000006\n", "TUFOSUZFU1QtMDAwMDA2Cg=="), "files"),
    ("CURRENT is empty", _inline(b"", ""), "files"),
    ("the same file twice", _duplicate, "files[3].path"),
    ("the same file as two kinds", _same_file_as_two_kinds, "files[3].path"),
    ("CURRENT twice", _second_current, "files[3].path"),
    ("two MANIFESTs", _second_manifest, "files"),
    ("no CURRENT", _remove(CURRENT), "files"),
    ("no MANIFEST", _remove(MANIFEST), "files"),
    ("files is an object", _top(files={}), "files"),
    ("files is null", _top(files=None), "files"),
    ("no files", _top(files=[]), "files"),
    ("a file is a text", _top(files=["000012.sst"]), "files[0]"),
    ("a file is null", _top(files=[None]), "files[0]"),
    ("a file is a list", _top(files=[[]]), "files[0]"),
    ("another total", _top(total_bytes=6015), "total_bytes"),
    ("a negative total", _top(total_bytes=-1), "total_bytes"),
    ("a total that is no number", _top(total_bytes="6016"), "total_bytes"),
    ("a fractional total", _top(total_bytes=6016.0), "total_bytes"),
    ("another id", _top(id="20261123T060000Z-0a1b2c3e"), "id"),
    ("an id that is a path", _top(id="../../x"), "id"),
    ("an id that is a number", _top(id=5), "id"),
    ("version 2", _top(version=2), "version"),
    ("version 0", _top(version=0), "version"),
    ("version true", _top(version=True), "version"),
    ("version '1'", _top(version="1"), "version"),
    ("version 1.5", _top(version=1.5), "version"),
    ("version null", _top(version=None), "version"),
    ("a version of many digits", _top(version=10**4000), "version"),
    ("another format", _top(format="kumo-repository"), "format"),
    ("a format that is a list", _top(format=[]), "format"),
    ("a negative sequence number", _top(sequence_number=-1), "sequence_number"),
    ("a huge sequence number", _top(sequence_number=1 << 56), "sequence_number"),
    ("a sequence number that is true", _top(sequence_number=True), "sequence_number"),
    ("families is a text", _top(column_families="default"), "column_families"),
    ("families are numbers", _top(column_families=[1]), "column_families"),
    ("tags is a list", _top(tags=[]), "tags"),
    ("tags are numbers", _top(tags={"a": 1}), "tags"),
    ("no time", _top(created_at=5), "created_at"),
    ("another time", _top(created_at="2026-13-23T06:00:00Z"), "created_at"),
    ("year zero", _top(created_at="0000-01-01T00:00:00Z"), "created_at"),
    ("db_id with a line break", _top(db_id="a\nb"), "db_id"),
    ("db_id of control characters", _top(db_id="\x1b[2J"), "db_id"),
    ("a huge db_id", _top(db_id="a" * 5000), "db_id"),
    ("uploaded is negative", _top(uploaded_bytes=-1), "uploaded_bytes"),
    ("reused is a text", _top(reused_bytes="0"), "reused_bytes"),
    *(
        (f"no {name}", _without(name), name)
        for name in valid()
        if name not in ("tool", "repository_id")
    ),
    *(
        (f"no {name}", _without(name, SST), f"files[0].{name}")
        for name in ("path", "kind", "size", "crc32c")
    ),
]


def _refused(document: bytes, field: str | None) -> kumo_crt.FormatError:
    with pytest.raises(kumo_crt.FormatError) as caught:
        _manifest.decode_snapshot(document, WHERE, ID)
    message = str(caught.value)
    assert message.startswith(WHERE)
    if field:
        assert message.startswith(f"{WHERE}, field {field}: "), message
    # It goes to a terminal and to logs.
    assert len(message) < 500
    assert message.isprintable()
    return caught.value


def test_the_valid_one_is_accepted() -> None:
    snapshot = _manifest.decode_snapshot(closed(valid()), WHERE, ID)
    assert snapshot.total_bytes == 6016
    assert [file.path for file in snapshot.files] == ["000012.sst", "MANIFEST-000005", "CURRENT"]


@pytest.mark.parametrize(("edit", "field"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_refused_with_the_field(edit: Edit, field: str) -> None:
    document = valid()
    edit(document)
    _refused(closed(document), field)


def test_truncated_anywhere() -> None:
    whole = closed(valid())
    for end in range(0, len(whole), 10):
        _refused(whole[:end], None)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"true",
        b"5",
        b'"text"',
        b"[]",
        b"NaN",
        b"Infinity",
        b"\0",
        b"\0" * 1000,
        b"\xff\xfe\xfa",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 5000,
        b"<html>403</html>",
        b'{"format": "kumo-snapshot", "version": 1} trailing',
    ],
    ids=lambda document: repr(document[:20]),
)
def test_not_even_an_object(document: bytes) -> None:
    _refused(document, None)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000, "1e400"])
@pytest.mark.parametrize("field", ["total_bytes", "sequence_number", "size", "version"])
def test_numbers_that_json_can_hold_and_files_cannot(number: str, field: str) -> None:
    text = re.sub(rf'"{field}": \d+', f'"{field}": {number}', json.dumps(valid()), count=1)
    assert number in text
    _refused(_manifest.close_document(text.encode()), None)


@pytest.mark.parametrize("spoilt", [b"\xff", b"\xed\xa0\x80", b"\0", b"\x1f", b"\xc0\x80"])
def test_bytes_that_are_no_text(spoilt: bytes) -> None:
    text = json.dumps(valid()).encode().replace(b"000012", b"0000" + spoilt)
    _refused(_manifest.close_document(text), None)


@pytest.mark.parametrize("field", ["version", "files", "tags", "total_bytes", "id", "kind"])
def test_nested_as_deep_as_json_goes(field: str) -> None:
    text = json.dumps(valid())
    for depth in range(300, 1200, 7):
        nested = "[" * depth + "]" * depth
        if field == "kind":
            document = text.replace('"kind": "sst"', f'"kind": {nested}', 1)
        else:
            document = json.dumps({**valid(), field: "@"}).replace('"@"', nested)
        _refused(_manifest.close_document(document.encode()), None)


@pytest.mark.parametrize(
    "edit",
    [
        _file(SST, path="../000012.sst"),
        _file(SST, path="/tmp/000012.sst"),
        _file(SST, key="data/../kumo-repository.json"),
        _file(SST, size=-1),
        _top(version=2),
        _duplicate,
    ],
    ids=["traversal", "absolute", "key", "size", "version", "duplicate"],
)
def test_nothing_is_written(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    edit: Edit,
) -> None:
    snapshot = repository.backup(make("plain"))
    document = manifest(boto, bucket, snapshot)
    document["files"].sort(key=lambda file: -file["size"])
    edit(document)
    replace_manifest(boto, bucket, snapshot, closed(document))
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    before = tree(tmp_path)
    for call in (
        lambda: repository.restore(target),
        lambda: repository.restore(target, dry_run=True),
        lambda: repository.snapshot(),
        lambda: repository.snapshots(),
    ):
        with pytest.raises(kumo_crt.FormatError, match=re.escape(manifest_key(snapshot))):
            call()
    report = repository.verify(level="quick")
    assert not report.ok
    assert [(problem.kind, problem.key) for problem in report.problems] == [
        ("manifest", manifest_key(snapshot))
    ]
    assert tree(tmp_path) == before
    # Old damage does not keep a new backup from being made.
    assert repository.verify(repository.backup(tmp_path / "plain").id, level="full").ok
