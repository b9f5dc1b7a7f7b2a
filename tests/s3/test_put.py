"""`put_object`: every kind of body, every size around the limits, conditions, clean-up."""

from __future__ import annotations

import array
import base64
import ctypes
import io
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import MIB, OnlyRead, payload
from tests.support.servers import S3Server

DATA = payload(100_003)
SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1]
Read = Callable[[str], bytes]
Listed = Callable[[], list[str]]


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _words(data: bytes) -> array.array[int]:
    words = array.array("H")
    words.frombytes(data)
    return words


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(b"---" + data)[3:],
        lambda data: _words(data + b"x"),
        lambda data: (ctypes.c_char * len(data)).from_buffer_copy(data),
    ],
    ids=["bytes", "bytearray", "memoryview", "unaligned", "array", "ctypes"],
)
def test_every_kind_of_buffer(
    s3: kumo_crt.S3Client, bucket: str, stored: Read, make: Callable[[bytes], Any]
) -> None:
    body = make(DATA)
    expected = bytes(memoryview(body).cast("B"))
    result = s3.put_object(bucket, "key", body)
    assert result.size == len(expected)
    assert result.checksum_crc32c == kumo_crt.crc32c(expected)
    assert stored("key") == expected


def test_a_mapped_file(s3: kumo_crt.S3Client, bucket: str, stored: Read, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    mapped = _map(path)
    s3.put_object(bucket, "key", mapped)
    mapped.close()  # fails while anything still holds the buffer
    assert stored("key") == DATA


def test_the_buffer_is_free_after_the_call(s3_parts: kumo_crt.S3Client, bucket: str) -> None:
    for size in (1000, 2 * PART):
        body = bytearray(size)
        s3_parts.put_object(bucket, "key", body)
        body.append(1)  # BufferError while anything still holds the buffer


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("source", ["buffer", "path", "str", "file", "stream"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_part_size(
    s3_parts: kumo_crt.S3Client,
    bucket: str,
    boto: Any,
    stored: Read,
    uploads: Listed,
    tmp_path: Path,
    size: int,
    source: str,
) -> None:
    data = payload(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    with path.open("rb") as file:
        bodies: dict[str, Any] = {
            "buffer": data,
            "path": path,
            "str": str(path),
            "file": file,
            "stream": OnlyRead(data),
        }
        result = s3_parts.put_object(bucket, "key", bodies[source])
    assert result.size == size
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    assert stored("key") == data
    assert uploads() == []
    head = boto.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert base64.b64decode(head["ChecksumCRC32C"]) == result.checksum_crc32c.to_bytes(4, "big")
    assert head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    assert head["ETag"].strip('"') == result.etag


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("source", ["path", "stream"])
def test_a_large_multipart_upload_from_a_file(
    s3_parts: kumo_crt.S3Client, bucket: str, stored: Read, tmp_path: Path, source: str
) -> None:
    data = payload(40 * MIB)
    path = tmp_path / "data"
    path.write_bytes(data)
    body = path if source == "path" else OnlyRead(data, 1 << 20)
    result = s3_parts.put_object(bucket, "large", body)
    assert result.etag.endswith("-8")
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    assert stored("large") == data


def test_a_large_multipart_upload(
    s3_parts: kumo_crt.S3Client,
    bucket: str,
    boto: Any,
    stored: Read,
    uploads: Listed,
    s3_server: S3Server,
) -> None:
    data = payload(40 * MIB)
    result = s3_parts.put_object(bucket, "large", data)
    assert result.etag.endswith("-8")  # a multipart upload of eight parts
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    assert stored("large") == data
    assert uploads() == []
    if s3_server.is_strict:
        head = boto.head_object(Bucket=bucket, Key="large", ChecksumMode="ENABLED")
        assert head["ChecksumType"] == "FULL_OBJECT"
        stored_crc = int.from_bytes(base64.b64decode(head["ChecksumCRC32C"]), "big")
        assert stored_crc == result.checksum_crc32c


@pytest.mark.servers("seaweed-http")
class TestFileObjects:
    def test_a_file_is_read_from_where_it_stands(
        self, s3: kumo_crt.S3Client, bucket: str, stored: Read, tmp_path: Path
    ) -> None:
        path = tmp_path / "data"
        path.write_bytes(DATA)
        with path.open("rb") as file:
            file.seek(1000)
            s3.put_object(bucket, "key", file)
        assert stored("key") == DATA[1000:]

    def test_bytes_io(self, s3: kumo_crt.S3Client, bucket: str, stored: Read) -> None:
        s3.put_object(bucket, "key", io.BytesIO(DATA))
        assert stored("key") == DATA

    def test_a_pipe(self, s3_parts: kumo_crt.S3Client, bucket: str, stored: Read) -> None:
        data = payload(2 * PART + 77)
        reading, writing = os.pipe()

        def feed() -> None:
            with open(writing, "wb") as file:
                file.write(data)

        thread = threading.Thread(target=feed)
        thread.start()
        with open(reading, "rb") as file:
            result = s3_parts.put_object(bucket, "key", file)
        thread.join()
        assert result.size == len(data)
        assert stored("key") == data

    def test_an_error_while_reading_is_raised_and_cleaned_up(
        self, s3_parts: kumo_crt.S3Client, bucket: str, keys: Listed, uploads: Listed
    ) -> None:
        class Broken(OnlyRead):
            def read(self, size: int = -1) -> bytes:
                if self._position > 2 * PART:
                    raise OSError("the disk is broken")
                return super().read(size)

        with pytest.raises(OSError, match="the disk is broken"):
            s3_parts.put_object(bucket, "key", Broken(payload(4 * PART), 1 << 20))
        assert keys() == []
        assert uploads() == []

    def test_text_is_refused(self, s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
        with pytest.raises(TypeError):
            s3.put_object(bucket, "key", io.StringIO("text"))
        assert keys() == []


@pytest.mark.servers("seaweed-http")
class TestBadBodies:
    def test_a_missing_file(self, s3: kumo_crt.S3Client, bucket: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="missing-file") as caught:
            s3.put_object(bucket, "key", tmp_path / "missing-file")
        # Not the service's answer, so not the service's exception.
        assert not isinstance(caught.value, kumo_crt.S3Error)

    def test_a_directory(self, s3: kumo_crt.S3Client, bucket: str, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError):
            s3.put_object(bucket, "key", tmp_path)

    @pytest.mark.parametrize("body", [None, 5, ["a"], object()])
    def test_what_is_no_body(self, s3: kumo_crt.S3Client, bucket: str, body: Any) -> None:
        with pytest.raises(TypeError):
            s3.put_object(bucket, "key", body)

    def test_a_buffer_with_gaps(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        with pytest.raises((BufferError, ValueError, TypeError)):
            s3.put_object(bucket, "key", memoryview(DATA)[::2])

    def test_an_empty_key(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        with pytest.raises(ValueError, match="key"):
            s3.put_object(bucket, "", b"data")


@pytest.mark.parametrize("size", [10, PART + 1])
class TestConditions:
    def test_if_none_match_writes_a_new_key(
        self, s3_parts: kumo_crt.S3Client, bucket: str, stored: Read, size: int
    ) -> None:
        s3_parts.put_object(bucket, "key", payload(size), if_none_match="*")
        assert stored("key") == payload(size)

    def test_if_none_match_refuses_an_existing_key(
        self,
        s3_parts: kumo_crt.S3Client,
        bucket: str,
        boto: Any,
        stored: Read,
        uploads: Listed,
        size: int,
    ) -> None:
        boto.put_object(Bucket=bucket, Key="key", Body=b"first")
        with pytest.raises(kumo_crt.PreconditionFailedError) as caught:
            s3_parts.put_object(bucket, "key", payload(size), if_none_match="*")
        assert caught.value.status == 412
        assert stored("key") == b"first"
        assert uploads() == []

    def test_equal_content_is_a_conflict_too(
        self, s3_parts: kumo_crt.S3Client, bucket: str, size: int
    ) -> None:
        # Equal bytes written by someone else are not our own earlier success.
        s3_parts.put_object(bucket, "key", payload(size), if_none_match="*")
        with pytest.raises(kumo_crt.PreconditionFailedError):
            s3_parts.put_object(bucket, "key", payload(size), if_none_match="*")


def test_if_match(s3: kumo_crt.S3Client, bucket: str, stored: Read) -> None:
    first = s3.put_object(bucket, "key", b"first")
    s3.put_object(bucket, "key", b"second", if_match=first.etag)
    with pytest.raises(kumo_crt.PreconditionFailedError):
        s3.put_object(bucket, "key", b"third", if_match=first.etag)
    assert stored("key") == b"second"


@pytest.mark.servers("seaweed-http")
class TestProgress:
    @pytest.mark.parametrize("source", ["buffer", "path", "stream"])
    def test_it_grows_to_the_size(
        self, s3_parts: kumo_crt.S3Client, bucket: str, tmp_path: Path, source: str
    ) -> None:
        data = payload(3 * PART + 5)
        path = tmp_path / "data"
        path.write_bytes(data)
        bodies: dict[str, Any] = {"buffer": data, "path": path, "stream": OnlyRead(data)}
        seen: list[int] = []
        s3_parts.put_object(
            bucket, "key", bodies[source], progress=lambda done, total: seen.append(done)
        )
        assert seen == sorted(seen)
        assert seen[-1] == len(data)

    def test_its_exception_stops_the_upload(
        self, s3_parts: kumo_crt.S3Client, bucket: str, keys: Listed, uploads: Listed
    ) -> None:
        class StopError(Exception):
            pass

        def progress(done: int, total: int) -> None:
            raise StopError

        with pytest.raises(StopError):
            s3_parts.put_object(bucket, "key", payload(3 * PART), progress=progress)
        assert uploads() == []


@pytest.mark.servers("seaweed-http")
def test_many_threads_share_a_client(s3_parts: kumo_crt.S3Client, bucket: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                data = payload(PART + 1 if turn == 0 else 10_000, seed=number)
                s3_parts.put_object(bucket, f"key-{number}", data)
                body = s3_parts.get_object(bucket, f"key-{number}").body
                assert body is not None
                assert bytes(body) == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
