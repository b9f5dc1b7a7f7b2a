"""Bodies whose parts are made on demand: in one request and in parts, within memory, resumed."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

import kumo_crt
from kumo_crt.s3._body import ProducedSource
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions
from kumo_crt.s3._resume import whole_crc32c_task
from tests.s3.conftest import PART
from tests.support.data import payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

Read = Callable[[str], bytes]
Listed = Callable[[], list[str]]
Span = tuple[int, int]


class Maker:
    """Makes a body's parts, and remembers which."""

    def __init__(self, size: int) -> None:
        self.data = payload(size)
        self.made: list[Span] = []
        self.sent: list[Span] = []
        self.threads: set[int] = set()
        self.held = self.most = 0

    def source(self) -> ProducedSource:
        return ProducedSource(len(self.data), self.read, lambda *span: self.sent.append(span))

    def read(self, start: int, stop: int) -> bytes:
        self.threads.add(threading.get_ident())
        self.made.append((start, stop))
        # Bytes that were made and are not stored yet.
        held = sum(b - a for a, b in self.made) - sum(b - a for a, b in self.sent)
        self.most = max(self.most, held)
        return self.data[start:stop]


def _options(resume: tuple[str, ...] | None = None, **options: Any) -> PutOptions:
    options = {"if_match": None, "if_none_match": None, **options}
    return PutOptions(checksum=True, headers={}, resume=resume, **options)


def _put(
    client: kumo_crt.S3Client, bucket: str, source: ProducedSource, options: PutOptions
) -> kumo_crt.PutResult:
    return client._run(put_task(client._open(), bucket, "key", source, options))


def _parts(size: int) -> list[Span]:
    return [(start, min(start + PART, size)) for start in range(0, size, PART)]


