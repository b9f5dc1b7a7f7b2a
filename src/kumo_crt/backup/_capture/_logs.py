"""Write-ahead logs that another process goes on writing."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._capture._types import CapturedFile
from kumo_crt.backup._capture._workplace import Workplace

_HEADER = 7
# Types of a first record that tell that the file is not one that RocksDB uses again: whole and
# first records, sizes of timestamps, a predecessor's facts.
_NOT_RECYCLED = (1, 2, 10, 130)


class MovedError(Exception):
    """The database changed in a way that spoils an attempt to capture it."""


class _Part(NamedTuple):
    """A log as it is to be captured; without ``info`` it was not read yet, and is complete."""

    number: int
    original: Path
    source: Path
    info: _core.WalInfo | None


class CutLogs:
    """The logs as they are at one moment.

    Args:
        parts: They, newest first.
    """

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts[::-1]
        recycled = (p.number for p in self._parts if p.info is not None and p.info.recycled)
        # Number of the oldest log whose file RocksDB may use again.
        self.oldest_recycled = min(recycled, default=None)

    @functools.cached_property
    def files(self) -> tuple[CapturedFile, ...]:
        """They, oldest first."""
        return tuple(
            CapturedFile(
                *(part.original.name, "wal", part.number, part.source),
                part.source.stat().st_size,
                temporary=True,
            )
            for part in self._parts
        )

    @functools.cached_property
    def _infos(self) -> list[_core.WalInfo]:
        return [part.info or _core.scan_wal(part.source) for part in self._parts]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with them."""
        pairs = zip(self._parts, self._infos, strict=True)
        return damage_of((part.original, info) for part, info in pairs)

    @property
    def last_sequence(self) -> int | None:
        """The last sequence number in them; None if no log tells it."""
        ends = (info.last_sequence for info in self._infos)
        return max((end for end in ends if end is not None), default=None)

    @property
    def gapless(self) -> bool:
        """Whether every sequence number between the first and the last is in them."""
        end: int | None = None
        for info in self._infos:
            if info.holes or info.compressed:
                return False  # what a compressed log holds cannot be seen
            first = info.first_sequence
            if first is not None and end is not None and first > end + 1:
                return False
            end = info.last_sequence if info.last_sequence is not None else end
        return True


def damage_of(logs: Iterable[tuple[Path, _core.WalInfo]]) -> tuple[str, ...]:
    """What to tell of logs that are damaged before their end."""
    return tuple(
        f"{path}: damaged at offset {info.tail_offset} ({info.tail_problem}): what was written "
        "after that is in the snapshot, but RocksDB's recovery will stop there, as it would here"
        for path, info in logs
        if info.tail == "damaged"
    )


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
        # A directory may have very many other files: only few names are looked at closely.
        for name in (name for name in os.listdir(self._directory) if name.endswith(".log")):
            kind, number = _core.classify_file(name)
            if kind == "wal" and number is not None and number not in self._held:
                # One that vanished after it was listed was not needed any more.
                with contextlib.suppress(FileNotFoundError):
                    self._held[number] = _Held(number, self._directory / name, self._workplace)

    def cut(self, first: int) -> CutLogs:
        """Fixes the logs from a number on, as they are now; gives up older ones.

        Raises:
            MovedError: A log cannot be read to its end.
        """
        for number in [number for number in self._held if number < first]:
            self._held.pop(number).close()
        parts: list[_Part] = []
        sealed = False
        # Newest first: where a log has a record, RocksDB has finished the ones before.
        for number in sorted(self._held, reverse=True):
            part = self._held[number].cut(self._copies, sealed)
            parts.append(part)
            sealed = sealed or part.info is None or part.info.records > 0
        return CutLogs(parts)

    def let_go(self, kept: CutLogs | None = None) -> None:
        """Gives up all logs; links that are among those that are kept stay."""
        sources = {file.source for file in kept.files} if kept is not None else set()
        for held in self._held.values():
            held.close(keep_link=held.link in sources)
        self._held.clear()


class _Held:
    """A log: linked where that is possible, and open."""

    def __init__(self, number: int, path: Path, workplace: Workplace) -> None:
        self._number = number
        self._path = path
        self.link = workplace.link(path, path.name)
        self._fd = os.open(self.link or path, os.O_RDONLY | os.O_CLOEXEC)

    def cut(self, copies: Path, sealed: bool) -> _Part:
        """The log as a file that does not change."""
        if sealed and self.link is not None and not self._may_be_recycled():
            return _Part(self._number, self._path, self.link, None)
        # What is appended from here on must not be seen: the size is fixed first.
        copy = copies / self._path.name
        copy_prefix(self._fd, copy, os.fstat(self._fd).st_size)
        info = _core.scan_wal(copy)
        if info.tail == "damaged":
            raise MovedError(
                f"{self._path} cannot be read at offset {info.tail_offset}: {info.tail_problem}"
            )
        os.truncate(copy, info.valid_bytes)
        return _Part(self._number, self._path, copy, info)

    def _may_be_recycled(self) -> bool:
        header = os.pread(self._fd, _HEADER, 0)
        return len(header) < _HEADER or header[-1] not in _NOT_RECYCLED

    def close(self, *, keep_link: bool = False) -> None:
        os.close(self._fd)
        if self.link is not None and not keep_link:
            self.link.unlink(missing_ok=True)


def copy_prefix(fd: int, target: Path, size: int) -> None:
    """Copies the first bytes of an open file to a new one.

    Raises:
        MovedError: There are not so many.
    """
    with open(target, "wb", buffering=0) as opened:
        done = 0
        while done < size:
            # Positioned: the descriptor may be read from more than once.
            try:
                count = os.sendfile(opened.fileno(), fd, done, size - done)
            except OSError as error:
                error.filename = os.fspath(target)
                raise
            if count == 0:
                raise MovedError(f"{target.name} became shorter")
            done += count
