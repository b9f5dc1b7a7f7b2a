"""Answers that come before the request is whole, and what is left of an operation behind them."""

from __future__ import annotations

import tempfile
import time
from http.server import BaseHTTPRequestHandler
from typing import IO

import pytest

import kumo_crt
from kumo_crt import _core
from kumo_crt._engine import Call
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.http_service import HttpService

# More than the two ends of a connection keep between them.
BODY = bytes(24 << 20)


class Hasty(HttpService):
    """Answers when it has the headers; reads the body behind that, or never."""

    def __init__(self, answer: bytes, drain: bool = False) -> None:
        super().__init__()
        self.answer = answer
        self.drain = drain

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(self.answer)
        if self.drain:
            time.sleep(0.2)
            handler.rfile.read(int(handler.headers["content-length"]))


def _stored(to: str, body: bytes | IO[bytes], trailers: bool) -> kumo_crt.PutResult:
    with kumo_crt.S3Client(
        "us-east-1",
        to,
        access_key_id="AKEXAMPLE",
        secret_access_key="example-secret",
        max_attempts=1,
        multipart_threshold=2 * len(BODY),
        checksum_trailers=trailers,
    ) as client:
        return client.put_object("bucket", "key", body)


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_was_not_sent_is_not_stored(kind: str, trailers: bool) -> None:
    """Whatever the answer says of it."""
    answer = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    with tempfile.TemporaryFile() as file, Hasty(answer) as server:
        file.write(BODY)
        file.seek(0)
        with pytest.raises(kumo_crt.TransportError):
            _stored(server.endpoint_url, BODY if kind == "memory" else file, trailers)


@pytest.mark.parametrize("trailers", [False, True])
def test_a_second_answer_is_not_part_of_the_first(trailers: bool) -> None:
    """As of a server that refuses an upload, and takes its body for the next request."""
    first, second = error_document("EntityTooLarge"), b"<html>Bad Request</html>"
    lines = "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n{}\r\n"
    answer = lines.format(len(first), "").encode() + first
    answer += lines.format(len(second), "x-amz-request-id: another\r\n").encode() + second
    with Hasty(answer, drain=True) as server, pytest.raises(kumo_crt.S3Error) as caught:
        _stored(server.endpoint_url, BODY, trailers)
    assert (caught.value.code, caught.value.request_id) == ("EntityTooLarge", "REQ123")


def test_nothing_is_lent_that_is_not_there(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    """A body that went to another sink, and a response that was taken before."""
    fake.default = Answer(body=bytes(100), headers={"ETag": '"0"'})
    for sink, size in (("discard", 0), (bytearray(100), 0), (None, 100)):
        queue = _core.CompletionQueue()
        task = s3_fake._open().request("GetObject", "GET", "bucket", "key", stop_after=10)
        call: Call = next(task)
        call.sink = sink
        operation = call.start(queue, 1)
        assert queue.take(10) == [1]
        response = operation.response()
        assert (response.truncated, response.received) == (True, 10)
        assert len(memoryview(response.body)) == size
        assert len(memoryview(operation.response().body)) == 0
