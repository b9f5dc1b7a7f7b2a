"""Calls that are cancelled at any moment: nothing goes on, or stays, and the client works."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

CALLS = 144
SLOW = 4 << 20  # bytes a second: the proxy's thread is fast enough for that


@pytest.mark.servers("seaweed-http")
def test_at_random_moments(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    chance = random.Random(1)
    large, small = payload(2 * PART + 11), payload(70_000)
    source = tmp_path / "source"
    source.write_bytes(large)
    target = tmp_path / "target"
    target.mkdir()
    for direction in ("request", "response"):
        proxy.add(Fault("slow", direction, times=10**6, chance=0.3, bytes_per_second=SLOW))

    def call(client: kumo_crt.AsyncS3Client, number: int) -> Any:
        key = f"key-{number}"
        calls: list[Callable[[], Any]] = [
            lambda: client.put_object(bucket, key, large),
            lambda: client.put_object(bucket, key, bytearray(small)),
            lambda: client.put_object(bucket, key, source),
            lambda: client.get_object(bucket, "large"),
            lambda: client.get_object(bucket, "large", into=bytearray(len(large))),
            lambda: client.get_object(bucket, "small", into=target / str(number)),
            lambda: client.get_object(bucket, "large", into=target / str(number)),
            lambda: client.head_object(bucket, "small"),
        ]
        return calls[number % 8]()

    async def cancelled(client: kumo_crt.AsyncS3Client, number: int) -> bool:
        task = asyncio.ensure_future(call(client, number))
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01, 0.1, 0.3)) * chance.random())
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    async def scenario() -> None:
        arguments = s3_server.client_arguments(
            endpoint_url=proxy.endpoint_url,
            part_size=PART,
            multipart_threshold=PART,
            max_connections=8,
        )
        async with kumo_crt.AsyncS3Client(**arguments) as client:
            await client.put_object(bucket, "large", large)
            await client.put_object(bucket, "small", small)
            outcomes: list[bool] = []
            for first in range(0, CALLS, 24):
                group = [cancelled(client, number) for number in range(first, first + 24)]
                outcomes += await asyncio.gather(*group)
            assert sum(outcomes) > CALLS // 2
            begun = time.monotonic()
            while True:
                # What has not been aborted after a second is in the background.
                connections = (await client.metrics())["connections"]
                uploads = [item.key async for item in client.list_multipart_uploads(bucket)]
                if connections["leased"] == connections["waiting"] == len(uploads) == 0:
                    break
                assert time.monotonic() - begun < 20, (connections, uploads)
                await asyncio.sleep(0.05)
            assert not list(target.glob(".*"))
            for path in target.iterdir():
                assert path.read_bytes() in (small, large)
            assert content(await client.get_object(bucket, "large")) == large

    asyncio.run(scenario())


@pytest.mark.servers("seaweed-http")
def test_while_an_upload_begins(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, uploads: Callable[[], list[str]]
) -> None:
    """The answer with its id is waited for: nobody else could abort it."""
    fault = proxy.add(Fault("stall", method="POST", target="uploads", in_head=True))

    async def scenario() -> None:
        arguments = s3_server.client_arguments(
            endpoint_url=proxy.endpoint_url, part_size=PART, multipart_threshold=PART
        )
        async with kumo_crt.AsyncS3Client(**arguments) as client:
            put = asyncio.create_task(client.put_object(bucket, "key", payload(2 * PART)))
            assert await asyncio.to_thread(fault.fired.wait, 10)
            put.cancel()
            await asyncio.sleep(0.1)
            assert await asyncio.to_thread(uploads) == ["key"]
            proxy.release()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert await asyncio.to_thread(uploads) == []
            assert proxy.count("PUT") == 0

    asyncio.run(scenario())
