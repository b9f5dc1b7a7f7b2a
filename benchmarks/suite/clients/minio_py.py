"""minio."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from minio import Minio

from suite.clients.base import (
    ACCESS_KEY,
    BUCKET,
    PARALLEL,
    PART,
    REGION,
    SECRET_KEY,
    Client,
    Service,
)


class MinioPy(Client):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        # It finds the CA by SSL_CERT_FILE.
        self._client = Minio(
            service.address,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=service.tls,
            region=REGION,
        )

    def put_file(self, key: str, path: str) -> None:
        self._client.fput_object(BUCKET, key, path, part_size=PART, num_parallel_uploads=PARALLEL)

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(
                pool.map(
                    lambda name: self._client.fput_object(
                        BUCKET, prefix + name, os.path.join(directory, name), part_size=PART
                    ),
                    names,
                )
            )

    def put_memory(self, key: str, data: bytes) -> None:
        self._client.put_object(
            BUCKET,
            key,
            BytesIO(data),
            len(data),
            part_size=PART,
            num_parallel_uploads=PARALLEL,
        )

    def get_file(self, key: str, path: str) -> None:
        self._client.fget_object(BUCKET, key, path)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        response = self._client.get_object(BUCKET, key)
        try:
            view, at = memoryview(buffer), 0
            while count := response.readinto(view[at : at + (1 << 20)]):
                at += count
        finally:
            response.close()
            response.release_conn()

    def put_small(self, key: str, data: bytes) -> None:
        self._client.put_object(BUCKET, key, BytesIO(data), len(data))

    def get_small(self, key: str) -> int:
        response = self._client.get_object(BUCKET, key)
        try:
            return len(response.read())
        finally:
            response.release_conn()
