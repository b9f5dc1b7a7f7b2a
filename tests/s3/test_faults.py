"""Damaged and cut transfers: an exception or a successful retry, never wrong or short data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.fault_proxy import Action, Fault, FaultProxy
from tests.support.servers import S3Server

SMALL = payload(200_000)
LARGE = payload(3 * PART + 11)
ALWAYS = 1_000_000
Listed = Callable[[], list[str]]


@pytest.fixture
def client(s3_server: S3Server, proxy: FaultProxy) -> Iterator[kumo_crt.S3Client]:
    """A client behind the proxy that gives up after two attempts."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url,
        part_size=PART,
        multipart_threshold=PART,
        max_attempts=2,
        connect_timeout=5,
        request_timeout=5,
    )
    with kumo_crt.S3Client(**arguments) as running:
        yield running


@pytest.fixture
def objects(s3_parts: kumo_crt.S3Client, bucket: str) -> dict[str, bytes]:
    """A small and a multipart object, stored past the proxy."""
    contents = {"small": SMALL, "large": LARGE}
    for key, data in contents.items():
        s3_parts.put_object(bucket, key, data)
    return contents


@pytest.mark.servers("seaweed-http")
class TestDamage:
    @pytest.mark.parametrize("key", ["small", "large"])
    @pytest.mark.parametrize("place", ["first", "middle", "last"])
    def test_a_flipped_bit_in_a_download(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
        key: str,
        place: str,
    ) -> None:
        # Of the response that carries the first, or only, part.
        size = min(len(objects[key]), PART)
        offset = {"first": 0, "middle": size // 2, "last": size - 1}[place]
        for into in (None, bytearray(len(objects[key])), tmp_path / "file"):
            fault = Fault("flip", offset=offset, method="GET", target=key, times=ALWAYS)
            with proxy.armed(fault), pytest.raises(kumo_crt.ChecksumMismatchError) as caught:
                client.get_object(bucket, key, into=into)
            # The last byte is here before the proxy has told that it sent it.
            assert fault.fired.wait(10)
            assert key in str(caught.value)
            # Somewhere in all that came is the damage.
            assert caught.value.valid_bytes == (0 if isinstance(into, bytearray) else None)
        assert list(tmp_path.iterdir()) == []
        assert content(client.get_object(bucket, key)) == objects[key]

    def test_an_existing_file_survives_a_damaged_download(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"older")
        fault = Fault("flip", offset=7, method="GET", target="small", times=ALWAYS)
        with proxy.armed(fault), pytest.raises(kumo_crt.ChecksumMismatchError):
            client.get_object(bucket, "small", into=path)
        assert path.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["single", "multipart"])
    def test_a_flipped_bit_in_an_upload(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        keys: Listed,
        uploads: Listed,
        data: bytes,
    ) -> None:
        with proxy.armed(
            Fault("flip", "request", 1000, method="PUT", target="/key", times=ALWAYS)
        ) as fault:
            with pytest.raises((kumo_crt.ChecksumMismatchError, kumo_crt.S3Error)):
                client.put_object(bucket, "key", data)
            assert fault.fired.is_set()
        assert keys() == []
        assert uploads() == []


