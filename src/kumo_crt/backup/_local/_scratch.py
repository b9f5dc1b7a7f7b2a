"""Directories for what is not to stay, also where the process that made them is killed."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

# Tables that RocksDB is to keep open of a database in such a directory. Else it is all of them,
# and there may be more than a process may open: 1024 on most systems.
MAX_OPEN_FILES = 256


@contextlib.contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory that is gone afterwards; so is what killed processes have left.

    Args:
        parent: Where.
        prefix: What its name begins with, and the names of those that were left.
    """
    for left in list(parent.glob(f"{glob.escape(prefix)}*")):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        path = _made(parent, prefix, stack)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _made(parent: Path, prefix: str, stack: contextlib.ExitStack) -> Path:
    while True:
        path = parent / f"{prefix}{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        try:
            stack.enter_context(_locked(path))
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for a left one in between
        except OSError:
            pass  # no locks here: then nobody removes it either
        return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(path)
        yield
    finally:
        os.close(fd)
