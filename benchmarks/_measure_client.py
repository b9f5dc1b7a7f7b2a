"""One measurement of one client; started by compare_clients.py, prints JSON.

Arguments: client operation bucket source target. The server is in the AWS_* environment.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

PART = 8 << 20
_WARM_UP_BYTES = 32 << 20


class Client(Protocol):
    """What is compared. Memory to receive into is there, and touched, before the clock runs."""

    def put_file(self, key: str, path: str) -> None: ...
    def put_memory(self, key: str, data: bytes) -> None: ...
    def get_file(self, key: str, path: str) -> None: ...
    def get_memory(self, key: str, buffer: bytearray) -> None: ...


class Kumo:
    def __init__(self, bucket: str) -> None:
        import kumo_crt

        self._bucket = bucket
        self._client = kumo_crt.S3Client(part_size=PART)

    def put_file(self, key: str, path: str) -> None:
        self._client.put_object(self._bucket, key, path)

    def put_memory(self, key: str, data: bytes) -> None:
        self._client.put_object(self._bucket, key, data)

    def get_file(self, key: str, path: str) -> None:
        self._client.get_object(self._bucket, key, into=path)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        self._client.get_object(self._bucket, key, into=buffer)


class AwsCrt:
    def __init__(self, bucket: str) -> None:
        from awscrt import auth, http, io, s3

        self._s3, self._http = s3, http
        url = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"])
        self._host, self._bucket = url.netloc, bucket
        region = os.environ.get("AWS_REGION", "us-east-1")
        group = io.EventLoopGroup()
        tls = None
        if url.scheme == "https":
            options = io.TlsContextOptions()
            if "AWS_CA_BUNDLE" in os.environ:
                options.override_default_trust_store_from_path(None, os.environ["AWS_CA_BUNDLE"])
            tls = io.ClientTlsContext(options).new_connection_options()
        mode = s3.S3RequestTlsMode
        self._client = s3.S3Client(
            bootstrap=io.ClientBootstrap(group, io.DefaultHostResolver(group)),
            region=region,
            tls_mode=mode.DISABLED if tls is None else mode.ENABLED,
            tls_connection_options=tls,
            part_size=PART,
            signing_config=s3.create_default_s3_signing_config(
                region=region,
                credential_provider=auth.AwsCredentialsProvider.new_default_chain(),
            ),
        )
        crc32c = s3.S3ChecksumAlgorithm.CRC32C
        location = s3.S3ChecksumLocation.HEADER
        self._sending = s3.S3ChecksumConfig(algorithm=crc32c, location=location)
        self._receiving = s3.S3ChecksumConfig(validate_response=True)

    def put_file(self, key: str, path: str) -> None:
        self._put(key, os.path.getsize(path), send_filepath=path)

    def put_memory(self, key: str, data: bytes) -> None:
        from io import BytesIO

        self._put(key, len(data), body=BytesIO(data))

    def get_file(self, key: str, path: str) -> None:
        self._get(key, recv_filepath=path)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        view = memoryview(buffer)

        def receive(chunk: bytes, offset: int, **_: Any) -> None:
            view[offset : offset + len(chunk)] = chunk

        self._get(key, on_body=receive)

    def _put(self, key: str, size: int, body: Any = None, **options: Any) -> None:
        headers = [("host", self._host), ("content-length", str(size))]
        self._run("PUT_OBJECT", "PUT", key, headers, body, self._sending, options)

    def _get(self, key: str, **options: Any) -> None:
        self._run("GET_OBJECT", "GET", key, [("host", self._host)], None, self._receiving, options)

    def _run(
        self,
        kind: str,
        method: str,
        key: str,
        headers: list[tuple[str, str]],
        body: Any,
        checksum: Any,
        options: dict[str, Any],
    ) -> None:
        request = self._http.HttpRequest(
            method, f"/{self._bucket}/{key}", self._http.HttpHeaders(headers), body
        )
        self._client.make_request(
            type=getattr(self._s3.S3RequestType, kind),
            request=request,
            checksum_config=checksum,
            **options,
        ).finished_future.result()


class Boto3:
    def __init__(self, bucket: str) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.compat import HAS_CRT
        from botocore.config import Config

        self._bucket = bucket
        self._client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        # Its own thread pool even where awscrt is installed, which it would use otherwise.
        self._config = TransferConfig(multipart_chunksize=PART, preferred_transfer_client="classic")
        self._extra = {"ChecksumAlgorithm": "CRC32C" if HAS_CRT else "CRC32"}

    def put_file(self, key: str, path: str) -> None:
        self._client.upload_file(
            path, self._bucket, key, ExtraArgs=self._extra, Config=self._config
        )

    def put_memory(self, key: str, data: bytes) -> None:
        from io import BytesIO

        self._client.upload_fileobj(
            BytesIO(data), self._bucket, key, ExtraArgs=self._extra, Config=self._config
        )

    def get_file(self, key: str, path: str) -> None:
        self._client.download_file(self._bucket, key, path, Config=self._config)

    def get_memory(self, key: str, buffer: bytearray) -> None:
        self._client.download_fileobj(self._bucket, key, _Writer(buffer), Config=self._config)


class _Writer:
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


_MAKERS: dict[str, Callable[[str], Client]] = {"kumo_crt": Kumo, "awscrt": AwsCrt, "boto3": Boto3}


def _memory_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}: this needs Linux")


def _timed(work: Callable[[], None]) -> dict[str, float]:
    # Makes the high-water mark of memory begin here.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    memory = _memory_kib("VmRSS")
    usage, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "wall_seconds": wall,
        "peak_rss_growth_mib": (_memory_kib("VmHWM") - memory) / 1024,
    }


def _check(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise SystemExit(f"{what}: the content is not what was uploaded")


def main() -> None:
    name, operation, bucket, source, target = sys.argv[1:]
    client = _MAKERS[name](bucket)
    data = Path(source).read_bytes()  # also brings the file into the page cache
    head = data[:_WARM_UP_BYTES]
    client.put_memory("warm-up", head)
    client.get_memory("warm-up", bytearray(len(head)))
    buffer = bytearray(b"\1") * len(data) if operation == "get-memory" else bytearray()
    work: dict[str, Callable[[], None]] = {
        "put-file": lambda: client.put_file("object", source),
        "put-memory": lambda: client.put_memory("object", data),
        "get-file": lambda: client.get_file("object", target),
        "get-memory": lambda: client.get_memory("object", buffer),
    }
    figures = _timed(work[operation])
    if operation == "get-file":
        _check(zlib.crc32(Path(target).read_bytes()), zlib.crc32(data), target)
        os.unlink(target)
    elif operation == "get-memory":
        _check(zlib.crc32(buffer), zlib.crc32(data), "memory")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
