"""The asynchronous client against real servers."""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import AsyncS3Client, S3Client
from tests.s3.conftest import PART
from tests.support.data import MIB, OnlyRead, content, payload
from tests.support.fake_s3 import FakeS3
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

Listed = Callable[[], list[str]]


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def parts_client(server: S3Server, **overrides: Any) -> AsyncS3Client:
    return AsyncS3Client(
        **server.client_arguments(part_size=PART, multipart_threshold=PART, **overrides)
    )


def _parameters(thing: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(thing).parameters


def test_it_has_the_methods_of_the_other_one() -> None:
    names = {name for name in vars(S3Client) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncS3Client) if not name.startswith("_")}
    assert {"put_object", "get_object", "list_objects", "close"} <= names
    assert _parameters(S3Client) == _parameters(AsyncS3Client)
    for name in names:
        ours, theirs = getattr(AsyncS3Client, name), getattr(S3Client, name)
        assert _parameters(ours) == _parameters(theirs)
        assert ours.__doc__
        assert (ours.__doc__ == theirs.__doc__) or name == "close"
        assert inspect.iscoroutinefunction(ours) or name.startswith("list_")
    shown = inspect.signature(AsyncS3Client.put_object)
    assert list(shown.parameters)[:4] == ["self", "bucket", "key", "body"]
    assert shown.return_annotation == "PutResult"
    assert inspect.signature(S3Client.list_objects).return_annotation == "Iterator[ObjectInfo]"


