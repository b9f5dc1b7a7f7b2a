"""Table and blob files of a database that goes on changing: linked as soon as it names them."""

from __future__ import annotations

import shutil
from pathlib import Path

from kumo_crt import _core
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
        self._linked: dict[str, tuple[Path, int]] = {}
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
                check_size(self._places.directory / name, self._linked[name][1], wanted)
        for name in sorted(self._blobs):
            if self._link(name):
                self._blobs.discard(name)
                check_blob(self._linked[name][0], self._places.directory / name)

    def _link(self, name: str) -> bool:
        try:
            source = self._places.find(name)
            link = self._workplace.link(source, name)
            if link is None:
                link = self._copies / name
                shutil.copyfile(source, link)
        except FileNotFoundError:
            return False
        self._linked[name] = (link, link.stat().st_size)
        return True

    def _drop(self, name: str) -> None:
        found = self._linked.pop(name, None)
        if found is not None:
            found[0].unlink(missing_ok=True)

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

    def let_go(self, kept: list[CapturedFile] | None = None) -> None:
        """Gives up all files but those that are kept."""
        names = {file.path for file in kept or ()}
        for name in self._linked.keys() - names:
            self._drop(name)
        self._linked.clear()
        self._tables.clear()
        self._blobs.clear()
