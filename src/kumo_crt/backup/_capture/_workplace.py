"""Directories for the links and copies of a capture."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from kumo_crt.exceptions import RepositoryError

_READ_ONLY = "run the backup where this file system is mounted for writing"
_LONGEST_NAME = 255
_RANDOM = 8  # characters behind the infix
_OTHERS = "run the backup as the user that the database belongs to, or as root"
# Why a file cannot be linked, and what to do about it.
_NO_LINKS = {
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _OTHERS,
    # What protected_hardlinks refuses, and file systems that have no links.
    errno.EPERM: _OTHERS,
    errno.EXDEV: "keep them on the file system of the directory that they are in",
    errno.EMLINK: "there are as many links to a file as its file system can have",
    errno.EOPNOTSUPP: "move the database to a file system that has hard links",
    errno.ENAMETOOLONG: "give the database's directory a shorter name",
    errno.ENOSYS: "move the database to a file system that has hard links",
}
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
_INFIX = ".kumo-capture-"


class NoLinksError(RepositoryError):
    """Files cannot be linked.

    Attributes:
        reason: Why.
        advice: What to do about it.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason = reason
        self.advice = advice


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
        self._inside: dict[Path, Path] = {}
        # Why the last file that could not be linked could not.
        self.obstacle: NoLinksError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def path(self) -> Path:
        """The directory on the database's own file system, as far as one can be made there."""
        return self.near(self._directory)

    def near(self, directory: Path) -> Path:
        """The directory to link a directory's files in.

        Raises:
            NoLinksError: It cannot be made.
        """
        if directory in self._inside:
            return self._inside[directory]
        device = directory.stat().st_dev
        if device not in self._made:
            self._made[device] = self._stack.enter_context(_temporary(_starts(directory)))
        return self._made[device]

    def link(self, source: Path, name: str) -> Path | None:
        """Links a file; None where that is impossible, with the reason in `obstacle`.

        Raises:
            FileNotFoundError: The file is gone.
        """
        directory = source.parent
        try:
            try:
                return _link(source, self.near(directory) / name)
            except OSError as error:
                if error.errno != errno.EXDEV or directory in self._inside:
                    raise
                # A bind mount or a quota of its own, of which the device's number tells nothing.
                place = self._stack.enter_context(_temporary([directory / _INFIX]))
                self._inside[directory] = place
                return _link(source, place / name)
        except NoLinksError as error:
            self.obstacle = error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.obstacle = NoLinksError(
                f"{directory}: its files cannot be linked ({os.strerror(error.errno)})",
                _NO_LINKS[error.errno],
            )
        return None


def _link(source: Path, target: Path) -> Path:
    os.link(source, target)
    return target


@contextlib.contextmanager
def _temporary(starts: list[Path]) -> Iterator[Path]:
    """A new directory with the first of some beginnings that it can have, removed at the end."""
    for start in starts:
        _remove_left(start)
    with contextlib.ExitStack() as stack:
        path = _make_first(starts, stack)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _starts(directory: Path) -> list[Path]:
    """Where the files of a directory may be linked, the best place first."""
    starts = [directory.with_name(f".{directory.name}{_INFIX}")]
    if not links_reach(directory, _INFIX):
        # The directory is a mount point, the one above is not ours, or there is no room for a name:
        # RocksDB does not mind a directory beside its files.
        starts.insert(0, directory / _INFIX)
    return starts


def links_reach(directory: Path, infix: str) -> bool:
    """Whether the files of a directory can be linked beside it, in one of its name and an infix."""
    parent = directory.parent
    same = parent.stat().st_dev == directory.stat().st_dev and not directory.is_mount()
    length = len(os.fsencode(f".{directory.name}{infix}")) + _RANDOM
    return same and length <= _LONGEST_NAME and os.access(parent, os.W_OK | os.X_OK)


def _remove_left(start: Path) -> None:
    for path in list(start.parent.glob(glob.escape(start.name) + "*")):
        with contextlib.suppress(OSError), _locked_directory(path):
            shutil.rmtree(path, ignore_errors=True)


def _make_first(starts: list[Path], stack: contextlib.ExitStack) -> Path:
    first: NoLinksError | None = None
    for start in starts:
        try:
            return _make(start, stack)
        except NoLinksError as error:
            first = first or error
    if first is None:
        raise AssertionError("there is one place at least")
    raise first


def _make(start: Path, stack: contextlib.ExitStack) -> Path:
    while True:
        path = start.with_name(start.name + os.urandom(_RANDOM // 2).hex())
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            raise NoLinksError(
                f"{start.parent}: cannot be written to ({os.strerror(error.errno)}), and a backup "
                "links the files of a database in a directory beside or below it",
                _NO_LINKS[error.errno],
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
