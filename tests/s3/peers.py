"""Other S3 clients, with their default settings, for tests of interoperation."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, urlsplit

from tests.s3.conftest import PART
from tests.support.servers import S3Server


class Peer(Protocol):
    """Another client; what is larger than a part goes in parts."""

    def write(self, bucket: str, key: str, data: bytes) -> None:
        """Stores an object."""

    def read(self, bucket: str, key: str) -> bytes:
        """Reads an object, and compares it with its checksum where the client does so."""


class Boto3:
    """boto3."""

    def __init__(self, server: S3Server) -> None:
        from boto3.s3.transfer import TransferConfig

        self._client = server.boto3_client()
        self._transfer = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)

    def write(self, bucket: str, key: str, data: bytes) -> None:
        self._client.upload_fileobj(io.BytesIO(data), bucket, key, Config=self._transfer)

    def read(self, bucket: str, key: str) -> bytes:
        target = io.BytesIO()
        self._client.download_fileobj(bucket, key, target, Config=self._transfer)
        return target.getvalue()


class Awscrt:
    """awscrt's S3 client: aws-c-s3, in a copy of its own."""

    def __init__(self, server: S3Server) -> None:
        import awscrt.auth
        import awscrt.io
        import awscrt.s3

        group = awscrt.io.EventLoopGroup(1)
        bootstrap = awscrt.io.ClientBootstrap(group, awscrt.io.DefaultHostResolver(group))
        provider = awscrt.auth.AwsCredentialsProvider.new_static(
            server.access_key_id, server.secret_access_key
        )
        self._endpoint = server.endpoint_url
        self._host = urlsplit(server.endpoint_url).netloc
        self._client = awscrt.s3.S3Client(
            bootstrap=bootstrap,
            region=server.region,
            tls_mode=awscrt.s3.S3RequestTlsMode.DISABLED,
            part_size=PART,
            multipart_upload_threshold=PART,
            signing_config=awscrt.s3.create_default_s3_signing_config(
                region=server.region, credential_provider=provider
            ),
        )

    def write(self, bucket: str, key: str, data: bytes) -> None:
        import awscrt.http
        import awscrt.s3

        headers = awscrt.http.HttpHeaders(
            [("host", self._host), ("content-length", str(len(data)))]
        )
        request = awscrt.http.HttpRequest(
            "PUT", f"/{bucket}/{quote(key)}", headers, io.BytesIO(data)
        )
        self._client.make_request(
            type=awscrt.s3.S3RequestType.PUT_OBJECT, request=request
        ).finished_future.result(60)

    def read(self, bucket: str, key: str) -> bytes:
        import awscrt.http
        import awscrt.s3

        headers = awscrt.http.HttpHeaders([("host", self._host)])
        found: dict[int, bytes] = {}
        self._client.make_request(
            type=awscrt.s3.S3RequestType.GET_OBJECT,
            request=awscrt.http.HttpRequest("GET", f"/{bucket}/{quote(key)}", headers),
            checksum_config=awscrt.s3.S3ChecksumConfig(validate_response=True),
            on_body=lambda chunk, offset, **_: found.update({offset: bytes(chunk)}),
        ).finished_future.result(60)
        return b"".join(found[offset] for offset in sorted(found))


class Obstore:
    """obstore: the object_store crate."""

    def __init__(self, server: S3Server) -> None:
        self._server = server

    def _store(self, bucket: str) -> object:
        import obstore.store

        return obstore.store.S3Store(
            bucket,
            endpoint=self._server.endpoint_url,
            region=self._server.region,
            access_key_id=self._server.access_key_id,
            secret_access_key=self._server.secret_access_key,
            client_options={"allow_http": True},
        )

    def write(self, bucket: str, key: str, data: bytes) -> None:
        import obstore

        obstore.put(self._store(bucket), key, data, use_multipart=len(data) > PART, chunk_size=PART)

    def read(self, bucket: str, key: str) -> bytes:
        import obstore

        return bytes(obstore.get(self._store(bucket), key).bytes())


class Pyarrow:
    """pyarrow's S3FileSystem: aws-sdk-cpp."""

    def __init__(self, server: S3Server) -> None:
        import pyarrow.fs

        parts = urlsplit(server.endpoint_url)
        self._fs = pyarrow.fs.S3FileSystem(
            endpoint_override=parts.netloc,
            scheme=parts.scheme,
            region=server.region,
            access_key=server.access_key_id,
            secret_key=server.secret_access_key,
        )

    def write(self, bucket: str, key: str, data: bytes) -> None:
        with self._fs.open_output_stream(f"{bucket}/{key}") as stream:
            stream.write(data)

    def read(self, bucket: str, key: str) -> bytes:
        with self._fs.open_input_stream(f"{bucket}/{key}") as stream:
            content: bytes = stream.read()
            return content


PEERS: dict[str, Callable[[S3Server], Peer]] = {
    "boto3": Boto3,
    "awscrt": Awscrt,
    "obstore": Obstore,
    "pyarrow": Pyarrow,
}
