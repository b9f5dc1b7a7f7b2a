"""obstore: Rust's object_store."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from suite.clients.base import (
    ACCESS_KEY,
    BUCKET,
    PARALLEL,
    PART,
    REGION,
    SECRET_KEY,
    Client,
    Load,
    Service,
)

_TRANSFER = {"chunk_size": PART, "max_concurrency": PARALLEL}


class ObjectStore(Client):
    # Payloads are signed with SHA-256 by default, which is its check of what arrives.
    unsigned = False

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._store: Any = S3Store(
            BUCKET,
            endpoint=service.endpoint_url,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region=REGION,
            virtual_hosted_style_request=False,
            unsigned_payload=self.unsigned,
            client_options={"allow_http": not service.tls},
        )

    def put_file(self, key: str, path: str) -> None:
        obstore.put(self._store, key, Path(path), **_TRANSFER)

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(
                pool.map(
                    lambda name: self.put_file(prefix + name, os.path.join(directory, name)), names
                )
            )

    def put_memory(self, key: str, data: bytes) -> None:
        obstore.put(self._store, key, data, **_TRANSFER)

    def get_file(self, key: str, path: str) -> None:
        with open(path, "wb", buffering=0) as file:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=1 << 20):
                file.write(chunk)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        view, at = memoryview(buffer), 0
        for chunk in obstore.get(self._store, key).stream(min_chunk_size=1 << 20):
            view[at : at + len(chunk)] = memoryview(chunk)
            at += len(chunk)

    def put_small(self, key: str, data: bytes) -> None:
        obstore.put(self._store, key, data)

    def get_small(self, key: str) -> int:
        return len(obstore.get(self._store, key).bytes())

    def load_put(self, load: Load) -> dict[str, float]:
        return asyncio.run(load.tasks(lambda key: obstore.put_async(self._store, key, load.data)))

    def load_get(self, load: Load) -> dict[str, float]:
        async def get(key: str) -> None:
            await (await obstore.get_async(self._store, key)).bytes_async()

        return asyncio.run(load.tasks(get))


class ObjectStoreUnsigned(ObjectStore):
    unsigned = True
