"""A database that another process holds open, captured from its files alone.

RocksDB gives the order that this relies on: a batch is in the write-ahead log before it is in a
memtable; a memtable's content is in the logs, whole, before its flush is in the MANIFEST; a file is
deleted only after the MANIFEST says that it is not needed. So a state of the MANIFEST together with
the logs as they are *later* is one that a crash could have left: what the logs hold beyond the
MANIFEST is replayed, and what both hold is skipped. That fails only where something happens between
the two looks that is in no log: column families that come and go, ingested or removed files, and
flushes of data that was written without a log. The MANIFEST's tail tells, and all is tried again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from kumo_crt import _core
from kumo_crt.backup._capture._cost import warnings_of
from kumo_crt.backup._capture._logs import CutLogs, HeldLogs, MovedError, copy_prefix
from kumo_crt.backup._capture._options import newest_options
from kumo_crt.backup._capture._places import Places
from kumo_crt.backup._capture._state import (
    EXTRA_CONFIG,
    blob_name,
    captured_blob,
    captured_table,
    check_blob,
    check_size,
    identity_of,
    table_name,
    wal_place,
)
from kumo_crt.backup._capture._types import Capture, CapturedFile
from kumo_crt.backup._capture._workplace import Workplace
from kumo_crt.exceptions import RepositoryError

_log = logging.getLogger("kumo_crt.backup")

_ATTEMPTS = 200
_FIRST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.05
# A file that is read while it is replaced may look damaged once; damage stays.
_DAMAGED_ATTEMPTS = 5
# RocksDB writes the OPTIONS file a little later than the column family that it describes.
_ATTEMPTS_FOR_OPTIONS = 20
_BUFFERED = (
    "the database buffers its write-ahead log (manual_wal_flush): what its process has not flushed "
    "(flush_wal) is not in the snapshot"
)


@contextlib.contextmanager
def capture_live(places: Places) -> Iterator[Capture]:
    """Captures a database that some process has open and may write to.

    Raises:
        RepositoryError: It changes too fast, or is damaged.
    """
    with Workplace(places.directory) as workplace, _Live(places, workplace) as live:
        yield live.capture()


class _Live:
    """The attempts at one capture; what they have linked is used by the next one."""

    def __init__(self, places: Places, workplace: Workplace) -> None:
        self._places = places
        self._directory = places.directory
        self._workplace = workplace
        self._copies = workplace.path / "copies"
        self._copies.mkdir()
        self._current = ""
        self._follower: _core.ManifestFollower | None = None
        self._logs: HeldLogs | None = None
        self._linked: dict[str, Path] = {}
        self._warnings: tuple[str, ...] = ()

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def capture(self) -> Capture:
        """Tries until a state holds still for long enough."""
        damaged = 0
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 16)))
            try:
                return self._attempt(patient=attempt < _ATTEMPTS_FOR_OPTIONS)
            except MovedError as moved:
                reason = str(moved)
            except FileNotFoundError as error:
                reason = f"{error.filename} vanished"
                self._follower = None
            except _core.RocksDBFormatError as error:
                damaged += 1
                self._follower = None
                if damaged == _DAMAGED_ATTEMPTS:
                    raise RepositoryError(
                        f"{self._directory}: the database is damaged: {error}"
                    ) from error
            _log.debug("%s: capture attempt %d: %s", self._directory, attempt + 1, reason)
        raise RepositoryError(
            f"{self._directory}: no consistent state could be captured from outside in {_ATTEMPTS} "
            f"attempts; the last one failed because {reason}. Make the backup in the process that "
            "has the database open, with its open Rdict, or when it is quieter"
        )

    def _attempt(self, *, patient: bool) -> Capture:
        follower, logs = self._follow()
        logs.hold_new()
        held = logs.newest
        follower.advance()
        state = follower.state()
        logs.hold_new()
        since = follower.advance()
        # A log that was made after the first listing has a higher number than all of that.
        if since.needed_wal_number > max(held, state.needed_wal_number):
            raise MovedError("a write-ahead log came and went")
        if logs.newest < state.needed_wal_number:
            raise MovedError(f"there is no write-ahead log {state.needed_wal_number} or later")
        files = self._tables(follower, state)
        cut = logs.cut(state.needed_wal_number)
        options, lagging = self._options(state)
        changes = follower.advance()
        for change in (since, changes):
            _check_changes(change, cut)
        if cut.oldest_recycled is not None and cut.oldest_recycled < changes.needed_wal_number:
            raise MovedError("a write-ahead log's file was used again")
        if patient and lagging:
            raise MovedError(lagging)
        manifest = self._copied_manifest(state)
        if _core.read_current(self._directory / "CURRENT") != self._current:
            raise MovedError("the MANIFEST was replaced by a new one")
        current = self._written("CURRENT", "current", f"{self._current}\n".encode())
        wanted = {file.path for file in files}
        for name in self._linked.keys() - wanted:
            self._linked.pop(name).unlink()
        logs.let_go(cut.files)
        files = [*files, *cut.files, *options, manifest, current]
        return Capture(
            files=tuple(files),
            db_id=identity_of(self._directory, state, files),
            sequence_number=max(state.last_sequence, cut.last_sequence or 0),
            column_families=tuple(family.name for family in state.column_families),
            scattered=any(sst.path_id for sst in state.sst_files),
            warnings=(*warnings_of(state), *self._warnings),
        )

    def _follow(self) -> tuple[_core.ManifestFollower, HeldLogs]:
        current = _core.read_current(self._directory / "CURRENT")
        if self._follower is None or self._logs is None or current != self._current:
            # A new MANIFEST may be one of a new database: numbers may mean other files.
            self._forget()
            options = newest_options(self._directory)
            place = wal_place(self._directory, options)
            self._warnings = (_BUFFERED,) if options and options.buffers_log else ()
            self._logs = HeldLogs(place, self._workplace, self._copies)
            self._follower = _core.ManifestFollower(self._directory / current)
            self._current = current
        return self._follower, self._logs

    def _forget(self) -> None:
        if self._logs is not None:
            self._logs.let_go()
        for link in self._linked.values():
            link.unlink(missing_ok=True)
        self._linked.clear()
        self._follower = self._logs = None

    def _tables(
        self, follower: _core.ManifestFollower, state: _core.ManifestState
    ) -> list[CapturedFile]:
        files = []
        try:
            for sst in state.sst_files:
                name = table_name(sst.number)
                link, size = self._link(name)
                check_size(self._directory / name, size, sst.size)
                files.append(captured_table(sst, link, size, temporary=True))
            for blob in state.blob_files:
                name = blob_name(blob.number)
                fresh = name not in self._linked
                link, size = self._link(name)
                if fresh:
                    check_blob(link, self._directory / name)
                files.append(captured_blob(blob, link, size, temporary=True))
        except FileNotFoundError:
            # RocksDB deletes a file only when the MANIFEST does not name it any more.
            follower.advance()
            now = follower.state()
            live = {table_name(sst.number) for sst in now.sst_files}
            live |= {blob_name(blob.number) for blob in now.blob_files}
            if name in live:
                raise self._places.missing(name) from None
            raise MovedError(f"{name} was deleted") from None
        return files

    def _link(self, name: str) -> tuple[Path, int]:
        link = self._linked.get(name)
        if link is None:
            source = self._places.find(name)
            link = self._workplace.link(source, name)
            if link is None:
                link = self._copies / name
                shutil.copyfile(source, link)
            self._linked[name] = link
        return link, link.stat().st_size

    def _options(self, state: _core.ManifestState) -> tuple[list[CapturedFile], str]:
        """The OPTIONS file, and what does not fit the state in it."""
        files = []
        lagging = ""
        options = newest_options(self._directory)
        if options is not None:
            if options.column_families() != {family.name for family in state.column_families}:
                lagging = f"{options.name} describes other column families"
            files.append(self._written(options.name, "options", options.mended()))
        with contextlib.suppress(FileNotFoundError):
            content = (self._directory / EXTRA_CONFIG).read_bytes()
            try:
                json.loads(content)
            except ValueError:
                raise MovedError(f"{EXTRA_CONFIG} is being written") from None
            files.append(self._written(EXTRA_CONFIG, "config", content))
        return files, lagging

    def _copied_manifest(self, state: _core.ManifestState) -> CapturedFile:
        target = self._copies / self._current
        fd = os.open(self._directory / self._current, os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy_prefix(fd, target, state.valid_bytes)
        finally:
            os.close(fd)
        if any(sst.path_id for sst in state.sst_files):
            _core.clear_path_ids(target)
        return CapturedFile(self._current, "manifest", 0, target, state.valid_bytes, temporary=True)

    def _written(self, name: str, kind: str, content: bytes) -> CapturedFile:
        target = self._copies / name
        target.write_bytes(content)
        return CapturedFile(name, kind, 0, target, len(content), temporary=True)


def _check_changes(changes: _core.ManifestChanges, cut: CutLogs) -> None:
    """Looks for what the logs do not tell.

    Raises:
        MovedError: There is something.
    """
    for names, what in ((changes.families_added, "created"), (changes.families_dropped, "dropped")):
        if names:
            raise MovedError(f"the column family {names[0]!r} was {what}")
    if changes.ingestions:
        raise MovedError("files were ingested")
    if changes.removals:
        raise MovedError("files were removed")
    if changes.flushes and not cut.gapless:
        raise MovedError("data was flushed that may be in no write-ahead log")
