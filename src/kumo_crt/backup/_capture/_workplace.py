"""Directories for the links and copies of a capture."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from kumo_crt.exceptions import RepositoryError

_log = logging.getLogger("kumo_crt.backup")

# EXDEV: the file is on another file system than the directory for links.
NO_LINKS = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMLINK,
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)
_INFIX = ".kumo-capture-"


class Workplace:
    """Working directories of one capture: one on each file system that the database uses.

    Each is locked for as long as it exists, so that the next backup can tell and remove what a
    killed one left: hard links that would hold the space of deleted files.

    Args:
        directory: The database's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._made: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def path(self) -> Path:
        """The directory on the database's own file system."""
        return self.near(self._directory)

    def near(self, directory: Path) -> Path:
        """The directory to link a directory's files in.

        Raises:
            RepositoryError: It cannot be made.
        """
        device = directory.stat().st_dev
        if device not in self._made:
            self._made[device] = self._stack.enter_context(_temporary_near(directory))
        return self._made[device]

    def link(self, source: Path, name: str) -> Path | None:
        """Links a file; None where that is impossible.

        Raises:
            FileNotFoundError: The file is gone.
        """
        try:
            target = self.near(source.parent) / name
            os.link(source, target)
        except RepositoryError as error:
            _log.warning("%s: copied, because it cannot be linked: %s", source, error)
            return None
        except OSError as error:
            if error.errno in NO_LINKS:
                return None
            raise
        return target


@contextlib.contextmanager
def _temporary_near(directory: Path) -> Iterator[Path]:
    """A new directory on the same file system, removed at the end."""
    starts = [directory.with_name(f".{directory.name}{_INFIX}")]
    if not _links_reach(directory):
        # The directory is a mount point, or the one above is not ours: RocksDB does not mind a
        # directory beside its files.
        starts.insert(0, directory / _INFIX)
    for start in starts:
        _remove_left(start)
    with contextlib.ExitStack() as stack:
        path = _make(starts[0], stack)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _links_reach(directory: Path) -> bool:
    """Whether the files of a directory can be linked beside it."""
    parent = directory.parent
    same = parent.stat().st_dev == directory.stat().st_dev and not directory.is_mount()
    return same and os.access(parent, os.W_OK | os.X_OK)


def _remove_left(start: Path) -> None:
    for path in list(start.parent.glob(glob.escape(start.name) + "*")):
        with contextlib.suppress(OSError), _locked_directory(path):
            shutil.rmtree(path, ignore_errors=True)


def _make(start: Path, stack: contextlib.ExitStack) -> Path:
    while True:
        path = start.with_name(start.name + os.urandom(4).hex())
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise RepositoryError(
                f"{start.parent}: cannot be written to: a backup links the files of a live "
                "database in a directory beside or below it"
            ) from error
        try:
            stack.enter_context(_locked_directory(path))
        except FileNotFoundError:
            continue  # another backup took it for a left one in between
        except OSError:
            pass  # no locks here: then nobody removes it either
        return path


@contextlib.contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    """Locks a directory that is not locked, and that nobody has removed before that."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError(f"{path}: is about to be removed") from None
        os.stat(path)
        yield
    finally:
        os.close(fd)
