"""Who has a database open without RocksDB's LOCK: read-only, or as a secondary.

Linux tells it in /proc: which files a process has open, and which it has mapped into its memory.
What it does not tell this user (processes of others), what a process in another PID namespace does
and other machines do, is not seen; neither is a reader that has no table file open at the moment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from kumo_crt import _core
from kumo_crt.exceptions import RepositoryLockedError

_PROC = "/proc"
# What readers of a database keep open. A LOG that somebody follows is no reason to refuse.
_KINDS = ("sst", "blob", "wal", "manifest")
_DELETED = " (deleted)"
_NAMED = 3


def check_unused(target: Path) -> None:
    """Refuses to replace a database that some process reads.

    Raises:
        RepositoryLockedError: A process has a file of it open.
    """
    found = list(_users(target))
    if not found:
        return
    own = [name for pid, name in found if pid == os.getpid()]
    if own:
        raise RepositoryLockedError(
            f"{target}: the database is open in this process, read-only or as a secondary "
            f"({own[0]}): close it first"
        )
    told = [f"process {pid} ({_program(pid)}; {name})" for pid, name in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise RepositoryLockedError(
        f"{target}: is read by {', '.join(told)}{more}: whoever has the database open read-only or "
        "as a secondary would fail later: close it there first"
    )


def _users(target: Path) -> Iterator[tuple[int, str]]:
    """Processes that have a file of a database open, and the name of one such file."""
    if not os.path.isdir(f"{_PROC}/self/fd"):
        return
    place = _Place(target)
    for name in os.listdir(_PROC):
        if name.isdecimal():
            # It has ended, or is another user's.
            with contextlib.suppress(OSError):
                file = place.opened_by(name) or place.mapped_by(name)
                if file is not None:
                    yield int(name), file


class _Place:
    """A database's directory, and whether a file is in it."""

    def __init__(self, target: Path) -> None:
        self._prefix = os.path.join(os.path.realpath(target), "")
        # As the kernel writes it in `maps`.
        self._mapped = os.fsencode(self._prefix).replace(b"\n", b"\\012")
        found = os.stat(target)
        self._identity = (found.st_dev, found.st_ino)

    def opened_by(self, pid: str) -> str | None:
        """A file that a process has a descriptor of."""
        directory = f"{_PROC}/{pid}/fd"
        for number in os.listdir(directory):
            link = f"{directory}/{number}"
            try:
                path = os.readlink(link)
                if not path.startswith("/"):
                    continue  # a socket, a pipe
                path = path.removesuffix(_DELETED)
                if path.startswith(self._prefix):
                    if _is_data(path):
                        return path[len(self._prefix) :]
                elif _is_data(path) and self._is_alias(pid, link, path):
                    return os.path.basename(path)
            except OSError:
                pass  # closed meanwhile
        return None

    def _is_alias(self, pid: str, link: str, path: str) -> bool:
        """Whether it is a file of ours that a container, or another mount, names otherwise.

        Not by its inode alone: a checkpoint has other names for the same files.
        """
        ours, theirs = os.stat(self._prefix + os.path.basename(path)), os.stat(link)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            return False
        try:
            parent = os.stat(f"{_PROC}/{pid}/root{os.path.dirname(path)}")
        except OSError:
            return theirs.st_nlink == 1
        return (parent.st_dev, parent.st_ino) == self._identity

    def mapped_by(self, pid: str) -> str | None:
        """A file that a process has in its memory (``allow_mmap_reads``), by its path."""
        with open(f"{_PROC}/{pid}/maps", "rb") as file:
            maps = file.read()
        start = maps.find(self._mapped)
        while start >= 0:
            end = maps.find(b"\n", start)
            path = os.fsdecode(maps[start + len(self._mapped) : end]).removesuffix(_DELETED)
            if _is_data(path):
                return path
            start = maps.find(self._mapped, end)
        return None


def _is_data(path: str) -> bool:
    return _core.classify_file(path.rpartition("/")[2])[0] in _KINDS


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"{_PROC}/{pid}/comm").read_text(errors="replace").strip()
    return "ended meanwhile"
