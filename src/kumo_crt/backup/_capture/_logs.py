"""Write-ahead logs that another process goes on writing."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kumo_crt import _core
from kumo_crt.backup._capture._options import numbered
from kumo_crt.backup._capture._types import CapturedFile
from kumo_crt.backup._capture._workplace import Workplace

_log = logging.getLogger("kumo_crt.backup")


class MovedError(Exception):
    """The database changed in a way that spoils an attempt to capture it."""


@dataclass(frozen=True, slots=True)
class CutLogs:
    """The logs as they are at one moment.

    Attributes:
        files: They, oldest first.
        last_sequence: Of the last whole record; None if no log tells it.
        gapless: Every sequence number between the first and the last is in them.
        oldest_recycled: Number of the oldest log whose file RocksDB may use again.
    """

    files: tuple[CapturedFile, ...]
    last_sequence: int | None
    gapless: bool
    oldest_recycled: int | None


class HeldLogs:
    """Logs that stay readable when RocksDB deletes them.

    Args:
        directory: Where they are.
        workplace: Where they are linked.
        copies: A directory for copies.
    """

    def __init__(self, directory: Path, workplace: Workplace, copies: Path) -> None:
        self._directory = directory
        self._workplace = workplace
        self._copies = copies
        self._held: dict[int, _Held] = {}

    @property
    def newest(self) -> int:
        """The highest number that is held; 0 if there is none."""
        return max(self._held, default=0)

    def hold_new(self) -> None:
        """Takes hold of the logs that are there and not held yet."""
        for number, path in numbered(self._directory, "wal"):
            if number not in self._held:
                # One that vanished after it was listed was not needed any more.
                with contextlib.suppress(FileNotFoundError):
                    self._held[number] = _Held(path, self._workplace)

    def cut(self, first: int) -> CutLogs:
        """Fixes the logs from a number on, as they are now.

        Raises:
            MovedError: A log cannot be read to its end.
        """
        files: list[CapturedFile] = []
        infos: list[_core.WalInfo] = []
        oldest_recycled = None
        sealed = False
        # Newest first: where a log has a record, RocksDB has finished the ones before.
        for number in sorted((n for n in self._held if n >= first), reverse=True):
            source, info = self._held[number].cut(self._copies, sealed)
            name = self._held[number].path.name
            size = source.stat().st_size
            files.append(CapturedFile(name, "wal", number, source, size, temporary=True))
            infos.append(info)
            sealed = sealed or info.records > 0
            if info.recycled:
                oldest_recycled = number
        files.reverse()
        infos.reverse()
        ends = [info.last_sequence for info in infos if info.last_sequence is not None]
        return CutLogs(tuple(files), max(ends, default=None), _gapless(infos), oldest_recycled)

    def let_go(self, kept: tuple[CapturedFile, ...] = ()) -> None:
        """Gives up all logs; links that are among the files stay."""
        sources = {file.source for file in kept}
        for held in self._held.values():
            held.close(keep_link=held.link in sources)
        self._held.clear()


class _Held:
    """A log: linked where that is possible, and open."""

    def __init__(self, path: Path, workplace: Workplace) -> None:
        self.path = path
        self.link = workplace.link(path, path.name)
        self._fd = os.open(self.link or path, os.O_RDONLY | os.O_CLOEXEC)

    def cut(self, copies: Path, sealed: bool) -> tuple[Path, _core.WalInfo]:
        """The log as a file that does not change."""
        if sealed and self.link is not None:
            info = _core.scan_wal(self.link)
            if not info.recycled:
                if info.tail == "damaged":
                    _log.warning(
                        "%s: damaged at offset %d (%s): RocksDB's recovery will stop there",
                        self.path, info.tail_offset, info.tail_problem,
                    )  # fmt: skip
                return self.link, info
        # What is appended from here on must not be seen: the size is fixed first.
        copy = copies / self.path.name
        copy_prefix(self._fd, copy, os.fstat(self._fd).st_size)
        info = _core.scan_wal(copy)
        if info.tail == "damaged":
            _damaged(self.path, info)
        os.truncate(copy, info.valid_bytes)
        return copy, info

    def close(self, *, keep_link: bool) -> None:
        os.close(self._fd)
        if self.link is not None and not keep_link:
            self.link.unlink(missing_ok=True)


def _damaged(path: Path, info: _core.WalInfo) -> NoReturn:
    raise MovedError(f"{path} cannot be read at offset {info.tail_offset}: {info.tail_problem}")


def _gapless(infos: list[_core.WalInfo]) -> bool:
    """Whether no sequence number is missing between the logs' batches."""
    if any(info.holes or info.compressed for info in infos):
        return False  # what a compressed log holds cannot be seen
    end: int | None = None
    for info in infos:
        if info.first_sequence is not None and end is not None and info.first_sequence > end + 1:
            return False
        end = info.last_sequence if info.last_sequence is not None else end
    return True


def copy_prefix(fd: int, target: Path, size: int) -> None:
    """Copies the first bytes of an open file to a new one.

    Raises:
        MovedError: There are not so many.
    """
    with open(target, "wb", buffering=0) as opened:
        done = 0
        while done < size:
            count = os.sendfile(opened.fileno(), fd, done, size - done)
            if count == 0:
                raise MovedError(f"{target.name} became shorter")
            done += count
