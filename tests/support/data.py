"""Repeatable bytes."""

from __future__ import annotations

import functools
import random

from kumo_crt import GetResult

MIB = 1024 * 1024


@functools.lru_cache(maxsize=4)
def payload(size: int, seed: int = 0) -> bytes:
    """Returns bytes that differ everywhere, so that a misplaced part shows."""
    return random.Random(seed).randbytes(size)


def content(result: GetResult) -> bytes:
    """Returns what was received into fresh memory."""
    assert result.body is not None
    return bytes(result.body)


class OnlyRead:
    """A binary file object that can do nothing but read."""

    def __init__(self, data: bytes, chunk: int = 100_000) -> None:
        self._data = memoryview(data)
        self._chunk = chunk
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        # Short reads, as a pipe or a socket gives them.
        end = len(self._data) if size < 0 else self._position + min(size, self._chunk)
        data = bytes(self._data[self._position : end])
        self._position += len(data)
        return data
