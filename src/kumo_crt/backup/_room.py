"""Says what to do where a local file system is full."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from kumo_crt.exceptions import KumoError, RepositoryError

# Full, at its quota, or at the limit of this process (ulimit -f).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def room_in(place: str | os.PathLike[str], advice: str) -> Iterator[None]:
    """Makes a clear error of a file system that fills up in a `with` block.

    Args:
        place: What is written to, where the error itself does not name a file.
        advice: What to do.

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
        where = os.fspath(cause.filename2 or cause.filename or place)
        raise RepositoryError(f"{where}: {cause.strerror}: {advice}") from error


def no_room(error: Exception, path: str | os.PathLike[str]) -> OSError | None:
    """The operating system's error, if RocksDB's is that a file system is full."""
    for number in _FULL:
        reason = os.strerror(number)
        if reason in str(error):
            return OSError(number, reason, os.fspath(path))
    return None
