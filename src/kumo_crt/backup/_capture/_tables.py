"""Table and blob files of a database that goes on changing: linked as soon as it names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._capture._logs import copy_prefix
from kumo_crt.backup._capture._places import Places
from kumo_crt.backup._capture._state import (
    blob_name,
    captured_blob,
    captured_table,
    check_blob,
    check_size,
    table_name,
)
from kumo_crt.backup._capture._types import CapturedFile
from kumo_crt.backup._capture._workplace import Workplace


class _Linked(NamedTuple):
    """A file that is held: the link or copy, its size, and the database's own."""

    path: Path
    size: int
    origin: Path


class LinkedTables:
    """The live files after what a MANIFEST has told so far.

    Args:
        places: Where they are.
        workplace: Where they are linked.
        copies: A directory for those that cannot be linked.
    """

    def __init__(self, places: Places, workplace: Workplace, copies: Path) -> None:
        self._places = places
        self._workplace = workplace
        self._copies = copies
        self._linked: dict[str, _Linked] = {}
        self._tables: dict[str, int] = {}  # those that are not linked yet, with their sizes
        self._blobs: set[str] = set()

    @property
    def missing(self) -> set[str]:
        """Names of live files that are not linked."""
        return self._tables.keys() | self._blobs

    def apply(self, changes: _core.ManifestChanges) -> None:
        """Gives up what is not live any more, and links what came."""
        for number in changes.removed_tables:
            name = table_name(number)
            self._tables.pop(name, None)
            self._drop(name)
        for number, size in changes.added_tables:
            self._tables[table_name(number)] = size
        blobs = {blob_name(number) for number in changes.blob_files}
        for name in [name for name in self._linked if name.endswith(".blob")]:
            if name not in blobs:
                self._drop(name)
        self._blobs = {name for name in blobs if name not in self._linked}
        self._link_missing()

    def _link_missing(self) -> None:
        # The newest first: a compaction's input has been there for longer than its output will.
        for name in sorted(self._tables, reverse=True):
            if self._link(name):
                wanted = self._tables.pop(name)
                check_size(self._linked[name].origin, self._linked[name].size, wanted)
        for name in sorted(self._blobs):
            if self._link(name):
                self._blobs.discard(name)
                check_blob(self._linked[name].path, self._linked[name].origin)

    def _link(self, name: str) -> bool:
        try:
            source = self._places.find(name)
            link = self._workplace.link(source, name)
            if link is None:
                link = self._copies / name
                _copy(source, link)
        except FileNotFoundError:
            return False
        self._linked[name] = _Linked(link, link.stat().st_size, source)
        return True

    def _drop(self, name: str) -> None:
        found = self._linked.pop(name, None)
        if found is not None:
            found.path.unlink(missing_ok=True)

    def files(self, state: _core.ManifestState) -> list[CapturedFile]:
        """The files of a state, all of which are linked."""
        return [
            *(
                captured_table(sst, *self._linked[table_name(sst.number)], temporary=True)
                for sst in state.sst_files
            ),
            *(
                captured_blob(blob, *self._linked[blob_name(blob.number)], temporary=True)
                for blob in state.blob_files
            ),
        ]

    def warnings(self, files: list[CapturedFile]) -> tuple[str, ...]:
        """What to tell of those that had to be copied."""
        copied = [file.size for file in files if file.source.parent == self._copies]
        obstacle = self._workplace.obstacle
        if not copied or obstacle is None:
            return ()
        return (
            f"{self._places.directory}: {len(copied)} of its files ({sum(copied)} bytes) had to be "
            "copied beside it, and every backup does that, also where nothing has changed. "
            f"{obstacle}",
        )

    def let_go(self, kept: list[CapturedFile] | None = None) -> None:
        """Gives up all files but those that are kept."""
        names = {file.path for file in kept or ()}
        for name in self._linked.keys() - names:
            self._drop(name)
        self._linked.clear()
        self._tables.clear()
        self._blobs.clear()


def _copy(source: Path, target: Path) -> None:
    """Copies a file that may be deleted meanwhile, with its time, which a blob file is known by."""
    with open(source, "rb", buffering=0) as opened:
        found = os.fstat(opened.fileno())
        copy_prefix(opened.fileno(), target, found.st_size)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
