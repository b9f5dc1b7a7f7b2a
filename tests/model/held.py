"""A database that somebody holds open: this process, or another one that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from rocksdict import Options, Rdict, WriteBatch

from tests.support import databases

# What is written at once: ("put", family, key, value), ("delete", family, key, b"") or
# ("delete_range", family, first key, key after the last).
Change = tuple[str, str, bytes, bytes]


class Held(Protocol):
    """What the machine does with an open database."""

    def write(self, batch: Iterable[Change]) -> int:
        """Writes a batch, which is atomic; returns the last sequence number."""

    def flush(self, family: str) -> None:
        """Writes the memtable of a column family to a file."""

    def compact(self, family: str) -> None:
        """Compacts a column family."""

    def create(self, family: str) -> None:
        """Creates a column family."""

    def drop(self, family: str) -> None:
        """Drops a column family."""

    def close(self) -> None:
        """Closes the database."""


class Here:
    """Open in this process.

    Args:
        path: The directory.
        blobs: Values of 1 KiB and more are in blob files; else, files are not compacted by
            themselves, so that there are many.
    """

    def __init__(self, path: Path, blobs: bool) -> None:
        self._options = databases.options(blobs=blobs, small_files=not blobs)
        there = (path / "CURRENT").exists()
        names = Rdict.list_cf(str(path), Options(raw_mode=True)) if there else ["default"]
        families = dict.fromkeys(names, self._options)
        self.db = Rdict(str(path), self._options, column_families=families)

    def _family(self, name: str) -> Any:
        return self.db if name == "default" else self.db.get_column_family(name)

    def write(self, batch: Iterable[Change]) -> int:
        written = WriteBatch(raw_mode=True)
        for what, family, key, value in batch:
            handle = self.db.get_column_family_handle(family)
            if what == "delete":
                written.delete(key, handle)
            else:
                getattr(written, what)(key, value, handle)
        self.db.write(written)
        return int(self.db.latest_sequence_number())

    def flush(self, family: str) -> None:
        self._family(family).flush()

    def compact(self, family: str) -> None:
        self._family(family).compact_range(None, None)

    def create(self, family: str) -> None:
        self.db.create_column_family(family, self._options).close()

    def drop(self, family: str) -> None:
        self.db.drop_column_family(family)

    def close(self) -> None:
        self.db.close()


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["rocksdict", "tests.model.held"])


def _serve(path: str, blobs: bool, pipe: Connection) -> None:
    held = Here(Path(path), blobs)
    pipe.send(None)
    while True:
        name, arguments = pipe.recv()
        pipe.send(getattr(held, name)(*arguments))
        if name == "close":
            return


class Elsewhere:
    """Open in a process of its own, which `kill` ends as a crash would."""

    def __init__(self, path: Path, blobs: bool) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(str(path), blobs, theirs))
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def _ask(self, name: str, *arguments: object) -> Any:
        self._pipe.send((name, arguments))
        return self._pipe.recv()

    def write(self, batch: Iterable[Change]) -> int:
        return int(self._ask("write", list(batch)))

    def flush(self, family: str) -> None:
        self._ask("flush", family)

    def compact(self, family: str) -> None:
        self._ask("compact", family)

    def create(self, family: str) -> None:
        self._ask("create", family)

    def drop(self, family: str) -> None:
        self._ask("drop", family)

    def close(self) -> None:
        self._ask("close")
        self._end()

    def kill(self) -> None:
        """Ends the process with SIGKILL: what was not flushed is in the write-ahead log alone."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._end()

    def _end(self) -> None:
        self._process.join()
        self._process.close()
        self._pipe.close()
