"""What the measuring process does: one function an action, named in `suite.cases`.

Each warms up first: connections and code, the page cache, memory's first touch (which costs seconds
a GiB in a virtual machine).
"""

from __future__ import annotations

import http.client
import importlib
import os
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite import clients
from suite.clients.base import BUCKET, Client, Load, Service

SMALL = 4096
_KEYS = 256


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        size: Bytes of the transfer.
        verify: Read a download again and compare it; slow.
        server: ``host:port`` of the plain HTTP server, which knows checksums.
        source: File of ``size`` bytes.
        warm_up: A smaller file.
        directory: Of the many files.
        target: Where a download goes.
        count: Small requests at most.
        seconds: For small requests at most.
    """

    client: str
    action: str
    size: int
    verify: bool
    server: str
    endpoint_url: str
    ca_file: str | None
    checksum: bool
    source: str
    warm_up: str
    directory: str
    target: str
    count: int
    seconds: float
    concurrency: int


Figures = dict[str, float]


def run(job: Job) -> Figures:
    """Does the job and returns its figures."""
    if job.action.startswith("crc_"):
        return _crc(job)
    if job.action == "import_time":
        return _import_time(job)
    client = clients.make(job.client, Service(job.endpoint_url, job.ca_file, job.checksum))
    try:
        action: Callable[[Client, Job], Figures] = globals()["_" + job.action]
        return action(client, job)
    finally:
        client.close()


# -- transfers -----------------------------------------------------------------------------------


def _upload_file(client: Client, job: Job) -> Figures:
    memory = _memory_mib("VmRSS")
    client.put_file("warm-up", job.warm_up)
    _read_through(job.source)
    return _timed(client, memory, lambda: client.put_file("object", job.source))


def _upload_files(client: Client, job: Job) -> Figures:
    memory = _memory_mib("VmRSS")
    client.put_file("warm-up", job.warm_up)
    names = sorted(os.listdir(job.directory))
    for name in names:
        _read_through(os.path.join(job.directory, name))
    return _timed(client, memory, lambda: client.put_files("many/", job.directory, names))


def _upload_memory(client: Client, job: Job) -> Figures:
    data = Path(job.source).read_bytes()
    warm_up = data[: os.path.getsize(job.warm_up)]
    memory = _memory_mib("VmRSS")
    client.put_memory("warm-up", warm_up)
    return _timed(client, memory, lambda: client.put_memory("object", data))


def _download_file(client: Client, job: Job) -> Figures:
    warm_up = os.path.getsize(job.warm_up)
    memory = _memory_mib("VmRSS")
    client.get_file(f"generated/{warm_up}/warm-up", job.target)
    os.unlink(job.target)
    key = f"generated/{job.size}/object"
    figures = _timed(client, memory, lambda: client.get_file(key, job.target))
    if os.path.getsize(job.target) != job.size:
        raise RuntimeError(f"{os.path.getsize(job.target)} bytes arrived instead of {job.size}")
    if job.verify:
        crc = 0
        with open(job.target, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                crc = zlib.crc32(piece, crc)
        _compare(job, key, crc)
    os.unlink(job.target)
    return figures


def _download_memory(client: Client, job: Job) -> Figures:
    buffer = bytearray(b"\1") * job.size
    small = bytearray(os.path.getsize(job.warm_up))
    memory = _memory_mib("VmRSS")
    client.get_memory(f"generated/{len(small)}/warm-up", small)
    key = f"generated/{job.size}/object"
    figures = _timed(client, memory, lambda: client.get_memory(key, buffer))
    if job.verify:
        _compare(job, key, zlib.crc32(buffer))
    return figures


def _compare(job: Job, key: str, crc32: int) -> None:
    connection = http.client.HTTPConnection(job.server)
    connection.request("HEAD", f"/{BUCKET}/{key}", headers={"x-amz-checksum-mode": "ENABLED"})
    expected = connection.getresponse().headers["x-bench-crc32"]
    connection.close()
    if crc32 != int(expected):
        raise RuntimeError("the content is not what the server sent")


def _read_through(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def _timed(client: Client, memory: float, work: Callable[[], None]) -> Figures:
    """Runs the work; its memory is what is above that of before the warm-up."""
    who = resource.RUSAGE_CHILDREN if client.is_command else resource.RUSAGE_SELF
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins here
    usage, clock = resource.getrusage(who), time.perf_counter()
    work()
    wall = time.perf_counter() - clock
    after = resource.getrusage(who)
    # Of a command, all of its memory: it began with none.
    peak = after.ru_maxrss / 1024 if client.is_command else _memory_mib("VmHWM") - memory
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "wall_seconds": wall,
        "peak_rss_growth_mib": peak,
    }


def _memory_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}: this needs Linux")


# -- small objects -------------------------------------------------------------------------------


def _load(job: Job, keys: list[str]) -> Load:
    return Load(keys, os.urandom(SMALL), job.concurrency, job.count, job.seconds)


def _put_keys() -> list[str]:
    return [f"small/{i}" for i in range(_KEYS)]


def _get_keys() -> list[str]:
    return [f"generated/{SMALL}/{i}" for i in range(_KEYS)]


def _small_async_put(client: Client, job: Job) -> Figures:
    return client.load_put(_load(job, _put_keys()))


def _small_async_get(client: Client, job: Job) -> Figures:
    return client.load_get(_load(job, _get_keys()))


def _small_sync_put(client: Client, job: Job) -> Figures:
    data = os.urandom(SMALL)
    return _latencies(job, _put_keys(), lambda key: client.put_small(key, data))


def _small_sync_get(client: Client, job: Job) -> Figures:
    if client.get_small(f"generated/{SMALL}/warm-up") != SMALL:
        raise RuntimeError("the object has another size")
    return _latencies(job, _get_keys(), client.get_small)


def _latencies(job: Job, keys: list[str], request: Callable[[str], object]) -> Figures:
    for key in keys[:50]:
        request(key)
    times: list[float] = []
    until = time.monotonic() + job.seconds
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for turn in range(job.count):
        begun = time.perf_counter()
        request(keys[turn % len(keys)])
        times.append(time.perf_counter() - begun)
        if time.monotonic() >= until:
            break
    after = resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    return {
        "p50_us": statistics.median(times) * 1e6,
        "p99_us": times[len(times) * 99 // 100] * 1e6,
        "requests_per_second": len(times) / sum(times),
        "cpu_seconds": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "wall_seconds": sum(times),
    }


# -- without a server ----------------------------------------------------------------------------


def _crc_function(client: str) -> Callable[[Any], int]:
    module, name = {
        "kumo_crt": ("kumo_crt", "crc32c"),
        "awscrt": ("awscrt.checksums", "crc32c"),
        "crc32c": ("crc32c", "crc32c"),
        "google-crc32c": ("google_crc32c", "value"),
        "anycrc": ("anycrc", "Model"),
        "fastcrc": ("fastcrc.crc32", "iscsi"),
    }[client]
    found = getattr(importlib.import_module(module), name)
    function: Callable[[Any], int] = found("CRC32C").calc if client == "anycrc" else found
    if function(b"123456789") != 0xE3069283:
        raise RuntimeError(f"{client} computes something else")
    return function


def _crc(job: Job) -> Figures:
    function = _crc_function(job.client)
    if job.action == "crc_large":
        # Larger than any cache, and each time read from its begin: nothing of that is in one.
        data = Path(job.source).read_bytes()
        seconds = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            function(data)
            seconds = min(seconds, time.perf_counter() - begun)
        return {"gib_per_second": len(data) / (1 << 30) / seconds, "wall_seconds": seconds}
    piece = os.urandom(1024)
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(10_000):
            function(piece)
        best = min(best, time.perf_counter() - begun)
    return {"nanoseconds": best / 10_000 * 1e9}


_IMPORTS = {
    "kumo_crt": "from kumo_crt import S3Client",
    "awscrt": "from awscrt.s3 import S3Client",
    "boto3": "from boto3 import client",
    "obstore": "from obstore.store import S3Store",
    "pyarrow": "from pyarrow.fs import S3FileSystem",
    "minio": "from minio import Minio",
    "s3torchconnector": (
        "from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client"
    ),
}


def _import_time(job: Job) -> Figures:
    program = (
        "import time\nbegun = time.perf_counter()\n"
        f"{_IMPORTS[job.client]}\n"
        "print((time.perf_counter() - begun) * 1e3)\n"
    )

    def once() -> float:
        command = [sys.executable, "-c", program]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    once()  # bytecode and page cache
    return {"milliseconds": min(once() for _ in range(7))}
