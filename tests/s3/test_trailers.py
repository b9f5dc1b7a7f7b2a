"""Checksums behind the body: what goes over the wire, and who is trusted with it."""

from __future__ import annotations

import base64
import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.support.fake_s3 import Answer, Asked, FakeS3, error_document
from tests.support.servers import S3Server

PART = 5 << 20
LEAST = 1 << 20
CREATED = Answer(
    body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
)
DONE = Answer(
    body=b'<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>'
)
SILENT = Answer(headers={"ETag": '"p"'})


def encoded(data: bytes | memoryview) -> str:
    return base64.b64encode(kumo_crt.crc32c(data).to_bytes(4, "big")).decode()


def confirming(data: bytes | memoryview) -> Answer:
    return Answer(headers={"ETag": '"p"', "x-amz-checksum-crc32c": encoded(data)})


def framed(data: bytes | memoryview) -> bytes:
    """As the S3 documentation on trailing checksums has it, written down once more."""
    return b"%x\r\n%b\r\n0\r\nx-amz-checksum-crc32c:%b\r\n\r\n" % (
        len(data),
        bytes(data),
        encoded(data).encode(),
    )


def is_trailing(asked: Asked) -> bool:
    return asked.headers.get("x-amz-trailer") == "x-amz-checksum-crc32c"


@pytest.fixture
def client(fake: FakeS3) -> Iterator[kumo_crt.S3Client]:
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        access_key_id="AKEXAMPLE",
        secret_access_key="example-secret",
        part_size=PART,
        multipart_threshold=PART,
        max_connections=1,
        max_attempts=2,
    ) as made:
        yield made


