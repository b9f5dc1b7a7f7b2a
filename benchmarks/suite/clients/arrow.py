"""pyarrow's S3FileSystem: aws-sdk-cpp."""

from __future__ import annotations

from typing import Any

import pyarrow
from pyarrow import fs

from suite.clients.base import ACCESS_KEY, BUCKET, PART, REGION, SECRET_KEY, Client, Service


class Arrow(Client):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._s3: Any = fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region=REGION,
            scheme="https" if service.tls else "http",
            endpoint_override=service.address,
            allow_delayed_open=True,  # a small object in one request
            tls_ca_file_path=service.ca_file,
        )
        self._local = fs.LocalFileSystem()

    def put_file(self, key: str, path: str) -> None:
        fs.copy_files(
            path,
            f"{BUCKET}/{key}",
            source_filesystem=self._local,
            destination_filesystem=self._s3,
            chunk_size=PART,
        )

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        fs.copy_files(
            directory,
            f"{BUCKET}/{prefix.rstrip('/')}",
            source_filesystem=self._local,
            destination_filesystem=self._s3,
            chunk_size=PART,
        )

    def put_memory(self, key: str, data: bytes) -> None:
        with self._s3.open_output_stream(f"{BUCKET}/{key}") as stream:
            stream.write(pyarrow.py_buffer(data))

    def get_file(self, key: str, path: str) -> None:
        fs.copy_files(
            f"{BUCKET}/{key}",
            path,
            source_filesystem=self._s3,
            destination_filesystem=self._local,
            chunk_size=PART,
        )

    def get_memory(self, key: str, buffer: bytearray) -> None:
        view, at = memoryview(buffer), 0
        with self._s3.open_input_stream(f"{BUCKET}/{key}") as stream:
            while count := stream.readinto(view[at : at + PART]):
                at += count

    def put_small(self, key: str, data: bytes) -> None:
        self.put_memory(key, data)

    def get_small(self, key: str) -> int:
        with self._s3.open_input_stream(f"{BUCKET}/{key}") as stream:
            return len(stream.read())
