"""JSON documents: times in them, and the CRC32C at their ends."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _census, _inflight, _ledger, _notices, _pins
from kumo_crt.backup._format import _documents
from kumo_crt.backup._format._documents import parse_time, time_text
from kumo_crt.export import ExportInfo, _manifest
from kumo_crt.export._results import ExportedFile

_PARTS = (
    ("2026", "0001", "0000", "9999", "26"),
    ("01", "1", "00", "12", "13"),
    ("01", "7", "00", "29", "30", "31", "32"),
    ("00", "7", "23", "24"),
    ("00", "59", "60", "5"),
    ("00", "59", "60", "61", "62", "5"),
)
_ODD = (
    "",
    "2026-11-23T06:00:00",
    "2026-11-23T06:00:00z",
    "2026-11-23t06:00:00Z",
    "2026-11-23 06:00:00Z",
    "2026-11-23T06:00:00.5Z",
    "2026-11-23T06:00:00+00:00",
    "2026-11-23T06:00:00Z\n",
    " 2026-11-23T06:00:00Z",
    "2026-W48-1T06:00:00Z",
    "2026-11- 3T06:00:00Z",
    "٢٠٢٦-11-23T06:00:00Z",
    "20261123T060000Z",
)


def _by_strptime(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def test_times_are_those_of_strptime() -> None:
    texts = [
        f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"
        for year, month, day, hour, minute, second in itertools.product(*_PARTS)
    ]
    for text in (*texts, *_ODD):
        assert parse_time(text) == _by_strptime(text), text


@pytest.mark.parametrize("value", [None, 0, b"2026-11-23T06:00:00Z", "2026-11-23T06:00:00Z" * 2])
def test_what_is_no_time(value: object) -> None:
    assert parse_time(value) is None


def test_a_time_of_ours_is_read_without_what_strptime_loads() -> None:
    text = time_text(datetime(2026, 11, 23, 6, tzinfo=UTC))
    program = (
        "import sys; from kumo_crt.backup._format._documents import parse_time; "
        f"print(parse_time({text!r}), '_strptime' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert answer.stdout == "2026-11-23 06:00:00+00:00 False\n"


_AT = datetime(2026, 11, 23, 6, tzinfo=UTC)
_ID = "20261123T060000Z-0a1b2c3d"
_HASHES = ["1f0a2b3c4d5e6f70", "00112233445566ff"]
_DAMAGED = {"data/1f/sst-9a-12-34-67108864.sst": _ledger.Damage(_AT, "checksum")}
_PIN = {
    "format": "kumo-pin",
    "version": 1,
    "snapshot": _ID,
    "created_at": "2026-11-23T06:00:00Z",
}


@dataclass
class Kind:
    """A kind of document: one of it, and how it is read."""

    document: bytes
    decode: Callable[[bytes], object]


def _ledgers() -> _ledger.Ledger:
    contents = {"default": _ledger.FamilyContent(4000, 0xE3069283)}
    return _ledger.Ledger(
        dict.fromkeys(_HASHES, _AT),
        _DAMAGED,
        {_ID: _ledger.Drilled(_AT, contents)},
        {_ID: _ledger.FailedDrill(_AT, "open")},
    )


def _export() -> ExportInfo:
    file = ExportedFile("files/0123456789abcdef/000000.sst", 1820, 0xE3069283, 12)
    return ExportInfo("s3://b/e", _AT, "sst", "users", "an id", b"a", b"z", 12, 1820, (file,))


_WHERE = "s3://b/key"
_KINDS = {
    "lease": Kind(
        _inflight.encode_lease("backup", "a test", "a host", 4711, _HASHES, [_ID]),
        lambda document: _inflight.decode_lease(document, _WHERE),
    ),
    "mark": Kind(
        _census.encode_mark(_HASHES), lambda document: _census.decode_mark(document, _WHERE)
    ),
    "notice": Kind(
        _notices.encode(_DAMAGED, "a test"), lambda document: _notices.decode(document, _WHERE)
    ),
    "ledger": Kind(
        _ledger.encode_ledger(_ledgers(), "an id", "a test"),
        lambda document: _ledger.decode(document, _WHERE),
    ),
    "pin": Kind(
        _documents.encode(_PIN),
        lambda document: _pins.decode_pin(document, f"s3://b/{_pins.pin_keys(_ID)[0]}"),
    ),
    "export": Kind(
        _manifest.encode(_export(), "a test"),
        lambda document: _manifest.decode(document, _WHERE, "s3://b/e"),
    ),
}


def _changed(document: bytes) -> Iterator[bytes]:
    """Each bit flipped, each byte gone, and every two neighbours that differ exchanged."""
    for at, byte in enumerate(document):
        before, after = document[:at], document[at + 1 :]
        yield from (before + bytes([byte ^ 1 << bit]) + after for bit in range(8))
        yield before + after
        if after[:1] != document[at : at + 1]:
            yield before + after[:1] + bytes([byte]) + after[1:]


@pytest.mark.parametrize("kind", _KINDS)
def test_whatever_changes_is_told(kind: str) -> None:
    document, decode = _KINDS[kind].document, _KINDS[kind].decode
    right = decode(document)
    told = 0
    for changed in _changed(document):
        try:
            # What has lost the name of its CRC32C alone reads like one of an older version.
            assert decode(changed) == right, changed
        except kumo_crt.FormatError:
            told += 1
    assert told > 9 * len(document)


@pytest.mark.parametrize("kind", _KINDS)
def test_those_of_older_versions_have_no_crc32c(kind: str) -> None:
    document, decode = _KINDS[kind].document, _KINDS[kind].decode
    older = json.loads(document)
    assert list(older)[-1] == "crc32c"
    del older["crc32c"]
    assert decode(json.dumps(older).encode()) == decode(document)


@pytest.mark.parametrize("version", [True, 1.0, "1", None, 0, 2, [1]])
def test_versions_that_are_not_known(version: object) -> None:
    document = json.dumps({"format": "kumo-mark", "version": version, "objects": _HASHES})
    with pytest.raises(kumo_crt.FormatError, match=r"field version: .* use a newer kumo_crt"):
        _census.decode_mark(document.encode(), _WHERE)
