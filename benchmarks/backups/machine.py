"""What the machine adds to a figure, whoever is measured."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backups import databases

_BLOCK = 1 << 20
# As many files at once as a restore of kumo_crt syncs.
_THREADS = 4


def warm_memory(directory: Path, size: int) -> None:
    """Takes memory for ``size`` bytes of a file, and gives it back.

    A virtual machine may have handed free memory back to its host. Whoever takes it next pays for
    getting it again: 0.2 s of CPU time for a GiB in the page cache become 0.6.
    """
    path = directory / "warm"
    block = bytes(_BLOCK)
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-size // _BLOCK)):
            file.write(block)
    path.unlink()  # before the disk is to have it


def time_of_disk(state: Path, target: Path) -> float:
    """Seconds that the disk needs for a database: a copy of it on this machine, synced.

    Nobody who brings a restore to this disk is faster, even without a network and a service.
    """
    warm_memory(target.parent, 2 * sum(entry.stat().st_size for entry in os.scandir(state)))
    databases.read_through(state)
    os.sync()
    target.mkdir()
    begun = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        names = [entry.name for entry in os.scandir(state)]
        list(pool.map(lambda name: _copy(state / name, target / name), names))
    databases.synced(target)
    took = time.perf_counter() - begun
    shutil.rmtree(target)
    return took


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        size = os.fstat(read.fileno()).st_size
        done = 0
        while done < size:
            done += os.sendfile(written.fileno(), read.fileno(), done, size - done)
        os.fsync(written.fileno())
