"""Memory that is sent without being copied: whole at the other end, and returned in any case."""

from __future__ import annotations

import asyncio
import gc
import random
import time

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.fault_proxy import Action, Fault, FaultProxy
from tests.support.servers import S3Server

# Around the sizes at which a body begins to be lent, fills a message, and needs another one.
EDGES = [32_767, 32_768, 32_769, 262_143, 262_144, 262_145, 524_288, 1_048_577]


@pytest.mark.servers("seaweed-http", "seaweed-https")
@pytest.mark.parametrize("size", EDGES)
def test_bodies_around_the_edges_of_messages(s3: kumo_crt.S3Client, bucket: str, size: int) -> None:
    data = payload(size)
    s3.put_object(bucket, "key", memoryview(bytearray(data)))
    assert content(s3.get_object(bucket, "key")) == data


def _returned(data: bytearray, seconds: float) -> bool:
    """Whether nobody holds the memory any more: only then can it be resized."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            data.append(0)
        except BufferError:
            gc.collect()  # an exception's traceback may lead to it
            time.sleep(0.01)
        else:
            return True
    return False


async def _cancelled(arguments: dict[str, object], bucket: str, data: bytearray) -> None:
    async with kumo_crt.AsyncS3Client(**arguments) as client:  # type: ignore[arg-type]
        upload = asyncio.create_task(client.put_object(bucket, "key", data))
        await asyncio.sleep(random.uniform(0.0, 0.12))
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload


@pytest.mark.servers("seaweed-http", "seaweed-https")
@pytest.mark.parametrize("seed", range(6))
def test_a_cancelled_upload_gives_the_memory_back(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, seed: int
) -> None:
    random.seed(seed)
    data = bytearray(payload(3 * PART))
    proxy.add(Fault("slow", "request", 100_000, times=1000, bytes_per_second=2_000_000))
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, part_size=PART, multipart_threshold=PART
    )
    asyncio.run(_cancelled(arguments, bucket, data))
    assert _returned(data, 5.0)
    # Whoever still read it would now read something else, or (under ASan) be caught.
    data[:] = b""


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("action", ["reset", "close"])
@pytest.mark.parametrize("offset", [0, 1, 300_000, PART - 1])
def test_a_cut_upload_gives_the_memory_back(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, action: Action, offset: int
) -> None:
    data = bytearray(payload(PART))
    proxy.add(Fault(action, "request", offset, method="PUT", times=2))
    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url, max_attempts=2)
    with (
        kumo_crt.S3Client(**arguments) as client,
        pytest.raises(kumo_crt.TransportError),
    ):
        client.put_object(bucket, "key", data)
    assert _returned(data, 5.0)
