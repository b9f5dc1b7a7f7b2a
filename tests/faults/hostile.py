"""Documents that somebody else wrote, of every kind that a repository or an export has."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._coordination import _inflight, _ledger, _notices
from kumo_crt.backup._format import _configuration, _documents, _manifest, _sealing
from kumo_crt.export import _manifest as _export
from tests.backup.format import test_hostile_manifests as snapshots
from tests.backup.helpers import closed

Edit = Callable[[dict[str, Any]], object]
WHERE = "s3://bucket/document.json"
_HASH = "1f0a2b3c4d5e6f70"
_AT = "2026-11-23T06:00:00Z"
_SST = {"path": "000014.sst", "kind": "sst", "size": 100, "crc32c": "e3069283"}
_BUNDLE = "data/5a/bundle-x-1000"


@dataclass(frozen=True)
class Kind:
    """A kind of document.

    Attributes:
        name: What it is called in the summary.
        valid: One with nothing wrong with it.
        read: What reads it.
        edits: What makes a hostile one of it.
        encode: What writes it.
    """

    name: str
    valid: dict[str, Any]
    read: Callable[[bytes], object]
    edits: dict[str, Edit]
    encode: Callable[[dict[str, Any]], bytes] = lambda document: json.dumps(document).encode()

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """All hostile ones, with their names."""
        for name, edit in {**self.edits, **ANY}.items():
            document = copy.deepcopy(self.valid)
            edit(document)
            yield name, self.encode(document)
        yield from ((name, text) for name, text in TEXTS.items())
        whole = self.encode(self.valid)
        yield from ((f"the first {end} bytes", whole[:end]) for end in range(1, len(whole), 97))


def _set(**changes: object) -> Edit:
    return lambda document: document.update(changes)


def _each(**choices: list[object]) -> dict[str, Edit]:
    """Members that are each replaced by each of some values."""
    return {
        f"{name} {value!r:.30}": _set(**{name: value})
        for name, values in choices.items()
        for value in values
    }


def _without(*names: str) -> dict[str, Edit]:
    def edit(name: str) -> Edit:
        return lambda document: document.pop(name)

    return {f"no {name}": edit(name) for name in names}


def _in_first(member: str, **choices: list[object]) -> dict[str, Edit]:
    """Members of the first entry of a list that are each replaced by each of some values."""

    def edit(name: str, value: object) -> Edit:
        return lambda document: document[member][0].update({name: value})

    return {
        f"{member}[0].{name} {value!r:.30}": edit(name, value)
        for name, values in choices.items()
        for value in values
    }


_NO_TEXT: list[object] = [None, 5, [], {}, True]
_NO_LIST: list[object] = [None, 5, "x", {}, True]
_NO_NUMBER: list[object] = [None, -1, 1.0, "1", True, 1 << 70, 10**400, []]
_NO_TIME: list[object] = [None, 5, "", "2026-13-01T00:00:00Z", "9" * 100_000, "2026-11-23"]
_NO_CRC: list[object] = [None, 5, "", "E3069283", "e30692833"]
_NO_KEY: list[object] = [None, 5, "", "data/../x", "/data/1f/a", "snapshots/x.json", "a" * 100_000]

# Wrong for every kind.
ANY: dict[str, Edit] = {
    **_each(
        version=[0, 2, -1, True, "1", 1.5, None, [1], {"a": 1}, 10**4000],
        format=["", "kumo-", "kumo-something", None, 5, [], {"a": "b"}, "x" * 100_000],
        features=[["unknown"], ["packed", "unknown"], "packed", [5], {"packed": 1}, None],
    ),
    **_without("version", "format"),
}
TEXTS = {
    "nothing": b"",
    "null": b"null",
    "a number": b"5",
    "a list": b"[]",
    "a text": b'"x"',
    "NaN": b"NaN",
    "zeros": bytes(4096),
    "no UTF-8": b"\xff\xfe\xfa",
    "a page": b"<html><body>403 Forbidden</body></html>",
    "lists as deep as they go": b"[" * 200_000,
    "objects as deep as they go": b'{"a":' * 200_000,
    "closed lists as deep as they go": b"[" * 200_000 + b"]" * 200_000,
    "digits": b"9" * 100_000,
    "two documents": b"{}{}",
    "a member of a million digits": b'{"version": ' + b"9" * 1_000_000 + b"}",
}


def _packed() -> dict[str, Any]:
    document = snapshots.valid()
    part = {**_SST, "key": _BUNDLE, "offset": 0, "name": "sst-x-100.sst"}
    document["files"] += [part, {**part, "path": "000015.sst", "offset": 100}]
    document["features"] = ["packed"]
    document["objects"] = {_BUNDLE: {"size": 1000, "crc32c": "e3069283"}}
    document["total_bytes"] += 200
    return document


def _in_bundle(**changes: object) -> Edit:
    return lambda document: document["files"][3].update(changes)


def _bundle(**changes: object) -> Edit:
    return lambda document: document["objects"][_BUNDLE].update(changes)


_NO_OFFSET: list[object] = [None, -1, 901, 1 << 70, "0", 0.0, True, 50, 99]
_NO_SIZE: list[object] = [None, 99, -1, 1 << 80]
_NO_NAME: list[object] = [None, 5, "", ".x", "../x", "a/b", "a" * 401, []]
_PACKED = {
    **{f"offset {value!r:.30}": _in_bundle(offset=value) for value in _NO_OFFSET},
    **{f"name {value!r:.30}": _in_bundle(name=value) for value in _NO_NAME},
    **{f"size of a bundle {value!r:.30}": _bundle(size=value) for value in _NO_SIZE},
    **{f"CRC32C of a bundle {value!r}": _bundle(crc32c=value) for value in _NO_CRC},
    **_each(objects=[None, [], 5, {"../x": {"size": 1, "crc32c": "00000000"}}, {_BUNDLE: None}]),
    "an object that nothing is in": lambda document: document["objects"].update(
        {"data/5a/other": {"size": 1, "crc32c": "00000000"}}
    ),
    "a bundle without its feature": lambda document: document.pop("features"),
}


def _sealed() -> dict[str, Any]:
    """A manifest of an encrypted repository, as whoever has no key can read it."""
    document = snapshots.valid()
    for file in document["files"]:
        file.update(sealed_crc32c="e3069283", salt="0" * 32)
    content = bytes(_core.sealed_size(len("MANIFEST-000005\n")))
    document["files"][2].update(
        inline=base64.b64encode(content).decode(), sealed_crc32c=f"{_core.crc32c(content):08x}"
    )
    document["features"] = ["sealed"]
    return document


def _encrypted(**changes: object) -> Edit:
    return lambda document: document["encryption"].update(changes)


_NO_DIGITS: list[object] = [*_NO_TEXT, "", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"]
_ENCRYPTED = {
    **_each(encryption=[None, 5, [], {}, "x"]),
    **{f"algorithm {v!r}": _encrypted(algorithm=v) for v in [*_NO_TEXT, "", "AES", "aes-256-gcm"]},
    **{f"key_check {value!r}": _encrypted(key_check=value) for value in _NO_DIGITS},
}
_SEALED = {
    **_in_first("files", sealed_crc32c=_NO_CRC, salt=_NO_DIGITS),
    "an inline that is not sealed": lambda document: document["files"][2].update(
        inline="TUFOSUZFU1QtMDAwMDA1Cg=="
    ),
}

KINDS = [
    Kind(
        "manifest",
        snapshots.valid(),
        lambda document: _manifest.decode_snapshot(document, WHERE, snapshots.ID),
        {name: edit for name, edit, _ in snapshots.EDITS},
        closed,
    ),
    Kind(
        "manifest with bundles",
        _packed(),
        lambda document: _manifest.decode_snapshot(document, WHERE, snapshots.ID),
        _PACKED,
        closed,
    ),
    Kind(
        "sealed manifest",
        _sealed(),
        lambda document: _manifest.decode_snapshot(document, WHERE, snapshots.ID),
        _SEALED,
        closed,
    ),
    Kind(
        "configuration of an encrypted repository",
        {
            "format": "kumo-repository",
            "version": 1,
            "features": ["encrypted"],
            "repository_id": "d54ab1e3-61c4-4d0f-9b1e-0f4ed67f2f5c",
            "environment": None,
            "created_at": _AT,
            "encryption": {"algorithm": _sealing.ALGORITHM, "key_check": "0" * 32},
        },
        lambda document: _configuration.decode_config(document, WHERE),
        _ENCRYPTED,
        closed,
    ),
    Kind(
        "configuration",
        {
            "format": "kumo-repository",
            "version": 1,
            "repository_id": "d54ab1e3-61c4-4d0f-9b1e-0f4ed67f2f5c",
            "environment": "prod",
            "created_at": _AT,
        },
        lambda document: _configuration.decode_config(document, WHERE),
        {
            **_each(
                repository_id=[*_NO_TEXT, "a\nb", "\x1b[2J", "a" * 5000],
                environment=[5, [], True, {}],
                created_at=_NO_TIME,
                storage_class=[5, "", "standard", "A B", "X\r\nEvil: 1", "A" * 5000],
                sse=[5, "", "none", "AES256\r\nEvil: 1", []],
                kms_key_id=[5, [], "a\r\nb", "a" * 5000],
            ),
            **_without("repository_id", "created_at"),
        },
        closed,
    ),
    Kind(
        "lease",
        {
            "format": "kumo-lease",
            "version": 1,
            "kind": "backup",
            "tool": "a test",
            "host": "kv-7",
            "pid": 4711,
            "objects": [_HASH],
            "snapshots": [snapshots.ID],
        },
        lambda document: _inflight.decode_lease(document, WHERE),
        {
            **_each(
                kind=[*_NO_TEXT, "", "restore", "BACKUP"],
                host=[*_NO_TEXT, "a\nb", "\x1b[2J", "a" * 5000],
                pid=_NO_NUMBER,
                objects=[*_NO_LIST, [5], [""], [_HASH.upper()], [_HASH + "0"], [_HASH + "\n"]],
                snapshots=[*_NO_LIST, [5], [""], ["../x"], [snapshots.ID + "\n"], [[]]],
            ),
            **_without("kind", "host", "pid", "objects", "snapshots"),
        },
    ),
    Kind(
        "mark",
        {"format": "kumo-mark", "version": 1, "objects": [_HASH]},
        lambda document: _inflight.hashes(_documents.Reader(document, WHERE, "kumo-mark")),
        {
            **_each(objects=[*_NO_LIST, [5], [""], [_HASH[:15]], ["../../etc/passwd"], [None]]),
            **_without("objects"),
        },
    ),
    Kind(
        "notice",
        {
            "format": "kumo-damage",
            "version": 1,
            "tool": "a test",
            "damaged": [{"at": _AT, "key": "data/1f/sst-x", "kind": "checksum"}],
        },
        lambda document: _notices.decode(document, WHERE),
        {
            **_each(damaged=[*_NO_LIST, [5], [None]]),
            **_in_first("damaged", at=_NO_TIME, key=_NO_KEY, kind=_NO_TEXT),
            **_without("damaged"),
        },
    ),
    Kind(
        "ledger",
        {
            "format": "kumo-health",
            "version": 1,
            "reads": [{"at": _AT, "objects": [_HASH]}],
            "damaged": [{"at": _AT, "key": "data/1f/sst-x", "kind": "checksum"}],
            "drills": [
                {
                    "at": _AT,
                    "snapshot": snapshots.ID,
                    "column_families": {"default": {"entries": 1, "crc32c": "e3069283"}},
                }
            ],
            "failed_drills": [{"at": _AT, "snapshot": snapshots.ID, "kind": "open"}],
        },
        lambda document: _ledger.decode(document, WHERE),
        {
            **_each(
                reads=[*_NO_LIST, [5], [None], [[]]],
                damaged=[*_NO_LIST, [5], [None]],
                drills=[*_NO_LIST, [5], [None]],
                failed_drills=[5, "x", {}, [5], [None]],
            ),
            **_in_first(
                "failed_drills",
                at=_NO_TIME,
                snapshot=_NO_TEXT,
                kind=[*_NO_TEXT, "", "OPEN", "a\x1b[m", "x" * 41],
            ),
            **_in_first("reads", at=_NO_TIME, objects=[*_NO_LIST, [5], [""], ["x" * 16]]),
            **_in_first("damaged", at=_NO_TIME, key=_NO_KEY, kind=_NO_TEXT),
            **_in_first(
                "drills",
                at=_NO_TIME,
                snapshot=_NO_TEXT,
                column_families=[
                    *(None, 5, "x", []),
                    *({"a": {"entries": n, "crc32c": "e3069283"}} for n in _NO_NUMBER),
                    *({"a": {"entries": 1, "crc32c": crc}} for crc in _NO_CRC),
                ],
            ),
            **_without("reads", "damaged", "drills"),
        },
    ),
    Kind(
        "export",
        {
            "format": "kumo-export",
            "version": 1,
            "created_at": _AT,
            "encoding": "sst",
            "comparator": "leveldb.BytewiseComparator",
            "db_id": "",
            "column_family": "users",
            "start": "user:",
            "stop": {"base64": "dXNlcv8="},
            "entries": 10,
            "total_bytes": 1000,
            "files": [
                {
                    "key": "files/0123456789abcdef/000000.sst",
                    "size": 1000,
                    "crc32c": "e3069283",
                    "entries": 10,
                }
            ],
        },
        lambda document: _export.decode(document, WHERE, "s3://bucket"),
        {
            **_each(
                created_at=_NO_TIME,
                encoding=[*_NO_TEXT, "", "csv", "../sst"],
                comparator=[*_NO_TEXT, "", "rocksdb.ReverseBytewiseComparator"],
                db_id=[*_NO_TEXT, "a\nb", "a" * 5000],
                column_family=[*_NO_TEXT, "a" * 5000],
                start=[5, [], {"base64": "%"}, {"base64": 5}, {"hex": "00"}, True],
                stop=[5, [], {"base64": "%"}, {}, False],
                entries=[*_NO_NUMBER, 9],
                total_bytes=[*_NO_NUMBER, 999],
                files=[*_NO_LIST, [], [5], [None], [[]]],
            ),
            **_in_first(
                "files",
                key=[*_NO_KEY, "files/0123456789abcdef/000000.jsonl", "files/../000000.sst"],
                size=_NO_NUMBER,
                crc32c=_NO_CRC,
                entries=[*_NO_NUMBER, 0],
            ),
            "a file twice": lambda document: document.update(
                files=document["files"] * 2, entries=20, total_bytes=2000
            ),
            **_without("created_at", "encoding", "comparator", "db_id", "column_family", "files"),
        },
    ),
]
