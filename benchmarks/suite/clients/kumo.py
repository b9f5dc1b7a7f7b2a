"""kumo_crt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kumo_crt
from suite.clients.base import BUCKET, PARALLEL, Client, Load, Service, Unsupported


class Kumo(Client):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._options: dict[str, Any] = {
            "endpoint_url": service.endpoint_url,
            "ca_file": service.ca_file,
        }
        self._client = kumo_crt.S3Client(**self._options)
        self._checksum = "CRC32C" if service.checksum else None

    def put_file(self, key: str, path: str) -> None:
        self._client.put_object(BUCKET, key, path, checksum=self._checksum)

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        def put(name: str) -> None:
            self.put_file(prefix + name, os.path.join(directory, name))

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(put, names))

    def put_memory(self, key: str, data: bytes) -> None:
        self._client.put_object(BUCKET, key, data, checksum=self._checksum)

    def get_file(self, key: str, path: str) -> None:
        if self._client.get_object(BUCKET, key, into=path).validated != "CRC32C":
            raise RuntimeError("kumo_crt did not validate the content")

    def get_memory(self, key: str, buffer: bytearray) -> None:
        if self._client.get_object(BUCKET, key, into=buffer).validated != "CRC32C":
            raise RuntimeError("kumo_crt did not validate the content")

    def put_small(self, key: str, data: bytes) -> None:
        self._client.put_object(BUCKET, key, data)

    def get_small(self, key: str) -> int:
        return self._client.get_object(BUCKET, key).size

    def load_put(self, load: Load) -> dict[str, float]:
        return self._tasks(load, lambda client, key: client.put_object(BUCKET, key, load.data))

    def load_get(self, load: Load) -> dict[str, float]:
        return self._tasks(load, lambda client, key: client.get_object(BUCKET, key))

    def _tasks(self, load: Load, request: Callable[[Any, str], Awaitable[Any]]) -> dict[str, float]:
        make = getattr(kumo_crt, "AsyncS3Client", None)
        if make is None:
            raise Unsupported("this build of kumo_crt has no AsyncS3Client")

        async def run() -> dict[str, float]:
            async with make(**self._options) as client:
                return await load.tasks(lambda key: request(client, key))

        return asyncio.run(run())

    def close(self) -> None:
        self._client.close()
