"""boto3, with its own threads and with the Common Runtime."""

from __future__ import annotations

import os
import time
from io import BytesIO
from typing import Any

import boto3
from awscrt.auth import AwsCredentialsProvider
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.session import Session
from s3transfer.crt import (
    BotocoreCRTRequestSerializer,
    CRTTransferManager,
    create_s3_crt_client,
)

from suite.clients.base import (
    ACCESS_KEY,
    BUCKET,
    PART,
    REGION,
    SECRET_KEY,
    Client,
    Service,
)

_CHECKSUM = {"ChecksumAlgorithm": "CRC32C"}


class Writer:
    """A file object that writes into a buffer."""

    def __init__(self, buffer: bytearray) -> None:
        self._view, self._position = memoryview(buffer), 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: len(self._view)}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: bytes) -> int:
        self._view[self._position : self._position + len(data)] = data
        self._position += len(data)
        return len(data)


class Boto(Client):
    """awscrt is installed, so that CRC32C is there, and fast; transfers use boto3's own threads."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._client = boto3.client(
            "s3",
            endpoint_url=service.endpoint_url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            verify=service.ca_file,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=32),
        )
        self._config = TransferConfig(multipart_chunksize=PART, preferred_transfer_client="classic")

    def put_file(self, key: str, path: str) -> None:
        self._client.upload_file(path, BUCKET, key, ExtraArgs=_CHECKSUM, Config=self._config)

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        with create_transfer_manager(self._client, self._config) as manager:
            futures = [
                manager.upload(
                    os.path.join(directory, name), BUCKET, prefix + name, extra_args=_CHECKSUM
                )
                for name in names
            ]
            for future in futures:
                future.result()

    def put_memory(self, key: str, data: bytes) -> None:
        self._client.upload_fileobj(
            BytesIO(data), BUCKET, key, ExtraArgs=_CHECKSUM, Config=self._config
        )

    def get_file(self, key: str, path: str) -> None:
        self._client.download_file(BUCKET, key, path, Config=self._config)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        self._client.download_fileobj(BUCKET, key, Writer(buffer), Config=self._config)

    def put_small(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data, **_CHECKSUM)

    def get_small(self, key: str) -> int:
        return len(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


class BotoCrt(Client):
    """s3transfer's CRTTransferManager, as the AWS CLI uses it.

    boto3's own way to it (``preferred_transfer_client="crt"``) leaves out the endpoint's URL and
    always speaks TLS: with another service it ends in AWS_IO_DNS_INVALID_NAME.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        credentials = AwsCredentialsProvider.new_static(ACCESS_KEY, SECRET_KEY)
        options: dict[str, Any] = {"verify": service.ca_file} if service.tls else {}
        self._manager = CRTTransferManager(
            create_s3_crt_client(
                REGION, credentials, part_size=PART, use_ssl=service.tls, **options
            ),
            BotocoreCRTRequestSerializer(
                Session(),
                {
                    "region_name": REGION,
                    "endpoint_url": service.endpoint_url,
                    "config": Config(s3={"addressing_style": "path"}),
                },
            ),
        )

    def put_file(self, key: str, path: str) -> None:
        self._upload(key, path).result()

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        futures = [self._upload(prefix + name, os.path.join(directory, name)) for name in names]
        for future in futures:
            future.result()

    def put_memory(self, key: str, data: bytes) -> None:
        self._upload(key, BytesIO(data)).result()

    def get_file(self, key: str, path: str) -> None:
        self._manager.download(BUCKET, key, path).result()
        # The result may be there before the file has its name.
        until = time.monotonic() + 5
        while not os.path.exists(path) and time.monotonic() < until:
            time.sleep(0.001)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        self._manager.download(BUCKET, key, Writer(buffer)).result()

    def _upload(self, key: str, body: Any) -> Any:
        return self._manager.upload(body, BUCKET, key, {"ChecksumAlgorithm": "CRC32C"})
