"""RocksDB's LOCK file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from kumo_crt.exceptions import RepositoryLockedError

# What to do where a file system locks nothing.
GIVE_LOCKS = "have the file system give locks (NFS: by its lock service, or as version 4)"
# Seconds that one thread waits for another that has it: to link files takes moments.
_PATIENCE = 30.0
# Files that threads of this process hold, by device and inode.
_held: set[tuple[int, int]] = set()
_changed = threading.Condition()


def open_here(path: Path) -> bool:
    """Whether this process has the file open."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return False
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found = os.stat(int(name))
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


@contextlib.contextmanager
def database_lock(
    directory: Path,
    *,
    here: str = "close it first",
    elsewhere: str = "close it there first",
    reading: bool = False,
) -> Iterator[None]:
    """Holds RocksDB's LOCK, if there is one, so that nobody opens the database meanwhile.

    Args:
        directory: The database's.
        here: What to do if this process has it open.
        elsewhere: What to do if another one has.
        reading: The database is only read: where the file cannot be written to, a lock that others
            who only read may hold as well is enough. RocksDB's own excludes it, in every process.

    Raises:
        RepositoryLockedError: Somebody has it open, or that cannot be found out.
    """
    path = directory / "LOCK"
    if not path.exists():
        yield
        return
    with _alone(path):
        # POSIX locks are the process's: taking the one of our own open database would succeed, and
        # letting it go would unlock that database.
        if open_here(path):
            raise RepositoryLockedError(
                f"{directory}: the database is open in this process: {here}"
            )
        fd, kind = _open(path, reading, elsewhere)
        try:
            try:
                fcntl.lockf(fd, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise _no_lock(path, error, reading, elsewhere) from error
                raise RepositoryLockedError(
                    f"{directory}: the database is open in another process: {elsewhere}"
                ) from None
            yield
        finally:
            os.close(fd)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets the threads of this process hold a file one after the other: locks do not."""
    try:
        status = path.stat()
    except FileNotFoundError:
        yield
        return
    key = status.st_dev, status.st_ino
    with _changed:
        is_ours = _changed.wait_for(lambda: key not in _held, _PATIENCE)
        _held.add(key)
    try:
        yield
    finally:
        if is_ours:
            with _changed:
                _held.discard(key)
                _changed.notify_all()


os.register_at_fork(after_in_child=_held.clear)


def _no_lock(path: Path, error: OSError, reading: bool, elsewhere: str) -> RepositoryLockedError:
    """For what says nothing of who has the database open: ENOLCK, from NFS without its locks."""
    return RepositoryLockedError(
        f"{path}: cannot be locked ({error.strerror}), so that the database may be open in another "
        f"process: {GIVE_LOCKS}; else " + (elsewhere if reading else "use a directory elsewhere")
    )


def _open(path: Path, reading: bool, elsewhere: str) -> tuple[int, int]:
    """Opens the file for the lock that can be had; with its kind."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), fcntl.LOCK_EX
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RepositoryLockedError(
                f"{path}: cannot be opened ({error.strerror}), so that nobody knows whether the "
                "database is open in another process: put that right, and run this again"
            ) from error
        reason = os.strerror(error.errno)
    if reading:
        with contextlib.suppress(PermissionError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH
    raise RepositoryLockedError(
        f"{path}: cannot be locked ({reason}), so that the database may be open in another "
        f"process: run this as the user that it belongs to, or as root; else {elsewhere}"
    )