@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_objects(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    small, large = payload(3000), payload(2 * PART + 17)

    async def scenario() -> None:
        async with parts_client(s3_server) as s3:
            put = await s3.put_object(bucket, "small", small, metadata={"a": "b"})
            assert put.checksum_crc32c == kumo_crt.crc32c(small)
            (tmp_path / "large").write_bytes(large)
            for key, body in (
                ("memory", memoryview(large)),
                ("path", tmp_path / "large"),
                ("stream", OnlyRead(large)),
            ):
                result = await s3.put_object(bucket, key, body)
                assert (result.size, result.parts) == (len(large), 3)
                got = await s3.get_object(bucket, key)
                assert content(got) == large
            assert content(await s3.get_object(bucket, "small")) == small
            await s3.get_object(bucket, "path", into=tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == large
            head = await s3.head_object(bucket, "small")
            assert (head.size, head.metadata) == (3000, {"a": "b"})
            assert [found.key async for found in s3.list_objects(bucket)] == [
                "memory",
                "path",
                "small",
                "stream",
            ]
            await s3.delete_object(bucket, "small")
            deleted = await s3.delete_objects(bucket, ["memory", "path"])
            assert [(item.key, item.error) for item in deleted] == [
                ("memory", None),
                ("path", None),
            ]
            assert [found.key async for found in s3.list_objects(bucket)] == ["stream"]
            with pytest.raises(kumo_crt.NotFoundError):
                await s3.get_object(bucket, "small")

    play(scenario())


@pytest.mark.servers("seaweed-http")
def test_thousands_of_requests_at_once(s3_server: S3Server, bucket: str) -> None:
    bodies = [os.urandom(1024) for _ in range(5000)]
    threads: set[int] = set()

    async def scenario() -> None:
        async with AsyncS3Client(**s3_server.client_arguments()) as s3:
            await s3.put_object(bucket, "warm", b"up")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

            async def round_trip(number: int, body: bytes) -> bool:
                await s3.put_object(bucket, f"{number:04}", body)
                result = await s3.get_object(bucket, f"{number:04}")
                threads.add(threading.active_count())
                return result.validated == "CRC32C" and content(result) == body

            assert all(await asyncio.gather(*map(round_trip, range(5000), bodies)))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown * 1024 < 120 * MIB
            found = [item.key async for item in s3.list_objects(bucket)]
            assert found == [*(f"{number:04}" for number in range(5000)), "warm"]

    before = threading.active_count()
    play(scenario())
    # The log's, at most.
    assert max(threads) <= before + 1


class _Slow(OnlyRead):
    """A file object that takes its time."""

    def read(self, size: int = -1) -> bytes:
        time.sleep(0.02)
        return super().read(size)


@pytest.mark.servers("seaweed-http")
def test_many_streams_share_the_memory_and_do_not_stop_the_loop(
    s3_server: S3Server, bucket: str
) -> None:
    data = payload(2 * PART + 17)

    async def scenario() -> None:
        async with parts_client(s3_server, memory_limit=PART) as s3:
            streams = (_Slow(data, 2 * MIB) for _ in range(6))
            puts = asyncio.gather(
                *(s3.put_object(bucket, str(n), body) for n, body in enumerate(streams))
            )
            longest = 0.0
            while not puts.done():
                before = time.monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - before)
            assert {(result.size, result.parts) for result in puts.result()} == {(len(data), 3)}
            # A read takes 20 ms, each of the streams takes 7; the machine may be busy.
            assert longest < 0.5
            assert content(await s3.get_object(bucket, "5")) == data

    play(scenario())


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("body", ["memory", "path"])
def test_a_cancelled_upload_is_aborted(
    s3_server: S3Server,
    proxy: FaultProxy,
    bucket: str,
    keys: Listed,
    uploads: Listed,
    tmp_path: Path,
    body: str,
) -> None:
    (tmp_path / "file").write_bytes(payload(4 * PART))
    fault = proxy.add(Fault("stall", "request", 100_000, method="PUT", target="/key", times=1000))

    async def scenario() -> None:
        async with parts_client(s3_server, endpoint_url=proxy.endpoint_url) as s3:
            what = tmp_path / "file" if body == "path" else payload(4 * PART)
            task = asyncio.create_task(s3.put_object(bucket, "key", what))
            while not fault.fired.is_set():
                await asyncio.sleep(0.01)
            assert uploads() == ["key"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    play(scenario())
    assert uploads() == []
    assert keys() == []


@pytest.mark.servers("seaweed-http")
def test_a_download_that_times_out_leaves_no_file(
    s3_server: S3Server, s3: S3Client, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    s3.put_object(bucket, "stored", payload(300_000))
    proxy.add(Fault("stall", offset=100_000, method="GET", target="/stored", times=1000))

    async def scenario() -> None:
        async with parts_client(s3_server, endpoint_url=proxy.endpoint_url) as s3:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await s3.get_object(bucket, "stored", into=tmp_path / "file")
            # The others are not concerned.
            assert (await s3.head_object(bucket, "stored")).size == 300_000

    play(scenario())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers("seaweed-http")
def test_closed_while_a_call_is_awaited(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, uploads: Listed
) -> None:
    fault = proxy.add(Fault("stall", "request", 100_000, method="PUT", target="/key", times=1000))

    async def scenario() -> None:
        s3 = parts_client(s3_server, endpoint_url=proxy.endpoint_url)
        task = asyncio.create_task(s3.put_object(bucket, "key", payload(2 * PART)))
        while not fault.fired.is_set():
            await asyncio.sleep(0.01)
        await s3.close()
        with pytest.raises(kumo_crt.KumoError, match="closed while this call was under way"):
            await task
        with pytest.raises(ValueError, match="AsyncS3Client is closed"):
            await s3.head_object(bucket, "key")
        await s3.close()

    play(scenario())
    assert uploads() == []


@pytest.mark.servers("seaweed-http")
def test_several_loops_in_several_threads(s3_server: S3Server, bucket: str) -> None:
    s3 = AsyncS3Client(**s3_server.client_arguments())

    async def work(name: str) -> None:
        keys = [f"{name}-{number}" for number in range(50)]
        await asyncio.gather(*(s3.put_object(bucket, key, key.encode()) for key in keys))
        got = await asyncio.gather(*(s3.get_object(bucket, key) for key in keys))
        assert [content(result).decode() for result in got] == keys

    threads = [threading.Thread(target=play, args=(work(name),)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    play(work("again"))

    async def end() -> None:
        found = [item async for item in s3.list_objects(bucket)]
        assert len(found) == 250
        await s3.close()

    play(end())


def test_loops_that_begin_at_the_same_time(fake: FakeS3) -> None:
    """None is lost: closing the client ends what goes on in each."""
    count = 12

    def known() -> int:
        s3 = AsyncS3Client("us-east-1", fake.endpoint_url, anonymous=True)
        together, closed = threading.Barrier(count + 1), threading.Event()

        async def work() -> None:
            together.wait(30)
            await s3.head_object("bucket", "key")
            together.wait(30)
            closed.wait(30)

        threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(count)]
        for thread in threads:
            thread.start()
        together.wait(30)
        together.wait(30)
        found = len(s3._drivers)
        closed.set()
        for thread in threads:
            thread.join(30)
        play(s3.close())
        return found

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert {known() for _ in range(40)} == {count}
    finally:
        sys.setswitchinterval(interval)


def test_an_unclosed_client_warns() -> None:
    clients = [AsyncS3Client("us-east-1", "http://127.0.0.1:9", anonymous=True, max_attempts=1)]

    async def scenario() -> None:
        with pytest.raises(kumo_crt.TransportError):
            await clients[0].head_object("bucket", "key")
        await asyncio.sleep(0)  # the loop is done with the error, whose traceback has the client
        with pytest.warns(
            ResourceWarning,
            match=r"unclosed <kumo_crt.AsyncS3Client http://127.0.0.1:9 region=us-east-1>",
        ):
            clients.clear()

    play(scenario())


def test_without_a_loop() -> None:
    client = AsyncS3Client("us-east-1", "http://127.0.0.1:9", anonymous=True)
    coroutine = client.head_object("bucket", "key")
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    asyncio.run(client.close())
