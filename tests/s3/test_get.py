"""`get_object`: into memory, into a buffer, into a file, in part."""

from __future__ import annotations

import datetime
import gc
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import MIB, content, payload
from tests.support.servers import S3Server

DATA = payload(100_003)
SIZES = [0, 1, 4096, PART - 1, PART, PART + 1, 2 * PART + 1]


@pytest.fixture
def key(s3: kumo_crt.S3Client, bucket: str) -> str:
    s3.put_object(bucket, "key", DATA)
    return "key"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_every_way_to_receive(
    s3_parts: kumo_crt.S3Client, bucket: str, tmp_path: Path, size: int
) -> None:
    data = payload(size)
    put = s3_parts.put_object(bucket, "key", data)

    fresh = s3_parts.get_object(bucket, "key")
    assert fresh.body is not None
    assert bytes(fresh.body) == data

    buffer = bytearray(size)
    into_buffer = s3_parts.get_object(bucket, "key", into=buffer)
    assert buffer == data

    path = tmp_path / "file"
    into_path = s3_parts.get_object(bucket, "key", into=path)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]

    for result in (fresh, into_buffer, into_path):
        assert result.size == size
        assert result.etag == put.etag
        assert result.checksum_crc32c == put.checksum_crc32c == kumo_crt.crc32c(data)
    assert into_buffer.body is None
    assert into_path.body is None


