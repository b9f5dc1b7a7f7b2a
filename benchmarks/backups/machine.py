"""What the machine adds to a figure, whoever is measured."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backups import databases

_BLOCK = 1 << 20
# As many files at once as a restore of kumo_crt syncs.
_THREADS = 4
# From blocks of 2 to the power of this many pages on, a virtual machine offers free memory to its
# host (mm/page_reporting.c), two seconds after it was freed.
_OFFERED = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_LARGEST_BLOCK = 10  # Linux frees none that are larger (MAX_PAGE_ORDER)


@contextlib.contextmanager
def memory_kept(setting: Path = _OFFERED) -> Iterator[str]:
    """Keeps a virtual machine from handing free memory to its host, where that may be set.

    Else it hands over what `warm_memory` has freed while somebody is measured: up to 0.4 s of CPU
    time more for a restore of 1 GiB, by chance.

    Yields:
        What becomes of free memory, for the report.
    """
    try:
        before = int(setting.read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield "not offered to a host"
        return
    if not 0 <= before <= _LARGEST_BLOCK:
        yield "not offered to a host"
        return
    try:
        setting.write_text(str(_LARGEST_BLOCK + 1), encoding="ascii")
    except OSError as error:
        yield f"offered to the host at any time ({error.strerror})"
        return
    try:
        yield "not offered to the host meanwhile"
    finally:
        setting.write_text(str(before), encoding="ascii")


def warm_memory(directory: Path, size: int) -> None:
    """Takes memory for ``size`` bytes of a file, and gives it back.

    A virtual machine may have handed free memory to its host. Whoever takes it next pays for
    getting it back: 0.2 s of CPU time for a GiB in the page cache become 0.6.
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
