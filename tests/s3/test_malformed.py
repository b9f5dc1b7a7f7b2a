"""Answers that are cut at any byte, or do not fit the question: never less content, or other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

BODY = b"0123456789"


@pytest.fixture
def client(fake: FakeS3) -> Iterator[kumo_crt.S3Client]:
    """One that asks once."""
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        access_key_id="AKEXAMPLE",
        secret_access_key="example-secret",
        max_attempts=1,
        part_size=PART,
    ) as running:
        yield running


def raw(head: str, body: bytes = BODY) -> Answer:
    """An answer, byte for byte; its lines as they are given."""
    lines = "".join(f"{line.strip()}\r\n" for line in head.strip().splitlines())
    return Answer(raw=lines.encode() + b"Connection: close\r\n\r\n" + body)


RANGES = {
    "none": "Content-Length: 10",
    "no range": "Content-Range: bytes */100\nContent-Length: 10",
    "no numbers": "Content-Range: bytes x-y/z\nContent-Length: 10",
    "another unit": "Content-Range: lines 10-19/100\nContent-Length: 10",
    "another start": "Content-Range: bytes 11-20/100\nContent-Length: 10",
    "the beginning": "Content-Range: bytes 0-9/100\nContent-Length: 10",
    "a longer one than came": "Content-Range: bytes 10-29/100\nContent-Length: 10",
    "a shorter one than came": "Content-Range: bytes 10-14/100\nContent-Length: 10",
    "backwards": "Content-Range: bytes 19-10/100\nContent-Length: 10",
    "beyond the end": "Content-Range: bytes 10-19/15\nContent-Length: 10",
    "beyond numbers": f"Content-Range: bytes 10-{'9' * 400}/{'9' * 401}\nContent-Length: 10",
    "negative": "Content-Range: bytes 10--19/100\nContent-Length: 10",
}


class TestRanges:
    """Each sink, as each gets its bytes before anybody looks at the headers' sense."""

    @pytest.mark.parametrize("headers", RANGES.values(), ids=list(RANGES))
    def test_that_were_not_asked_for(
        self, fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, headers: str
    ) -> None:
        fake.default = raw(f'HTTP/1.1 206 Partial Content\nETag: "0"\n{headers}')
        for into in (None, bytearray(10), tmp_path / "file"):
            with pytest.raises(kumo_crt.TransportError):
                client.get_object("bucket", "key", into=into, range=(10, 20))
        assert list(tmp_path.iterdir()) == []

    def test_the_whole_instead(
        self, fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path
    ) -> None:
        fake.default = raw('HTTP/1.1 200 OK\nETag: "0"\nContent-Length: 10')
        for into in (None, bytearray(10), tmp_path / "file"):
            with pytest.raises(kumo_crt.TransportError):
                client.get_object("bucket", "key", into=into, range=(0, 5))
        assert list(tmp_path.iterdir()) == []

    def test_more_than_was_asked_for(
        self, fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path
    ) -> None:
        fake.default = raw(
            'HTTP/1.1 206 OK\nETag: "0"\nContent-Range: bytes 10-19/100\nContent-Length: 10'
        )
        for into in (None, bytearray(10), tmp_path / "file"):
            with pytest.raises(kumo_crt.TransportError, match="10 bytes came where 5 were asked"):
                client.get_object("bucket", "key", into=into, range=(10, 15))
        assert list(tmp_path.iterdir()) == []

    def test_less_is_fetched_or_refused(self, fake: FakeS3, client: kumo_crt.S3Client) -> None:
        head = 'HTTP/1.1 206 OK\nETag: "0"\n'
        first = raw(head + "Content-Range: bytes 10-15/100\nContent-Length: 6", BODY[:6])
        fake.script.append(first)
        with pytest.raises(kumo_crt.TransportError, match="6 bytes came where 10 were asked"):
            client.get_object("bucket", "key", range=(10, 20))
        fake.script.append(first)
        fake.script.append(
            raw(head + "Content-Range: bytes 16-19/100\nContent-Length: 4", BODY[6:])
        )
        buffer = bytearray(10)
        client.get_object("bucket", "key", into=buffer, range=(10, 20))
        assert buffer == BODY
        assert fake.asked[2].headers["range"] == "bytes=16-19"

    @pytest.mark.parametrize("said", [3, 10], ids=["of less", "of more"])
    def test_a_cut_one_of_another_length(
        self, fake: FakeS3, client: kumo_crt.S3Client, said: int
    ) -> None:
        """The memory that an answer announces is not what is handed out, without its content."""

        def part(start: int, stop: int, total: int, announced: int) -> Answer:
            return raw(
                f'HTTP/1.1 206 OK\nETag: "0"\nContent-Length: {announced}\n'
                f"Content-Range: bytes {start}-{stop - 1}/{total}",
                bytes(stop - start),
            )

        # Three parts are asked for, and the answer is longer.
        fake.script.append(part(0, said * PART, said * PART, 10 * PART))
        for start in (PART, 2 * PART):
            fake.script.append(part(start, start + PART, said * PART, PART))
        with pytest.raises(kumo_crt.TransportError, match=f"{10 * PART} bytes came"):
            client.get_object("bucket", "key", range=(0, 3 * PART))

    @pytest.mark.parametrize(
        "second",
        [
            f'ETag: "0"\nContent-Range: bytes 0-{PART - 1}/{3 * PART}',
            f'ETag: "another"\nContent-Range: bytes {PART}-{2 * PART - 1}/{3 * PART}',
            'ETag: "0"',
        ],
        ids=["the first once more", "of another object", "without a range"],
    )
    def test_of_a_later_part(
        self, fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, second: str
    ) -> None:
        head = f"HTTP/1.1 206 OK\nContent-Length: {PART}\n"
        first = f'ETag: "0"\nContent-Range: bytes 0-{PART - 1}/{3 * PART}'
        data = payload(PART)
        buffer = bytearray(3 * PART)
        for into in (buffer, tmp_path / "file"):
            fake.script.append(raw(head + first, data))
            fake.default = raw(head + second, data)
            with pytest.raises(kumo_crt.TransportError) as caught:
                client.get_object("bucket", "key", into=into, range=(0, 3 * PART))
            if into is buffer:
                assert caught.value.valid_bytes == PART
                assert buffer[:PART] == data
        assert list(tmp_path.iterdir()) == []


