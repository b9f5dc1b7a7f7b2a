"""Files that a download makes: where they go, and what they are called until they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def place_of(path: Path) -> Path:
    """Where the file goes that a path names: what it is a link to.

    Raises:
        IsADirectoryError: It is a directory.
        ValueError: It is something else that a file must not take the place of.
    """
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            path = Path(os.path.realpath(path))
            mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        # As root, /dev/null would be a file from then on.
        raise ValueError(f"into: {path} is no regular file, and would be replaced by one")
    return path


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """A new file next to ``path``, closed at the end, and removed unless it was renamed."""
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.part")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        error.filename = str(path)  # the other name says nothing to anybody
        raise
    try:
        yield fd, temporary
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)
