"""s3torchconnector's client, without torch: mountpoint-s3's."""

from __future__ import annotations

import os

from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

from suite.clients.base import (
    ACCESS_KEY,
    BUCKET,
    PART,
    REGION,
    SECRET_KEY,
    Client,
    Service,
    Unsupported,
)

# What its users write at a time: more is copied into larger buffers first.
_PIECE = 1 << 20


class Torch(Client):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        if service.tls:
            raise Unsupported("cannot be told of a CA")
        os.environ.update(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY)
        self._client = MountpointS3Client(
            REGION, part_size=PART, endpoint=service.endpoint_url, force_path_style=True
        )

    def put_file(self, key: str, path: str) -> None:
        stream = self._client.put_object(BUCKET, key)
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                stream.write(piece)
        stream.close()

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        for name in names:
            self.put_file(prefix + name, os.path.join(directory, name))

    def put_memory(self, key: str, data: bytes) -> None:
        stream = self._client.put_object(BUCKET, key)
        for at in range(0, len(data), _PIECE):
            stream.write(data[at : at + _PIECE])
        stream.close()

    def get_file(self, key: str, path: str) -> None:
        with open(path, "wb", buffering=0) as file:
            for chunk in self._client.get_object(BUCKET, key):
                file.write(chunk)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        view, at = memoryview(buffer), 0
        for chunk in self._client.get_object(BUCKET, key):
            view[at : at + len(chunk)] = chunk
            at += len(chunk)

    def put_small(self, key: str, data: bytes) -> None:
        self.put_memory(key, data)

    def get_small(self, key: str) -> int:
        return sum(map(len, self._client.get_object(BUCKET, key)))
