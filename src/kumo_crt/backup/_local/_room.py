"""Says what to do where a local file system is full."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kumo_crt.exceptions import KumoError, RepositoryError

# Full, at its quota, or at the limit of this process (ulimit -f).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What file systems keep for themselves: nothing here must fill the last byte.
_MARGIN = 64 << 20


class Room(NamedTuple):
    """Where something is to be written, as the user knows it.

    Attributes:
        place: A directory that the user has named, or that is the default.
        elsewhere: How to choose another one.
        advice: What to do if it fills up while it is written to.
        is_hidden: The files are of no interest to the user: `place` is named instead of them.
    """

    place: Path
    elsewhere: str
    advice: str
    is_hidden: bool = False


def check_space(
    directory: Path, needed: int, *, elsewhere: str = "choose another place", name: str = ""
) -> None:
    """Refuses to begin what the file system has no room for.

    Args:
        directory: On that file system.
        needed: Bytes.
        elsewhere: What to do if no room can be made.
        name: What to call the directory.

    Raises:
        RepositoryError: There is too little.
    """
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    margin = min(_MARGIN, needed // 10)
    if needed + margin > free:
        raise RepositoryError(
            f"{name or directory}: {needed} bytes are needed and {margin} more are to stay free, "
            f"{free} are free on this file system: make room, or {elsewhere}"
        )


@contextlib.contextmanager
def room_in(
    place: str | os.PathLike[str], advice: str, *, is_hidden: bool = False
) -> Iterator[None]:
    """Makes a clear error of a file system that fills up in a `with` block.

    Args:
        place: What is written to, where the error itself does not name a file.
        advice: What to do.
        is_hidden: Do not name the file.

    Raises:
        RepositoryError: It is full; names the file.
    """
    try:
        yield
    except RepositoryError:
        raise  # it says already what to do
    except (OSError, KumoError) as error:
        # A transfer fails with an error of its own, which was caused by the system's.
        cause = error.__cause__ if isinstance(error, KumoError) else error
        if not isinstance(cause, OSError) or cause.errno not in _FULL:
            raise
        # Of a copy, the second is the one that is written.
        named = None if is_hidden else cause.filename2 or cause.filename
        where = os.fspath(named or place)
        raise RepositoryError(f"{where}: {cause.strerror}: {advice}") from error


def no_room(error: Exception, path: str | os.PathLike[str]) -> OSError | None:
    """The operating system's error, if RocksDB's is that a file system is full."""
    for number in _FULL:
        reason = os.strerror(number)
        if reason in str(error):
            return OSError(number, reason, os.fspath(path))
    return None