LENGTHS = {
    "too long": "Content-Length: 11",
    "no number": "Content-Length: ten",
    "negative": "Content-Length: -10",
    "two": "Content-Length: 10\nContent-Length: 5",
    "beyond 64 bits": "Content-Length: 99999999999999999999999",
    "beyond memory": f"Content-Length: {2**62}",
    "none": "",
    "a chunk that is none": "Transfer-Encoding: chunked",
}


@pytest.mark.parametrize("headers", LENGTHS.values(), ids=list(LENGTHS))
def test_lengths_that_are_wrong(
    fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, headers: str
) -> None:
    fake.default = raw(f'HTTP/1.1 200 OK\nETag: "0"\n{headers}')
    for into in (None, bytearray(10), tmp_path / "file"):
        with pytest.raises(kumo_crt.KumoError):
            client.get_object("bucket", "key", into=into)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "gzip, chunked", "gzip\nTransfer-Encoding: chunked"]
)
def test_a_coding_that_was_not_asked_for(
    fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, coding: str
) -> None:
    """Neither what is compressed nor nothing is the content."""
    body = b"a\r\n" + BODY + b"\r\n0\r\n\r\n" if "chunked" in coding else BODY
    fake.default = raw(f'HTTP/1.1 200 OK\nETag: "0"\nTransfer-Encoding: {coding}', body)
    for into in (None, bytearray(10), tmp_path / "file"):
        with pytest.raises(kumo_crt.TransportError, match="transfer encoding that was not asked"):
            client.get_object("bucket", "key", into=into)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "head",
    [
        "206 Partial Content\nContent-Range: bytes 0-9/100\nContent-Length: 10",
        "206 Partial Content\nContent-Length: 10",
        "203 Non-Authoritative Information\nContent-Length: 10",
        "204 No Content",
    ],
)
def test_no_whole_object(
    fake: FakeS3, client: kumo_crt.S3Client, tmp_path: Path, head: str
) -> None:
    """A part, or nothing, where everything was asked for."""
    fake.default = raw(f'HTTP/1.1 {head}\nETag: "0"', b"" if head.startswith("204") else BODY)
    for into in (None, bytearray(10), tmp_path / "file"):
        with pytest.raises(kumo_crt.TransportError, match="where the whole object was asked for"):
            client.get_object("bucket", "key", into=into)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_not_told(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    """As where something between takes it away: the object is not empty for that."""
    fake.default = raw('HTTP/1.1 200 OK\nETag: "0"', b"")
    with pytest.raises(kumo_crt.TransportError, match="did not say how long"):
        client.head_object("bucket", "key")


@pytest.mark.parametrize("status", [200, 403, 503])
def test_numbers_and_dates_without_sense(
    fake: FakeS3, client: kumo_crt.S3Client, status: int
) -> None:
    """Neither an answer's nor an error's break anything, now or later."""
    document = b"" if status == 200 else error_document("AccessDenied")
    wrong = {
        "Retry-After": "9" * 6000,
        "Date": "Sun, 06 Nov 0001 08:49:37 GMT",
        "Last-Modified": "Sun, 99 Nov 9999 08:49:37 GMT",
        "x-amz-mp-parts-count": "9" * 6000,
    }
    fake.default = Answer(status, document, {"ETag": '"0"', **wrong})
    if status == 200:
        assert client.get_object("bucket", "key").last_modified is None
    else:
        with pytest.raises(kumo_crt.S3Error):
            client.get_object("bucket", "key")
    fake.default = Answer(200, BODY, {"ETag": '"0"'})
    assert content(client.get_object("bucket", "key")) == BODY


_ANYTHING = Answer(200, b"<html><body>Please log in</body></html>", {"ETag": '"0"'})
_ASKING: dict[str, Callable[[kumo_crt.S3Client], object]] = {
    "list_objects": lambda client: list(client.list_objects("bucket")),
    "list_object_versions": lambda client: list(client.list_object_versions("bucket")),
    "list_multipart_uploads": lambda client: list(client.list_multipart_uploads("bucket")),
    "delete_objects": lambda client: client.delete_objects("bucket", ["key"]),
    "get_bucket_versioning": lambda client: client.get_bucket_versioning("bucket"),
}


@pytest.mark.parametrize("ask", _ASKING.values(), ids=list(_ASKING))
def test_another_document(
    fake: FakeS3, client: kumo_crt.S3Client, ask: Callable[[kumo_crt.S3Client], object]
) -> None:
    """A page that something between us and the service answers with is no empty listing."""
    fake.default = _ANYTHING
    with pytest.raises(kumo_crt.S3Error, match="the answer is a html, no"):
        ask(client)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.put_object("bucket", "key", BODY),
        lambda client: client.get_object("bucket", "key"),
        lambda client: client.get_object("bucket", "key", into=bytearray(100)),
        lambda client: client.head_object("bucket", "key"),
    ],
    ids=["put_object", "get_object", "get_object into", "head_object"],
)
def test_a_page_where_an_object_is_meant(
    fake: FakeS3, client: kumo_crt.S3Client, ask: Callable[[kumo_crt.S3Client], object]
) -> None:
    """A login page, say: S3 tells the ETag of what it has."""
    fake.script.append(raw("HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 10"))
    with pytest.raises(kumo_crt.S3Error, match="the answer has no ETag") as caught:
        ask(client)
    assert caught.value.code == "MalformedResponse"