def test_the_answer(s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
    result = s3.get_object(bucket, key)
    assert result.size == len(DATA)
    assert result.last_modified is not None
    age = datetime.datetime.now(datetime.UTC) - result.last_modified
    assert datetime.timedelta(minutes=-1) < age < datetime.timedelta(minutes=5)


# moto gives the composite checksum of a multipart upload out as that of the full object.
@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_a_large_object(s3_parts: kumo_crt.S3Client, bucket: str, tmp_path: Path) -> None:
    data = payload(40 * MIB)
    s3_parts.put_object(bucket, "large", data)
    body = content(s3_parts.get_object(bucket, "large"))
    assert body == data
    s3_parts.get_object(bucket, "large", into=tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.servers("seaweed-http")
class TestFreshBuffer:
    def test_it_is_read_only_and_outlives_the_client(
        self, s3_server: S3Server, bucket: str, key: str
    ) -> None:
        with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
            body = client.get_object(bucket, key).body
        del client
        gc.collect()
        assert body is not None
        view = memoryview(body)
        assert view.readonly
        assert view.c_contiguous
        assert bytes(view) == DATA


@pytest.mark.servers("seaweed-http")
class TestIntoBuffer:
    def test_a_larger_buffer_keeps_its_end(
        self, s3: kumo_crt.S3Client, bucket: str, key: str
    ) -> None:
        buffer = bytearray(b"\xee" * (len(DATA) + 100))
        result = s3.get_object(bucket, key, into=buffer)
        assert result.size == len(DATA)
        assert buffer == DATA + b"\xee" * 100

    @pytest.mark.parametrize("size", [0, 1, len(DATA) - 1])
    def test_a_smaller_buffer_is_refused(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, size: int
    ) -> None:
        backing = bytearray(b"\xee" * len(DATA))
        with pytest.raises(kumo_crt.KumoError, match=str(len(DATA))):
            s3.get_object(bucket, key, into=memoryview(backing)[:size])
        # Nothing was written behind the end of what was given.
        assert backing[size:] == b"\xee" * (len(DATA) - size)

    def test_a_small_buffer_for_a_multipart_download(
        self, s3_parts: kumo_crt.S3Client, bucket: str
    ) -> None:
        s3_parts.put_object(bucket, "large", payload(3 * PART))
        backing = bytearray(b"\xee" * (3 * PART))
        with pytest.raises(kumo_crt.KumoError, match=str(3 * PART)):
            s3_parts.get_object(bucket, "large", into=memoryview(backing)[: 2 * PART])
        assert backing[2 * PART :] == b"\xee" * PART

    def test_it_is_free_after_the_call(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        buffer = bytearray(len(DATA))
        s3.get_object(bucket, key, into=buffer)
        buffer.append(1)  # BufferError while anything still holds the buffer

    def test_a_mapping(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        with mmap.mmap(-1, len(DATA)) as mapped:
            s3.get_object(bucket, key, into=mapped)
            assert mapped[:] == DATA

    @pytest.mark.parametrize("into", [b"x" * len(DATA), 5, ["a"]])
    def test_what_cannot_be_written_is_refused(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, into: Any
    ) -> None:
        with pytest.raises((TypeError, ValueError, BufferError)):
            s3.get_object(bucket, key, into=into)


@pytest.mark.servers("seaweed-http")
class TestIntoPath:
    def test_an_existing_file_is_replaced(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"older and longer" * 100_000)
        s3.get_object(bucket, key, into=str(path))
        assert path.read_bytes() == DATA

    def test_a_failure_keeps_an_existing_file(
        self, s3: kumo_crt.S3Client, bucket: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"older")
        with pytest.raises(kumo_crt.NotFoundError):
            s3.get_object(bucket, "missing", into=path)
        assert path.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [path]

    def test_permissions_are_those_of_any_new_file(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path
    ) -> None:
        before = os.umask(0o027)
        try:
            s3.get_object(bucket, key, into=tmp_path / "file")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640

    def test_a_missing_directory(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError, match="no-such-directory") as caught:
            s3.get_object(bucket, key, into=tmp_path / "no-such-directory" / "file")
        assert caught.value.filename == str(tmp_path / "no-such-directory" / "file")
        assert not isinstance(caught.value, kumo_crt.S3Error)

    def test_a_directory(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path
    ) -> None:
        with pytest.raises(IsADirectoryError):
            s3.get_object(bucket, key, into=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_no_file(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path
    ) -> None:
        """A device would be a file from then on, for everybody."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        (tmp_path / "link").symlink_to(fifo)
        for path in (fifo, tmp_path / "link"):
            with pytest.raises(ValueError, match=r"fifo is no regular file"):
                s3.get_object(bucket, key, into=path)
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        assert len(list(tmp_path.iterdir())) == 2

    def test_links_stay(self, s3: kumo_crt.S3Client, bucket: str, key: str, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
        link.symlink_to(target)
        for _ in range(2):  # into nothing, and over a file
            s3.get_object(bucket, key, into=link)
            assert link.is_symlink()
            assert target.read_bytes() == link.read_bytes() == DATA
            target.write_bytes(b"old")

    def test_a_full_disk(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        # /dev/full accepts no byte; a directory that takes no new file is the other half.
        directory = Path("/proc/self")
        with pytest.raises(OSError, match="self") as caught:
            s3.get_object(bucket, key, into=directory / "file")
        assert not isinstance(caught.value, kumo_crt.S3Error)


@pytest.mark.servers("seaweed-http", "moto")
class TestRange:
    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 1), (0, 100), (5, 6), (1000, 99_999), (len(DATA) - 1, len(DATA)), (0, len(DATA))],
    )
    def test_half_open(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, start: int, stop: int
    ) -> None:
        result = s3.get_object(bucket, key, range=(start, stop))
        assert result.body is not None
        assert bytes(result.body) == DATA[start:stop]
        assert result.size == stop - start
        assert result.checksum_crc32c == kumo_crt.crc32c(DATA[start:stop])

    def test_beyond_the_end_is_cut(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        result = s3.get_object(bucket, key, range=(len(DATA) - 10, len(DATA) + 1000))
        assert result.body is not None
        assert bytes(result.body) == DATA[-10:]

    def test_wholly_beyond_the_end(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        with pytest.raises(kumo_crt.S3Error) as caught:
            s3.get_object(bucket, key, range=(len(DATA), len(DATA) + 1))
        assert caught.value.status == 416

    @pytest.mark.parametrize("wrong", [(5, 5), (6, 5), (-1, 5)])
    def test_an_impossible_range(
        self, s3: kumo_crt.S3Client, bucket: str, key: str, wrong: tuple[int, int]
    ) -> None:
        with pytest.raises(ValueError, match="range"):
            s3.get_object(bucket, key, range=wrong)

    def test_across_parts_into_each_sink(
        self, s3_parts: kumo_crt.S3Client, bucket: str, tmp_path: Path
    ) -> None:
        data = payload(4 * PART)
        s3_parts.put_object(bucket, "large", data)
        start, stop = PART - 3, 3 * PART + 7
        buffer = bytearray(stop - start)
        s3_parts.get_object(bucket, "large", range=(start, stop), into=buffer)
        assert buffer == data[start:stop]
        s3_parts.get_object(bucket, "large", range=(start, stop), into=tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == data[start:stop]
        body = content(s3_parts.get_object(bucket, "large", range=(start, stop)))
        assert body == data[start:stop]


class TestConditions:
    def test_if_match(self, s3: kumo_crt.S3Client, bucket: str, key: str) -> None:
        etag = s3.head_object(bucket, key).etag
        assert s3.get_object(bucket, key, if_match=etag).size == len(DATA)
        with pytest.raises(kumo_crt.PreconditionFailedError):
            s3.get_object(bucket, key, if_match="0" * 32)

    def test_versions(self, s3: kumo_crt.S3Client, versioned_bucket: str) -> None:
        bucket = versioned_bucket
        first = s3.put_object(bucket, "key", b"first")
        second = s3.put_object(bucket, "key", b"second")
        assert first.version_id
        assert first.version_id != second.version_id
        old = s3.get_object(bucket, "key", version_id=first.version_id)
        new = s3.get_object(bucket, "key")
        assert content(old) == b"first"
        assert old.version_id == first.version_id
        assert content(new) == b"second"
        assert new.version_id == second.version_id


@pytest.mark.servers("seaweed-http")
def test_progress_grows_to_the_size(s3_parts: kumo_crt.S3Client, bucket: str) -> None:
    data = payload(3 * PART)
    s3_parts.put_object(bucket, "key", data)
    seen: list[tuple[int, int]] = []
    record: Callable[[int, int], object] = lambda done, total: seen.append((done, total))  # noqa: E731
    s3_parts.get_object(bucket, "key", progress=record)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(data), len(data))
