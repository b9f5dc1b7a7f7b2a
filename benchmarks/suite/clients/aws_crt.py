"""awscrt: the AWS Common Runtime's own Python package."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from io import BytesIO
from typing import Any

from awscrt import auth, http, io, s3

from suite.clients.base import ACCESS_KEY, BUCKET, PART, REGION, SECRET_KEY, Client, Load, Service


class AwsCrt(Client):
    def __init__(self, service: Service) -> None:
        super().__init__(service)
        group = io.EventLoopGroup()
        tls = None
        if service.tls:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, service.ca_file)
            tls = io.ClientTlsContext(options).new_connection_options()
        mode = s3.S3RequestTlsMode
        self._client = s3.S3Client(
            bootstrap=io.ClientBootstrap(group, io.DefaultHostResolver(group)),
            region=REGION,
            tls_mode=mode.DISABLED if tls is None else mode.ENABLED,
            tls_connection_options=tls,
            part_size=PART,
            signing_config=s3.create_default_s3_signing_config(
                region=REGION,
                credential_provider=auth.AwsCredentialsProvider.new_static(ACCESS_KEY, SECRET_KEY),
            ),
        )
        self._sending = s3.S3ChecksumConfig(
            algorithm=s3.S3ChecksumAlgorithm.CRC32C, location=s3.S3ChecksumLocation.HEADER
        )
        self._receiving = s3.S3ChecksumConfig(validate_response=True)

    def put_file(self, key: str, path: str) -> None:
        self._put(key, os.path.getsize(path), send_filepath=path).result()

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        paths = {name: os.path.join(directory, name) for name in names}
        futures = [
            self._put(prefix + name, os.path.getsize(path), send_filepath=path)
            for name, path in paths.items()
        ]
        for future in futures:
            future.result()

    def put_memory(self, key: str, data: bytes) -> None:
        self._put(key, len(data), body=BytesIO(data)).result()

    def get_file(self, key: str, path: str) -> None:
        self._get_checked(key, recv_filepath=path)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        view = memoryview(buffer)

        def receive(chunk: bytes, offset: int, **_: Any) -> None:
            view[offset : offset + len(chunk)] = chunk

        self._get_checked(key, on_body=receive)

    def put_small(self, key: str, data: bytes) -> None:
        self._put_small(key, data).result()

    def get_small(self, key: str) -> int:
        chunks: list[bytes] = []
        self._get_small(key, chunks).result()
        return sum(map(len, chunks))

    def load_put(self, load: Load) -> dict[str, float]:
        return asyncio.run(
            load.tasks(lambda key: asyncio.wrap_future(self._put_small(key, load.data)))
        )

    def load_get(self, load: Load) -> dict[str, float]:
        return asyncio.run(load.tasks(lambda key: asyncio.wrap_future(self._get_small(key, []))))

    def _put(self, key: str, size: int, body: Any = None, **options: Any) -> Future[Any]:
        headers = [("content-length", str(size))]
        return self._start("PUT_OBJECT", "PUT", key, headers, body, self._sending, **options)

    def _get_checked(self, key: str, **options: Any) -> None:
        checked: list[bool] = []

        def done(did_validate_checksum: bool = False, **_: Any) -> None:
            checked.append(did_validate_checksum)

        self._start(
            "GET_OBJECT", "GET", key, [], None, self._receiving, on_done=done, **options
        ).result()
        if checked != [True]:
            raise RuntimeError("awscrt did not validate the content")

    # For small objects, requests without the planning of parts: the cheapest that there is.
    def _put_small(self, key: str, data: bytes) -> Future[Any]:
        headers = [("content-length", str(len(data)))]
        body = BytesIO(data)
        return self._start(
            "DEFAULT", "PUT", key, headers, body, self._sending, operation_name="PutObject"
        )

    def _get_small(self, key: str, chunks: list[bytes]) -> Future[Any]:
        return self._start(
            "DEFAULT",
            "GET",
            key,
            [("x-amz-checksum-mode", "ENABLED")],
            None,
            self._receiving,
            operation_name="GetObject",
            on_body=lambda chunk, **_: chunks.append(chunk),
        )

    def _start(
        self,
        kind: str,
        method: str,
        key: str,
        headers: list[tuple[str, str]],
        body: Any,
        checksum: Any,
        **options: Any,
    ) -> Future[Any]:
        fields = http.HttpHeaders([("host", self.service.address), *headers])
        request = http.HttpRequest(method, f"/{BUCKET}/{key}", fields, body)
        future: Future[Any] = self._client.make_request(
            type=getattr(s3.S3RequestType, kind),
            request=request,
            checksum_config=checksum,
            **options,
        ).finished_future
        return future
