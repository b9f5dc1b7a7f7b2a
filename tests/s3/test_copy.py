"""Copies within the service: what goes with an object, conditions, in one piece and in parts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

import kumo_crt
from kumo_crt.exceptions import NotFoundError, PreconditionFailedError
from kumo_crt.s3 import _copy
from tests.s3.conftest import PART
from tests.support.data import MIB, content, payload
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.servers import S3Server

Listed = Callable[[], list[str]]


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of more than a part go in parts, without 5 GiB."""
    monkeypatch.setattr(_copy, "MAX_SINGLE_COPY", PART)
    monkeypatch.setattr(_copy, "_PART", PART)


@pytest.fixture
def other_bucket(boto: Any) -> Iterator[str]:
    name = f"other-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=name)
    yield name
    for item in boto.list_objects_v2(Bucket=name).get("Contents", []):
        boto.delete_object(Bucket=name, Key=item["Key"])
    boto.delete_bucket(Bucket=name)


def _tags(boto: Any, bucket: str, key: str) -> dict[str, str]:
    found = boto.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in found}


KEYS = ["plain", "ünïcödé/文字 +%41&?#"]


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("key", KEYS)
def test_the_copy_is_like_the_source(
    s3: kumo_crt.S3Client, bucket: str, other_bucket: str, boto: Any, key: str
) -> None:
    data = payload(3000)
    s3.put_object(
        bucket,
        key,
        data,
        metadata={"a": "1"},
        content_type="text/x-test",
        cache_control="no-store",
        tags={"t": "ü"},
    )
    result = s3.copy_object(bucket, key, other_bucket, key + "-copy")
    assert (result.size, result.parts) == (3000, 0)
    head = s3.head_object(other_bucket, key + "-copy")
    assert head.etag == result.etag
    assert head.metadata == {"a": "1"}
    assert (head.content_type, head.cache_control) == ("text/x-test", "no-store")
    assert content(s3.get_object(other_bucket, key + "-copy")) == data
    assert _tags(boto, other_bucket, key + "-copy") == {"t": "ü"}


@pytest.mark.servers("seaweed-http")
def test_what_is_given_changes_and_the_rest_stays(
    s3: kumo_crt.S3Client, bucket: str, boto: Any
) -> None:
    s3.put_object(
        bucket,
        "key",
        b"x",
        metadata={"a": "1"},
        content_type="text/x-test",
        content_language="de",
        tags={"t": "1"},
    )
    s3.copy_object(bucket, "key", bucket, "new-type", content_type="text/other")
    head = s3.head_object(bucket, "new-type")
    assert (head.content_type, head.content_language) == ("text/other", "de")
    assert head.metadata == {"a": "1"}
    s3.copy_object(bucket, "key", bucket, "new-metadata", metadata={"b": "2"}, tags={"u": "2"})
    head = s3.head_object(bucket, "new-metadata")
    assert head.metadata == {"b": "2"}
    assert (head.content_type, head.content_language) == ("text/x-test", "de")
    assert _tags(boto, bucket, "new-metadata") == {"u": "2"}
    s3.copy_object(bucket, "key", bucket, "nothing", metadata={}, tags={})
    assert s3.head_object(bucket, "nothing").metadata == {}
    assert _tags(boto, bucket, "nothing") == {}


@pytest.mark.servers("seaweed-http")
def test_an_object_over_itself(s3: kumo_crt.S3Client, bucket: str) -> None:
    s3.put_object(bucket, "key", b"x", metadata={"a": "1"})
    s3.copy_object(bucket, "key", bucket, "key", metadata={"a": "2"})
    assert s3.head_object(bucket, "key").metadata == {"a": "2"}


@pytest.mark.servers("seaweed-http")
def test_a_version(s3: kumo_crt.S3Client, versioned_bucket: str) -> None:
    first = s3.put_object(versioned_bucket, "key", b"first")
    s3.put_object(versioned_bucket, "key", b"second")
    result = s3.copy_object(
        versioned_bucket, "key", versioned_bucket, "copy", src_version_id=first.version_id
    )
    assert result.version_id
    assert content(s3.get_object(versioned_bucket, "copy")) == b"first"