_TOO_MUCH = (64 << 20) + 1
ENDLESS = {
    "announced": (f"Content-Length: {_TOO_MUCH}", bytes(1 << 20)),
    "chunked": ("Transfer-Encoding: chunked", b"%x\r\n%s" % (_TOO_MUCH, bytes(_TOO_MUCH))),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_document_that_is_too_long_for_one(
    fake: FakeS3, client: kumo_crt.S3Client, name: str
) -> None:
    """It is not read into memory to its end, which may never come."""
    head, body = ENDLESS[name]
    fake.default = raw(f"HTTP/1.1 200 OK\n{head}", body)
    with pytest.raises(kumo_crt.TransportError, match="more than 67108864 bytes, where S3 sends"):
        client.get_bucket_versioning("bucket")


def test_another_document_at_the_end_of_an_upload(fake: FakeS3, client: kumo_crt.S3Client) -> None:
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    part = Answer(headers={"ETag": '"0"'})
    fake.script.extend([Answer(body=begun), *[part] * 4])
    fake.default = _ANYTHING
    body = payload(4 * PART)
    with pytest.raises(kumo_crt.S3Error, match="no CompleteMultipartUploadResult"):
        client.put_object("bucket", "key", body)
    assert fake.asked[-1].method == "DELETE"


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_cut_at_every_byte(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, method: str
) -> None:
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, max_attempts=1, part_size=PART, multipart_threshold=PART
    )
    cut = 0
    with kumo_crt.S3Client(**arguments) as client:
        client.put_object(bucket, "key", BODY)
        while True:
            fault = Fault("close", offset=cut, method=method, target="/key", in_head=True)
            with proxy.armed(fault):
                try:
                    if method == "GET":
                        result = client.get_object(bucket, "key")
                        assert content(result) == BODY
                    elif method == "PUT":
                        client.put_object(bucket, "key", BODY)
                    else:  # the completion's answer would take parts: the beginning's will do
                        client.put_object(bucket, "key-of-parts", payload(PART + 1))
                except kumo_crt.TransportError:
                    cut += 1
                else:
                    # All had come when the connection was closed.
                    break
            assert cut < 2000
    assert cut > 200
