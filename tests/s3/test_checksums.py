"""The checksum functions against other implementations and known values."""

from __future__ import annotations

import array
import ctypes
import mmap
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kumo_crt

_BASE = bytes(range(256)) * 5


@dataclass(frozen=True)
class Kind:
    """A checksum and what is known of it."""

    name: str
    bits: int
    reflected_polynomial: int
    check: int
    """The value for b"123456789"."""

    @property
    def compute(self) -> Callable[..., int]:
        function: Callable[..., int] = getattr(kumo_crt, self.name)
        return function

    @property
    def combine(self) -> Callable[[int, int, int], int]:
        function: Callable[[int, int, int], int] = getattr(kumo_crt, f"{self.name}_combine")
        return function

    def reference(self, data: bytes, value: int = 0) -> int:
        """The definition, bit by bit."""
        ones = (1 << self.bits) - 1
        crc = value ^ ones
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (self.reflected_polynomial if crc & 1 else 0)
        return crc ^ ones


KINDS = [
    Kind("crc32", 32, 0xEDB88320, 0xCBF43926),
    Kind("crc32c", 32, 0x82F63B78, 0xE3069283),
    Kind("crc64nvme", 64, 0x9A6C9329AC4BC9B5, 0xAE8B14860A799888),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
repeatable = settings(deadline=None, database=None, derandomize=True, max_examples=200)


@each_kind
def test_known_value(kind: Kind) -> None:
    assert kind.compute(b"123456789") == kind.check


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_crc32c_of_the_vectors_in_rfc_3720(data: bytes, expected: int) -> None:
    assert kumo_crt.crc32c(data) == expected


@each_kind
def test_nothing_leaves_the_value(kind: Kind) -> None:
    assert kind.compute(b"") == 0
    assert kind.compute(b"", 12345) == 12345


@each_kind
@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 1023, 4096, 5000])
def test_every_small_size_and_alignment_equals_the_definition(kind: Kind, size: int) -> None:
    # Vector code has special cases for the head, the tail and each block size.
    data = bytes((7 * i + size) & 0xFF for i in range(size))
    expected = kind.reference(data)
    for shift in (0, 1, 3, 8, 15):
        padded = memoryview(bytes(shift) + data)[shift:]
        assert kind.compute(padded) == expected


def test_crc32_equals_zlib_on_large_data() -> None:
    data = _BASE * 10_000
    assert kumo_crt.crc32(data) == zlib.crc32(data)
    assert kumo_crt.crc32(data, 42) == zlib.crc32(data, 42)


@repeatable
@given(data=st.binary(max_size=5000), value=st.integers(0, 2**32 - 1))
def test_crc32_equals_zlib(data: bytes, value: int) -> None:
    assert kumo_crt.crc32(data, value) == zlib.crc32(data, value)


@each_kind
@repeatable
@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_incremental_equals_whole(kind: Kind, data: bytes, cut: int) -> None:
    head, tail = data[:cut], data[cut:]
    assert kind.compute(tail, kind.compute(head)) == kind.compute(data)


@each_kind
@repeatable
@given(a=st.binary(max_size=3000), b=st.binary(max_size=3000))
def test_combine_equals_whole(kind: Kind, a: bytes, b: bytes) -> None:
    assert kind.combine(kind.compute(a), kind.compute(b), len(b)) == kind.compute(a + b)


@each_kind
def test_combine_over_lengths_beyond_32_bits(kind: Kind) -> None:
    # Zeros doubled by combine: 2^33 of them, without computing over 8 GiB.
    zeros, length = kind.compute(bytes(1024)), 1024
    while length < 2**33:
        zeros, length = kind.combine(zeros, zeros, length), 2 * length
    first = kind.compute(b"head")
    in_one_step = kind.combine(first, zeros, length)
    half = kind.compute(bytes(1024))
    half_length = 1024
    while half_length < 2**32:
        half, half_length = kind.combine(half, half, half_length), 2 * half_length
    in_two_steps = kind.combine(kind.combine(first, half, half_length), half, half_length)
    assert in_one_step == in_two_steps


@each_kind
def test_every_kind_of_buffer(kind: Kind, tmp_path: Path) -> None:
    expected = kind.compute(_BASE)
    path = tmp_path / "data"
    path.write_bytes(_BASE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert kind.compute(mapped) == expected
    words = array.array("I")
    words.frombytes(_BASE)
    buffers: list[Any] = [
        bytearray(_BASE),
        memoryview(_BASE),
        memoryview(bytearray(_BASE)),
        memoryview(_BASE).cast("I"),
        memoryview(_BASE).cast("B", shape=(5, 256)),
        words,
        (ctypes.c_char * len(_BASE)).from_buffer_copy(_BASE),
    ]
    for buffer in buffers:
        assert kind.compute(buffer) == expected, type(buffer)


@each_kind
def test_a_buffer_with_gaps_is_refused(kind: Kind) -> None:
    with pytest.raises((BufferError, ValueError, TypeError)):
        kind.compute(memoryview(_BASE)[::2])


@each_kind
@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]])
def test_what_is_no_buffer_is_refused(kind: Kind, wrong: object) -> None:
    with pytest.raises(TypeError):
        kind.compute(wrong)


@each_kind
def test_a_value_out_of_range_is_refused(kind: Kind) -> None:
    for value in (-1, 1 << kind.bits):
        with pytest.raises((OverflowError, ValueError, TypeError)):
            kind.compute(b"data", value)
        with pytest.raises((OverflowError, ValueError, TypeError)):
            kind.combine(value, 0, 1)
    with pytest.raises((OverflowError, ValueError, TypeError)):
        kind.combine(0, 0, -1)


@each_kind
def test_other_threads_run_meanwhile(kind: Kind) -> None:
    data = bytes(64 * 1024 * 1024)
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    # With this interval a thread runs only where the GIL is given up, not by preemption.
    sys.setswitchinterval(30)
    try:
        thread.start()
        for _ in range(50):
            before = time.perf_counter()
            kind.compute(data)
            after = time.perf_counter()
            if any(before < at < after for at in ticks):
                break
            ticks.clear()
        else:
            pytest.fail("no other thread ran during 50 checksums of 64 MiB")
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
