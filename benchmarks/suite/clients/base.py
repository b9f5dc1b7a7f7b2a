"""What a client has to do, and what it is told."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PART = 8 << 20
# Transfers at once, of clients that have to be told.
PARALLEL = 8
BUCKET = "bucket"
ACCESS_KEY = "AKBENCH"
SECRET_KEY = "benchmark"
REGION = "us-east-1"


class Unsupported(Exception):  # noqa: N818 - not an error
    """The client has no such operation."""


@dataclass(frozen=True)
class Service:
    """The server that a client talks to."""

    endpoint_url: str
    ca_file: str | None
    checksum: bool

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS."""
        return self.endpoint_url.startswith("https:")

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.endpoint_url).netloc


@dataclass
class Load:
    """Many small requests, bounded in number and in time.

    Attributes:
        keys: Used in turn.
    """

    keys: list[str]
    data: bytes
    concurrency: int
    count: int
    seconds: float

    def threads(self, request: Callable[[str], object]) -> dict[str, float]:
        """Sends requests from threads; returns the figures."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            list(pool.map(request, self.keys[: 4 * self.concurrency]))

            def drive(first: int) -> int:
                return sum(1 for _ in map(request, self._turns(first, until)))

            until, begin = time.monotonic() + self.seconds, _Stopwatch()
            done = sum(pool.map(drive, range(self.concurrency)))
            return begin.figures(done)

    async def tasks(self, request: Callable[[str], Awaitable[Any]]) -> dict[str, float]:
        """Sends requests from asyncio tasks; returns the figures."""

        async def drive(first: int, until: float) -> int:
            done = 0
            for key in self._turns(first, until):
                await request(key)
                done += 1
            return done

        await asyncio.gather(*(request(key) for key in self.keys[: self.concurrency]))
        until, begin = time.monotonic() + self.seconds, _Stopwatch()
        done = await asyncio.gather(*(drive(i, until) for i in range(self.concurrency)))
        return begin.figures(sum(done))

    def _turns(self, first: int, until: float) -> Any:
        for turn in range(first, self.count, self.concurrency):
            if time.monotonic() >= until:
                return
            yield self.keys[turn % len(self.keys)]


class _Stopwatch:
    def __init__(self) -> None:
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._clock = time.perf_counter()

    def figures(self, done: int) -> dict[str, float]:
        wall = time.perf_counter() - self._clock
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime - self._usage.ru_utime - self._usage.ru_stime
        return {"requests_per_second": done / wall, "wall_seconds": wall, "cpu_seconds": cpu}


class Client:
    """A client of S3. Keys are in `BUCKET`; what it cannot do raises `Unsupported`.

    Attributes:
        is_command: The work is done in processes of its own.
    """

    is_command = False

    def __init__(self, service: Service) -> None:
        self.service = service

    def put_file(self, key: str, path: str) -> None:
        """Uploads a file."""
        raise Unsupported

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        """Uploads files of a directory, to their names under a prefix."""
        raise Unsupported

    def put_memory(self, key: str, data: bytes) -> None:
        """Uploads from memory."""
        raise Unsupported

    def get_file(self, key: str, path: str) -> None:
        """Downloads to a file."""
        raise Unsupported

    def get_memory(self, key: str, buffer: bytearray) -> None:
        """Downloads into memory that is there and touched."""
        raise Unsupported

    def put_small(self, key: str, data: bytes) -> None:
        """Uploads a small object in one request."""
        raise Unsupported

    def get_small(self, key: str) -> int:
        """Downloads a small object in one request; returns its size."""
        raise Unsupported

    def load_put(self, load: Load) -> dict[str, float]:
        """Uploads many small objects at once: in threads, if there is nothing better."""
        return load.threads(lambda key: self.put_small(key, load.data))

    def load_get(self, load: Load) -> dict[str, float]:
        """Downloads many small objects at once."""
        return load.threads(self.get_small)

    def close(self) -> None:
        """Lets go of connections, where that has to be asked for."""