@pytest.mark.servers("seaweed-http")
def test_conditions(s3: kumo_crt.S3Client, bucket: str) -> None:
    etag = s3.put_object(bucket, "key", b"x").etag
    with pytest.raises(NotFoundError):
        s3.copy_object(bucket, "missing", bucket, "copy")
    with pytest.raises(PreconditionFailedError):
        s3.copy_object(bucket, "key", bucket, "copy", src_if_match="0" * 32)
    s3.copy_object(bucket, "key", bucket, "copy", src_if_match=etag)


@pytest.mark.servers("seaweed-http")
@pytest.mark.usefixtures("in_parts")
class TestInParts:
    def test_the_copy_is_like_the_source(
        self, s3_parts: kumo_crt.S3Client, bucket: str, boto: Any, uploads: Listed
    ) -> None:
        data = payload(2 * PART + 17)
        s3_parts.put_object(
            bucket, "key", data, metadata={"a": "1"}, content_type="text/x-test", tags={"t": "1"}
        )
        told: list[tuple[int, int]] = []
        result = s3_parts.copy_object(
            bucket, "key", bucket, "copy", progress=lambda *now: told.append(now)
        )
        assert (result.size, result.parts) == (len(data), 3)
        assert told[-1] == (len(data), len(data))
        got = s3_parts.get_object(bucket, "copy")
        assert content(got) == data
        head = s3_parts.head_object(bucket, "copy")
        assert (head.metadata, head.content_type) == ({"a": "1"}, "text/x-test")
        assert _tags(boto, bucket, "copy") == {"t": "1"}
        assert uploads() == []

    def test_a_source_that_is_replaced_meanwhile(
        self, s3_parts: kumo_crt.S3Client, bucket: str, uploads: Listed, keys: Listed
    ) -> None:
        s3_parts.put_object(bucket, "key", payload(2 * PART))
        with pytest.raises(PreconditionFailedError):
            s3_parts.copy_object(bucket, "key", bucket, "copy", src_if_match="0" * 32)
        assert uploads() == []
        assert keys() == ["key"]


def _xml(name: str, **texts: str) -> bytes:
    return f"<{name}>{''.join(f'<{k}>{v}</{k}>' for k, v in texts.items())}</{name}>".encode()


SIX_GIB = 6 * 1024**3


def _head_of(size: int, **headers: str) -> Answer:
    # No content: what a HEAD says of itself is enough for it.
    return Answer(headers={"ETag": '"e"', "Content-Length": str(size), **headers})


