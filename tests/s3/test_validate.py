"""Checksums of every kind that may be stored with an object, in one piece and of parts."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import kumo_crt
from tests.support.data import content, payload
from tests.support.fake_s3 import Answer, FakeS3, error_document

DATA = payload(3_000_000)
SIZES = [1_000_000, 1_500_000, 500_000]


def _bytes(value: int, width: int = 4) -> bytes:
    return value.to_bytes(width, "big")


DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "crc32c": lambda data: _bytes(kumo_crt.crc32c(data)),
    "crc32": lambda data: _bytes(zlib.crc32(data)),
    "crc64nvme": lambda data: _bytes(kumo_crt.crc64nvme(data), 8),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}
COMPOSITES = ["crc32c", "crc32", "sha1", "sha256"]


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _composite(name: str, data: bytes) -> str:
    digest = DIGESTS[name]
    parts, start = [], 0
    for size in SIZES:
        parts.append(digest(data[start : start + size]))
        start += size
    return f"{_text(digest(b''.join(parts)))}-{len(SIZES)}"


def _answer(name: str, value: str, kind: str) -> Answer:
    headers = {"ETag": '"e"', f"x-amz-checksum-{name}": value, "x-amz-checksum-type": kind}
    return Answer(body=DATA, headers=headers)


def _parts(numbers: range, *, more: bool = False) -> Answer:
    parts = "".join(
        f"<Part><PartNumber>{n}</PartNumber><Size>{SIZES[n - 1]}</Size></Part>" for n in numbers
    )
    return Answer(
        body=(
            '<GetObjectAttributesResponse xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<ObjectParts><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"<NextPartNumberMarker>{numbers[-1]}</NextPartNumberMarker>"
            f"<TotalPartsCount>3</TotalPartsCount>{parts}</ObjectParts>"
            "</GetObjectAttributesResponse>"
        ).encode()
    )


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("to_file", [False, True], ids=["memory", "file"])
def test_of_the_whole(
    fake: FakeS3, s3_fake: kumo_crt.S3Client, tmp_path: Path, name: str, to_file: bool
) -> None:
    into = tmp_path / "file" if to_file else None
    fake.script.append(_answer(name, _text(DIGESTS[name](DATA)), "FULL_OBJECT"))
    result = s3_fake.get_object("bucket", "key", into=into)
    assert result.validated == name.upper()
    fake.script.append(_answer(name, _text(DIGESTS[name](DATA + b"x")), "FULL_OBJECT"))
    with pytest.raises(kumo_crt.ChecksumMismatchError, match=f"has {name.upper()} [0-9a-f]+,"):
        s3_fake.get_object("bucket", "other", into=tmp_path / "other" if to_file else None)
    assert not (tmp_path / "other").exists()
    assert len(fake.asked) == 2


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("to_file", [False, True], ids=["memory", "file"])
def test_of_parts(
    fake: FakeS3, s3_fake: kumo_crt.S3Client, tmp_path: Path, name: str, to_file: bool
) -> None:
    into = tmp_path / "file" if to_file else None
    fake.script.extend([_answer(name, _composite(name, DATA), "COMPOSITE"), _parts(range(1, 4))])
    assert s3_fake.get_object("bucket", "key", into=into).validated == name.upper()
    asked = fake.asked[-1]
    assert (asked.method, asked.target) == ("GET", "/bucket/key?attributes")
    assert asked.headers["x-amz-object-attributes"] == "ObjectParts"
    damaged = DATA[:-1] + bytes([DATA[-1] ^ 1])
    fake.script.extend([_answer(name, _composite(name, damaged), "COMPOSITE"), _parts(range(1, 4))])
    with pytest.raises(kumo_crt.ChecksumMismatchError, match=f"composite {name.upper()}"):
        s3_fake.get_object("bucket", "other", into=tmp_path / "other" if to_file else None)
    assert not (tmp_path / "other").exists()


def test_parts_page_by_page(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    fake.script.extend(
        [
            _answer("crc32", _composite("crc32", DATA), "COMPOSITE"),
            _parts(range(1, 3), more=True),
            _parts(range(3, 4)),
        ]
    )
    assert s3_fake.get_object("bucket", "key").validated == "CRC32"
    markers = [asked.headers["x-amz-part-number-marker"] for asked in fake.asked[1:]]
    assert markers == ["0", "2"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403, error_document("AccessDenied")),
        Answer(501, error_document("NotImplemented")),
        Answer(body=b"<Whatever/>"),
        Answer(body=b"no XML"),
        _parts(range(1, 3)),
        _parts(range(1, 3), more=True),
    ],
    ids=["denied", "unknown", "else", "nonsense", "too few", "endless"],
)
def test_parts_that_are_not_told(fake: FakeS3, s3_fake: kumo_crt.S3Client, answer: Answer) -> None:
    fake.default = answer
    fake.script.append(_answer("crc32", _composite("crc32", DATA), "COMPOSITE"))
    result = s3_fake.get_object("bucket", "key")
    assert content(result) == DATA
    assert result.validated is None


def test_a_checksum_that_is_none(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    for name, value, kind in (
        ("crc32", "?", "FULL_OBJECT"),
        ("crc32", "?-3", "COMPOSITE"),
        ("sha256", "", "FULL_OBJECT"),
        ("crc32", "AAAAAA==-x", "COMPOSITE"),
    ):
        fake.script.append(_answer(name, value, kind))
        assert s3_fake.get_object("bucket", "key").validated is None