def learn(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    """Lets the client find out that the service knows trailers."""
    data = os.urandom(PART + LEAST)
    fake.script.extend([CREATED, confirming(data[:PART]), confirming(data[PART:]), DONE])
    client.put_object("bucket", "first", data)
    fake.asked.clear()


def test_parts_on_the_wire(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    data = os.urandom(PART + LEAST)
    parts = [memoryview(data)[:PART], memoryview(data)[PART:]]
    fake.script.extend([CREATED, *map(confirming, parts), DONE])
    result = client.put_object("bucket", "key", data)
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    for asked, part in zip(fake.asked[1:3], parts, strict=True):
        assert asked.body == framed(part)
        assert asked.headers["content-encoding"] == "aws-chunked"
        assert asked.headers["x-amz-decoded-content-length"] == str(len(part))
        assert asked.headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert "x-amz-checksum-crc32c" not in asked.headers
        signed = asked.headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
        assert {"x-amz-trailer", "x-amz-decoded-content-length"} <= set(signed.split(";"))


# Around the messages of 16 KiB and 256 KiB that bodies are sent in, and the 32 KiB that are copied.
@pytest.mark.parametrize("more", [0, 1, 100, 32_767, 32_768, 262_100, 262_144, 262_143 - 600])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_bodies_of_any_length(
    fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, more: int, kind: str
) -> None:
    learn(fake, client)
    data = os.urandom(LEAST + more)
    (tmp_path / "file").write_bytes(data)
    fake.script.append(confirming(data))
    client.put_object("bucket", "key", data if kind == "memory" else tmp_path / "file")
    assert fake.asked[0].body == framed(data)


def test_small_bodies_have_it_before_them(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    learn(fake, client)
    data = os.urandom(LEAST - 1)
    fake.script.append(SILENT)
    client.put_object("bucket", "key", data)
    assert fake.asked[0].headers["x-amz-checksum-crc32c"] == encoded(data)
    assert fake.asked[0].body == data


def test_objects_are_not_tried_out(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    client.put_object("bucket", "key", os.urandom(LEAST))
    assert not is_trailing(fake.asked[0])


def test_a_content_encoding_of_ones_own_stays_alone(
    fake: FakeS3, client: kumo_crt.S3Client
) -> None:
    learn(fake, client)
    client.put_object("bucket", "key", os.urandom(LEAST), content_encoding="zstd")
    assert not is_trailing(fake.asked[0])
    assert fake.asked[0].headers["content-encoding"] == "zstd"


@pytest.mark.parametrize(
    "answer",
    [
        SILENT,
        Answer(headers={"ETag": '"p"', "x-amz-checksum-crc32c": encoded(b"the frame too")}),
        Answer(400, error_document("InvalidRequest")),
        Answer(403, error_document("SignatureDoesNotMatch")),
        Answer(501, error_document("NotImplemented")),
    ],
    ids=["silent", "another", "400", "403", "501"],
)
def test_who_does_not_know_them(fake: FakeS3, client: kumo_crt.S3Client, answer: Answer) -> None:
    data = os.urandom(PART + LEAST)
    fake.script.extend([CREATED, answer, SILENT, SILENT, DONE])
    client.put_object("bucket", "key", data)
    tried, again, second = fake.asked[1:4]
    assert [is_trailing(asked) for asked in (tried, again, second)] == [True, False, False]
    assert again.target == tried.target
    assert again.body + second.body == data
    assert again.headers["x-amz-checksum-crc32c"] == encoded(data[:PART])
    assert client.metrics()["retries"] == {}


def test_one_part_finds_out(fake: FakeS3) -> None:
    data = os.urandom(4 * PART)
    fake.script.append(CREATED)
    fake.default = SILENT
    with (
        kumo_crt.S3Client(
            "us-east-1",
            fake.endpoint_url,
            anonymous=True,
            part_size=PART,
            multipart_threshold=PART,
            max_connections=4,
        ) as s3,
        pytest.raises(kumo_crt.S3Error),
    ):  # no document in the answer that ends it
        s3.put_object("bucket", "key", data)
    parts = [asked for asked in fake.asked if "partNumber" in asked.target]
    assert len(parts) == 5
    assert sum(map(is_trailing, parts)) == 1


def test_who_refuses_either_way(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    fake.default = Answer(403, error_document("AccessDenied"))
    fake.script.append(CREATED)
    with pytest.raises(kumo_crt.AccessDeniedError):
        client.put_object("bucket", "key", os.urandom(PART + 1))
    assert [is_trailing(asked) for asked in fake.asked[1:3]] == [True, False]
    fake.default = SILENT
    fake.script.append(CREATED)
    fake.asked.clear()
    with pytest.raises(kumo_crt.S3Error):  # no document in the answer that ends it
        client.put_object("bucket", "key", os.urandom(PART + LEAST))
    assert is_trailing(fake.asked[1])  # that was not what was refused


def test_who_knew_them_and_refuses(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    learn(fake, client)
    fake.default = Answer(403, error_document("AccessDenied"))
    fake.script.append(CREATED)
    with pytest.raises(kumo_crt.AccessDeniedError):
        client.put_object("bucket", "key", os.urandom(PART + LEAST))
    assert all(is_trailing(asked) for asked in fake.asked if "partNumber" in asked.target)


def test_an_object_that_is_not_confirmed(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    learn(fake, client)
    data = os.urandom(LEAST)
    fake.script.append(SILENT)
    with pytest.raises(kumo_crt.ChecksumMismatchError, match="does not confirm"):
        client.put_object("bucket", "key", data)
    client.put_object("bucket", "key", data)
    assert [is_trailing(asked) for asked in fake.asked] == [True, False]


def test_an_answer_that_was_lost(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    """The object is there: the first try had succeeded, and the second is refused at once."""
    learn(fake, client)
    data = os.urandom(LEAST)
    stored = {"Content-Length": str(len(data)), "ETag": '"e"'}
    handle = fake._handle

    def answer(handler: Any) -> None:
        if handler.command == "HEAD":
            sent = fake.asked[0].headers
            stored["x-amz-meta-kumo-attempt"] = sent["x-amz-meta-kumo-attempt"]
            stored["x-amz-checksum-crc32c"] = encoded(data)
        handle(handler)

    fake._handle = answer  # type: ignore[method-assign]
    fake.script.extend(
        [
            Answer(500, error_document("InternalError")),
            Answer(412, error_document("PreconditionFailed")),
            Answer(headers=stored),
        ]
    )
    result = client.put_object("bucket", "key", data, if_none_match="*")
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    assert [asked.method for asked in fake.asked] == ["PUT", "PUT", "HEAD"]


def test_switched_off(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUMO_CRT_CHECKSUM_TRAILERS", "0")
    data = os.urandom(PART + 1)
    fake.script.extend([CREATED, SILENT, SILENT, DONE])
    with kumo_crt.S3Client(
        "us-east-1", fake.endpoint_url, anonymous=True, part_size=PART, multipart_threshold=PART
    ) as s3:
        s3.put_object("bucket", "key", data)
    assert not any(is_trailing(asked) for asked in fake.asked)
    monkeypatch.setenv("KUMO_CRT_CHECKSUM_TRAILERS", "maybe")
    with pytest.raises(ValueError, match="KUMO_CRT_CHECKSUM_TRAILERS='maybe': expected 0 or 1"):
        kumo_crt.S3Client("us-east-1", fake.endpoint_url, anonymous=True)


def test_nothing_is_kept_by_a_cycle(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    """At the process's exit, somebody would have to wait for it."""
    gc.collect()
    gc.disable()
    try:
        learn(fake, client)
        kept = weakref.ref(client._open().trailers)
        client.close()
        assert kept() is None
    finally:
        gc.enable()


def test_aws_needs_no_trying_out() -> None:
    from kumo_crt._config import resolve
    from kumo_crt.s3._trailers import Trailers

    def objects(url: str | None) -> bool:
        return Trailers(resolve("us-east-1", url, anonymous=True)).for_object(LEAST)

    assert objects(None)
    assert objects("https://s3.eu-central-1.amazonaws.com")
    assert not objects("https://s3.amazonaws.com.example.org")
    assert not objects("https://notamazonaws.com")


def put_all(s3_server: S3Server, bucket: str, directory: Path) -> dict[str, bytes]:
    data = os.urandom(2 * PART + LEAST)
    (directory / "file").write_bytes(data)
    expected = {"memory": data, "file": data, "one": data[:PART]}
    with kumo_crt.S3Client(
        **s3_server.client_arguments(), part_size=PART, multipart_threshold=PART
    ) as s3:
        for name, content in expected.items():
            body = directory / "file" if name == "file" else content
            sent = s3.put_object(bucket, name, body)
            assert sent.checksum_crc32c == kumo_crt.crc32c(content)
    return expected


def test_others_read_what_was_sent(
    s3_server: S3Server, bucket: str, boto: Any, tmp_path: Path
) -> None:
    for name, content in put_all(s3_server, bucket, tmp_path).items():
        assert boto.get_object(Bucket=bucket, Key=name)["Body"].read() == content


@pytest.mark.servers("seaweed-http", "seaweed-https")  # moto knows no CRC32C of several parts
def test_what_was_sent_is_read(
    s3_server: S3Server, bucket: str, s3: kumo_crt.S3Client, tmp_path: Path
) -> None:
    for name, content in put_all(s3_server, bucket, tmp_path).items():
        got = s3.get_object(bucket, name)
        assert bytes(got.body or b"") == content
        assert got.validated == "CRC32C"
        assert got.content_encoding is None
        assert s3.head_object(bucket, name).content_encoding is None