class TestLarge:
    """Over 5 GiB, as no test has it: against scripted answers."""

    def _script(self, fake: FakeS3, crc: str = "AAAAAA==") -> None:
        fake.script.append(_head_of(SIX_GIB, **{"x-amz-meta-a": "1", "Content-Type": "x/y"}))
        tags = b"<Tagging><TagSet><Tag><Key>t</Key><Value>1</Value></Tag></TagSet></Tagging>"
        fake.script.append(Answer(body=tags))
        fake.script.append(Answer(body=_xml("InitiateMultipartUploadResult", UploadId="up")))
        part = Answer(body=_xml("CopyPartResult", ETag='"p"', ChecksumCRC32C=crc))
        fake.script.extend([part] * 24)
        fake.script.append(Answer(body=_xml("CompleteMultipartUploadResult", ETag='"n-24"')))

    def test_ranges_and_what_goes_with_it(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        self._script(fake)
        result = s3_fake.copy_object("src-bucket", "a b", "bucket", "copy", storage_class="GLACIER")
        assert (result.size, result.parts, result.etag) == (SIX_GIB, 24, "n-24")
        head, tagging, create, *parts, complete = fake.asked
        assert (head.method, head.target) == ("HEAD", "/src-bucket/a%20b")
        assert tagging.target == "/src-bucket/a%20b?tagging"
        assert create.headers["x-amz-meta-a"] == "1"
        assert create.headers["content-type"] == "x/y"
        assert create.headers["x-amz-tagging"] == "t=1"
        assert create.headers["x-amz-storage-class"] == "GLACIER"
        assert create.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        assert {part.headers["x-amz-copy-source"] for part in parts} == {"src-bucket/a%20b"}
        assert {part.headers["x-amz-copy-source-if-match"] for part in parts} == {'"e"'}
        ranges = sorted(
            tuple(map(int, part.headers["x-amz-copy-source-range"][6:].split("-")))
            for part in parts
        )
        assert ranges[0][0] == 0
        assert ranges[-1][1] == SIX_GIB - 1
        assert all(last + 1 == first for (_, last), (first, _) in pairwise(ranges))
        assert complete.body.count(b"<ChecksumCRC32C>") == 24
        assert complete.headers["x-amz-mp-object-size"] == str(SIX_GIB)

    def test_an_error_inside_a_200(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        self._script(fake)
        fake.script.pop()
        fake.script.append(Answer(body=error_document("AccessDenied")))
        with pytest.raises(kumo_crt.S3Error, match="scripted"):
            s3_fake.copy_object("src-bucket", "key", "bucket", "copy")
        assert (fake.asked[-1].method, fake.asked[-1].target) == (
            "DELETE",
            "/bucket/copy?uploadId=up",
        )

    def test_tags_that_may_not_be_read(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.script.append(_head_of(SIX_GIB))
        fake.script.append(Answer(403, error_document("AccessDenied")))
        with pytest.raises(kumo_crt.AccessDeniedError, match=r"s3:GetObjectTagging.*tags=\{\}"):
            s3_fake.copy_object("src-bucket", "key", "bucket", "copy")

    def test_tags_that_are_none(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        """A page instead of them does not make a copy without tags."""
        fake.script.append(_head_of(SIX_GIB))
        fake.script.append(Answer(body=b"<html></html>"))
        with pytest.raises(kumo_crt.S3Error, match="the answer is a html, no Tagging"):
            s3_fake.copy_object("src-bucket", "key", "bucket", "copy")


def test_a_copy_that_differs(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    fake.script.append(
        _head_of(3, **{"x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT"})
    )
    fake.script.append(Answer(body=_xml("CopyObjectResult", ETag='"n"', ChecksumCRC32C="AAAAAQ==")))
    with pytest.raises(kumo_crt.ChecksumMismatchError, match="00000000, the copy 00000001"):
        s3_fake.copy_object("src-bucket", "key", "bucket", "copy")
    assert fake.asked[-1].headers["x-amz-metadata-directive"] == "COPY"


@pytest.mark.servers("seaweed-http")
def test_the_checksum_of_a_copy(s3: kumo_crt.S3Client, bucket: str, s3_server: S3Server) -> None:
    put = s3.put_object(bucket, "key", payload(3000))
    s3.copy_object(bucket, "key", bucket, "copy")
    head = s3.head_object(bucket, "copy")
    assert head.checksum_crc32c in (put.checksum_crc32c, None)
    assert s3.get_object(bucket, "copy").checksum_crc32c == put.checksum_crc32c


def _copied(s3: kumo_crt.S3Client, bucket: str, size: int, etag: str, **options: Any) -> None:
    source, target = (bucket, "a source/ü+?#.bin"), (bucket, "target")
    s3._run(_copy.copy_task(s3._open(), source, target, size=size, etag=etag, **options))


@pytest.mark.servers("seaweed-http", "moto")
def test_a_task_in_one_request(
    s3: kumo_crt.S3Client, s3_server: S3Server, boto: Any, bucket: str
) -> None:
    data = payload(100_000)
    etag = boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=data)["ETag"].strip('"')
    _copied(s3, bucket, len(data), etag)
    assert boto.get_object(Bucket=bucket, Key="target")["Body"].read() == data
    boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=b"other")
    if s3_server.is_strict:  # moto does not look at the condition
        with pytest.raises(kumo_crt.PreconditionFailedError):
            _copied(s3, bucket, len(data), etag)


@pytest.mark.servers("seaweed-http", "moto")
def test_a_task_in_parts(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_copy, "MAX_SINGLE_COPY", 6 * MIB)
    monkeypatch.setattr(_copy, "_PART", 5 * MIB)
    data = payload(12 * MIB)
    etag = boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=data)["ETag"].strip('"')
    _copied(s3, bucket, len(data), etag)
    assert boto.get_object(Bucket=bucket, Key="target")["Body"].read() == data
    boto.delete_object(Bucket=bucket, Key="a source/ü+?#.bin")
    with pytest.raises(kumo_crt.NotFoundError):
        _copied(s3, bucket, len(data), etag)
    assert boto.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