@pytest.fixture
def s3_proxied(s3_server: S3Server, proxy: FaultProxy) -> Iterator[kumo_crt.S3Client]:
    """A client that goes through the proxy, with room for two of the smallest parts."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url,
        part_size=PART,
        multipart_threshold=PART,
        memory_limit=2 * PART,
    )
    with kumo_crt.S3Client(**arguments) as client:
        yield client


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 3 * PART, 3 * PART + 7])
def test_sizes_around_the_part_size(
    s3_parts: kumo_crt.S3Client, bucket: str, stored: Read, uploads: Listed, size: int
) -> None:
    maker = Maker(size)
    done: list[Span] = []
    options = _options(if_none_match="*", progress=lambda *counts: done.append(counts))
    result = _put(s3_parts, bucket, maker.source(), options)
    assert stored("key") == maker.data
    assert result.size == size
    assert result.checksum_crc32c == kumo_crt.crc32c(maker.data)
    if size > PART:
        assert maker.made == sorted(maker.sent) == _parts(size)
    else:
        assert maker.made == [(0, size)]
        assert maker.sent == []
    assert done[-1] == (size, size)
    assert uploads() == []


def test_parts_share_the_memory_limit(
    s3_proxied: kumo_crt.S3Client, bucket: str, stored: Read
) -> None:
    maker = Maker(8 * PART)
    _put(s3_proxied, bucket, maker.source(), _options())
    assert maker.most == 2 * PART
    assert stored("key") == maker.data


@pytest.mark.parametrize("of", ["one client", "the process"])
def test_operations_share_the_memory_limit(
    s3_server: S3Server,
    proxy: FaultProxy,
    bucket: str,
    stored: Read,
    monkeypatch: pytest.MonkeyPatch,
    of: str,
) -> None:
    """One part each may hold, and no more where that is all there is room for."""
    data = payload(6 * PART)
    streams = [io.BytesIO(data) for _ in range(4)]
    stall = Fault("stall", "request", PART // 2, method="PUT", target="partNumber", times=100)
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, part_size=PART, multipart_threshold=PART
    )
    with ExitStack() as stack:
        if of == "one client":
            one = stack.enter_context(kumo_crt.S3Client(**arguments, memory_limit=2 * PART))
            clients = [one] * 4
        else:
            monkeypatch.setenv("KUMO_CRT_MEMORY_LIMIT", str(2 * PART))
            clients = [stack.enter_context(kumo_crt.S3Client(**arguments)) for _ in range(4)]

        def put(number: int) -> None:
            clients[number].put_object(bucket, f"key-{number}", streams[number])

        pool = stack.enter_context(ThreadPoolExecutor(4))
        with proxy.armed(stall):
            puts = [pool.submit(put, number) for number in range(4)]
            until = time.monotonic() + 10
            while min(stream.tell() for stream in streams) < PART and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.5)  # in which more would be read
            read = sum(stream.tell() for stream in streams)
            proxy.release()
            for done in puts:
                done.result(60)
    assert 4 * PART <= read <= 5 * PART + len(streams)
    assert stored("key-0") == stored("key-3") == data


def test_an_event_loop_is_not_blocked(s3_server: S3Server, bucket: str, stored: Read) -> None:
    maker = Maker(2 * PART)

    async def put() -> None:
        arguments = s3_server.client_arguments(part_size=PART, multipart_threshold=PART)
        async with kumo_crt.AsyncS3Client(**arguments) as client:
            task = put_task(client._open(), bucket, "key", maker.source(), _options())
            await client._driver_here().run(task)

    asyncio.run(put())
    assert threading.get_ident() not in maker.threads
    assert stored("key") == maker.data


def test_a_request_that_is_tried_again_sends_what_is_held(
    s3_proxied: kumo_crt.S3Client, proxy: FaultProxy, bucket: str, stored: Read
) -> None:
    maker = Maker(3 * PART)
    proxy.add(Fault("reset", "request", offset=PART // 2, target="partNumber=2"))
    _put(s3_proxied, bucket, maker.source(), _options())
    assert proxy.count("PUT", "partNumber=2") == 2
    assert maker.made == _parts(3 * PART)
    assert stored("key") == maker.data


def _begin(boto: Any, bucket: str, parts: dict[int, bytes]) -> str:
    where = {"Bucket": bucket, "Key": "key"}
    upload: str = boto.create_multipart_upload(
        **where, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    for number, content in parts.items():
        boto.upload_part(
            **where,
            UploadId=upload,
            PartNumber=number,
            Body=content,
            ChecksumAlgorithm="CRC32C",
        )
    return upload


def test_an_unfinished_upload_is_gone_on_with(
    s3_proxied: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    stored: Read,
    uploads: Listed,
) -> None:
    maker = Maker(4 * PART + 9)
    data = maker.data
    upload = _begin(
        boto, bucket, {1: data[:PART], 2: data[:PART], 5: data[4 * PART :]}
    )  # the second is something else
    _put(s3_proxied, bucket, maker.source(), _options((upload,)))
    assert stored("key") == data
    assert [proxy.count("PUT", f"partNumber={n}&") for n in range(1, 6)] == [0, 1, 1, 1, 0]
    assert proxy.count("POST", "uploads") == 0
    assert sorted(maker.sent) == _parts(len(data))
    # Read to be compared, little by little; whole parts only to be sent.
    whole = [span for span in maker.made if span[1] - span[0] == PART]
    assert whole == _parts(len(data))[1:4]
    assert uploads() == []


def test_an_upload_that_is_gone_begins_again(
    s3_parts: kumo_crt.S3Client, boto: Any, bucket: str, stored: Read
) -> None:
    maker = Maker(2 * PART)

    class Aborts(Maker):
        def read(self, start: int, stop: int) -> bytes:
            if not self.made:
                boto.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
            return super().read(start, stop)

    upload = _begin(boto, bucket, {})
    maker = Aborts(2 * PART)
    _put(s3_parts, bucket, maker.source(), _options((upload,)))
    assert stored("key") == maker.data


def test_the_checksum_of_the_whole(s3_parts: kumo_crt.S3Client) -> None:
    maker = Maker(PART + 77)
    crc = s3_parts._run(whole_crc32c_task(maker.source()))
    assert crc == kumo_crt.crc32c(maker.data)
    assert max(stop - start for start, stop in maker.made) < PART  # not held as a whole


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (OSError("the disk is broken"), "the disk is broken"),
        (None, f"a part of {PART} bytes at {2 * PART} was made with {PART - 1} bytes"),
    ],
)
def test_a_part_that_cannot_be_made(
    s3_parts: kumo_crt.S3Client,
    bucket: str,
    keys: Listed,
    uploads: Listed,
    broken: Exception | None,
    expected: str,
) -> None:
    class Broken(Maker):
        def read(self, start: int, stop: int) -> bytes:
            if start < 2 * PART:
                return super().read(start, stop)
            if broken is not None:
                raise broken
            return super().read(start, stop - 1)

    with pytest.raises((OSError, ValueError), match=expected):
        _put(s3_parts, bucket, Broken(4 * PART).source(), _options())
    assert keys() == []
    assert uploads() == []
    # The room that parts had is free again.
    maker = Maker(2 * PART)
    _put(s3_parts, bucket, maker.source(), _options())