CUTS = [
    ("head", 0),
    ("head", 1),
    ("head", 40),
    ("body", 0),
    ("body", 1),
    ("body", 100_000),
    ("body", len(SMALL) - 1),
]


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("action", ["reset", "close"])
class TestCuts:
    @pytest.mark.parametrize(("place", "offset"), CUTS)
    def test_a_download_cut_once(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
        action: Action,
        place: str,
        offset: int,
    ) -> None:
        for key in objects:
            fault = proxy.add(
                Fault(action, offset=offset, method="GET", target=key, in_head=place == "head")
            )
            path = tmp_path / key
            try:
                result = client.get_object(bucket, key, into=path)
            except kumo_crt.TransportError:
                assert not path.exists()
            else:
                assert result.size == len(objects[key])
                assert path.read_bytes() == objects[key]
                path.unlink()
            assert fault.fired.is_set()
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("place", "offset"), CUTS)
    def test_a_download_cut_every_time(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
        action: Action,
        place: str,
        offset: int,
    ) -> None:
        fault = Fault(
            action,
            offset=offset,
            method="GET",
            target="small",
            in_head=place == "head",
            times=ALWAYS,
        )
        with proxy.armed(fault):
            for into in (None, bytearray(len(SMALL)), tmp_path / "file"):
                with pytest.raises(kumo_crt.TransportError):
                    client.get_object(bucket, "small", into=into)
            assert list(tmp_path.iterdir()) == []
        # The client itself is none the worse.
        assert content(client.get_object(bucket, "small")) == objects["small"]

    def test_one_part_cut_every_time(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
        action: Action,
    ) -> None:
        fault = Fault(action, offset=PART // 2, method="GET", target="large", times=ALWAYS)
        with proxy.armed(fault), pytest.raises(kumo_crt.TransportError):
            client.get_object(bucket, "large", into=tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("offset", [0, 1, 100_000, len(SMALL) - 1])
    def test_an_upload_cut_once(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        stored: Callable[[str], bytes],
        keys: Listed,
        action: Action,
        offset: int,
    ) -> None:
        for data in (SMALL, LARGE):
            proxy.add(Fault(action, "request", offset, method="PUT", target="/key"))
            try:
                result = client.put_object(bucket, "key", data)
            except kumo_crt.TransportError:
                assert keys() == []
            else:
                assert result.checksum_crc32c == kumo_crt.crc32c(data)
                assert stored("key") == data

    def test_an_upload_cut_every_time(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        keys: Listed,
        uploads: Listed,
        action: Action,
    ) -> None:
        fault = Fault(action, "request", 1000, method="PUT", target="/key", times=ALWAYS)
        with proxy.armed(fault):
            for data in (SMALL, LARGE):
                with pytest.raises(kumo_crt.TransportError):
                    client.put_object(bucket, "key", data)
        assert keys() == []
        assert uploads() == []

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["single", "multipart"])
    def test_a_conditional_upload_whose_answer_is_lost(
        self,
        client: kumo_crt.S3Client,
        proxy: FaultProxy,
        bucket: str,
        stored: Callable[[str], bytes],
        action: Action,
        data: bytes,
    ) -> None:
        # The write landed; a retry sees its own object as a conflict. That is success.
        method = "PUT" if data is SMALL else "POST"
        target = "/key" if data is SMALL else "uploadId="
        fault = proxy.add(Fault(action, offset=0, method=method, target=target, in_head=True))
        result = client.put_object(bucket, "key", data, if_none_match="*")
        assert fault.fired.is_set()
        assert result.checksum_crc32c == kumo_crt.crc32c(data)
        assert stored("key") == data


@pytest.mark.servers("seaweed-https")
@pytest.mark.parametrize("action", ["reset", "close"])
@pytest.mark.parametrize("offset", [0, 100, 1_000, 3_000, 150_000])
def test_tls_cut_every_time(
    s3_server: S3Server,
    proxy: FaultProxy,
    bucket: str,
    objects: dict[str, bytes],
    tmp_path: Path,
    action: Action,
    offset: int,
) -> None:
    # In the handshake, behind it, and in the middle of the data.
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, max_attempts=2, connect_timeout=5, request_timeout=5
    )
    proxy.add(Fault(action, offset=offset, times=ALWAYS))
    with kumo_crt.S3Client(**arguments) as client:
        for into in (None, tmp_path / "file"):
            with pytest.raises(kumo_crt.TransportError):
                client.get_object(bucket, "small", into=into)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers("seaweed-http")
class TestStalls:
    def test_a_stalled_download_times_out(
        self,
        client: kumo_crt.S3Client,
        s3_server: S3Server,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        tmp_path: Path,
    ) -> None:
        arguments = s3_server.client_arguments(
            endpoint_url=proxy.endpoint_url, request_timeout=1, max_attempts=2
        )
        fault = Fault("stall", offset=50_000, method="GET", target="small", times=ALWAYS)
        before = time.monotonic()
        with (
            kumo_crt.S3Client(**arguments) as impatient,
            proxy.armed(fault),
            pytest.raises(kumo_crt.TransportError),
        ):
            impatient.get_object(bucket, "small", into=tmp_path / "file")
        assert time.monotonic() - before < 20
        assert list(tmp_path.iterdir()) == []

    def test_a_slow_download_is_no_stalled_one(
        self, client: kumo_crt.S3Client, proxy: FaultProxy, bucket: str, objects: dict[str, bytes]
    ) -> None:
        fault = Fault("slow", method="GET", target="small", bytes_per_second=100_000)
        with proxy.armed(fault):
            assert content(client.get_object(bucket, "small")) == SMALL

    def test_other_threads_run_while_a_call_waits(
        self, client: kumo_crt.S3Client, proxy: FaultProxy, bucket: str, objects: dict[str, bytes]
    ) -> None:
        fault = proxy.add(Fault("stall", offset=1000, method="GET", target="small"))
        received: list[Any] = []
        thread = threading.Thread(
            target=lambda: received.append(content(client.get_object(bucket, "small")))
        )
        thread.start()
        # This thread runs on, so the waiting one does not hold the GIL.
        assert fault.fired.wait(10)
        count = sum(1 for _ in range(100_000))
        assert count == 100_000
        assert thread.is_alive()
        proxy.release()
        thread.join(20)
        assert received == [SMALL]


@pytest.mark.servers("seaweed-http")
class TestValidBytes:
    """A download into the caller's memory that fails tells how much of it is good."""

    @pytest.mark.parametrize(("place", "least"), [("first", 0), ("later", PART)])
    def test_of_a_download_that_was_cut(
        self,
        s3_server: S3Server,
        proxy: FaultProxy,
        bucket: str,
        objects: dict[str, bytes],
        place: str,
        least: int,
    ) -> None:
        arguments = s3_server.client_arguments(
            endpoint_url=proxy.endpoint_url, part_size=PART, max_attempts=1
        )
        into = bytearray(len(LARGE))
        fault = Fault("close", "response", 10, method="GET", times=1)
        if place == "later":
            fault.status = "206"  # one of the ranges that follow the first request
        proxy.add(fault)
        with (
            kumo_crt.S3Client(**arguments) as client,
            pytest.raises(kumo_crt.TransportError) as caught,
        ):
            client.get_object(bucket, "large", into=into)
        valid = caught.value.valid_bytes
        assert valid is not None
        assert least <= valid < len(LARGE)
        assert valid % PART == 0
        assert into[:valid] == LARGE[:valid]
