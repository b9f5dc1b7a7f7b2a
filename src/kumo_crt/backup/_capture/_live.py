"""A database that another process holds open, captured from its files alone.

RocksDB gives the order that this relies on: a batch is in the write-ahead log before it is in a
memtable; a memtable's content is in the logs, whole, before its flush is in the MANIFEST; a file is
deleted only after the MANIFEST says that it is not needed. So a state of the MANIFEST together with
the logs as they are *later* is one that a crash could have left: what the logs hold beyond the
MANIFEST is replayed, and what both hold is skipped. That fails only where something happens between
the two looks that is in no log: column families that come and go, ingested or removed files, and
flushes of data that was written without a log. The MANIFEST's tail tells, and all is tried again.

Between the two looks nothing is done that takes longer because the database is large: the MANIFEST
is read on from where it was read to, and only the files that have come since are linked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from kumo_crt import _core
from kumo_crt.backup._capture._cost import warnings_of
from kumo_crt.backup._capture._logs import CutLogs, HeldLogs, MovedError, copy_prefix
from kumo_crt.backup._capture._options import newest_options
from kumo_crt.backup._capture._places import Places
from kumo_crt.backup._capture._state import (
    EXTRA_CONFIG,
    extra_config,
    identity_file,
    identity_of,
    wal_place,
)
from kumo_crt.backup._capture._tables import LinkedTables
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


@dataclass(eq=False, repr=False)
class _Followed:
    """A MANIFEST that is followed, and what it led to; the next attempt goes on with it.

    Attributes:
        name: Its name.
        fd: It, open: its content stays when RocksDB has deleted it, and no other file is this one.
        identity: What the IDENTITY file said.
        follower: Reads it.
        tables: Files that it names.
        logs: The database's logs.
        warnings: What its OPTIONS say.
        pending: What was read after the state of the last attempt.
    """

    name: str
    fd: int
    identity: str
    follower: _core.ManifestFollower
    tables: LinkedTables
    logs: HeldLogs
    warnings: tuple[str, ...]
    pending: list[_core.ManifestChanges] = field(default_factory=list)

    def close(self) -> None:
        os.close(self.fd)
        self.logs.let_go()
        self.tables.let_go()

    def advance(self) -> _core.ManifestChanges:
        """What was appended; the files stay those of the state that was caught up with."""
        changes = self.follower.advance()
        self.pending.append(changes)
        return changes


class _Live:
    """The attempts at one capture."""

    def __init__(self, places: Places, workplace: Workplace) -> None:
        self._places = places
        self._directory = places.directory
        self._workplace = workplace
        self._copies = workplace.path / "copies"
        self._copies.mkdir()
        self._followed: _Followed | None = None

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._followed is not None:
            self._followed.close()
            self._followed = None

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
                self._forget()
            except _core.RocksDBFormatError as error:
                damaged += 1
                self._forget()
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
        followed = self._follow()
        logs = followed.logs
        held = logs.newest
        state = self._catch_up(followed)
        logs.hold_new()
        since = followed.advance()
        # A log that was made after the listing before has a higher number than all that it showed.
        if since.needed_wal_number > max(held, state.needed_wal_number):
            raise MovedError("a write-ahead log came and went")
        if logs.newest < state.needed_wal_number:
            raise MovedError(f"there is no write-ahead log {state.needed_wal_number} or later")
        cut = logs.cut(state.needed_wal_number)
        changes = followed.advance()
        for change in (since, changes):
            _check_changes(change, cut)
        if cut.oldest_recycled is not None and cut.oldest_recycled < changes.needed_wal_number:
            raise MovedError("a write-ahead log's file was used again")
        self._check_current(followed)
        # From here on nothing matters that happens to the files, as they are held.
        return self._captured(followed, state, cut, patient=patient)

    def _follow(self) -> _Followed:
        if self._followed is not None and self._is_current(self._followed):
            return self._followed
        # A new MANIFEST may be one of a new database: numbers may mean other files.
        self._forget()
        name = _core.read_current(self._directory / "CURRENT")
        path = self._directory / name
        with contextlib.ExitStack() as stack:
            # First of all: whatever is looked at before the MANIFEST is still this one is its own.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            options = newest_options(self._directory)
            place = wal_place(self._directory, options)
            self._followed = _Followed(
                name=name,
                fd=fd,
                identity=identity_file(self._directory),
                follower=_core.ManifestFollower(path),
                tables=LinkedTables(self._places, self._workplace, self._copies),
                logs=HeldLogs(place, self._workplace, self._copies),
                warnings=(_BUFFERED,) if options and options.buffers_log else (),
            )
            stack.pop_all()
        self._followed.logs.hold_new()
        return self._followed

    def _catch_up(self, followed: _Followed) -> _core.ManifestChanges:
        """Reads on until all files that are live are linked; returns the last that was read."""
        for changes in followed.pending:
            followed.tables.apply(changes)
        followed.pending.clear()
        for _ in range(_ATTEMPTS):
            missing = followed.tables.missing
            changes = followed.follower.advance()
            followed.tables.apply(changes)
            left = followed.tables.missing
            if not left:
                return changes
            # RocksDB deletes a file only when the MANIFEST does not name it any more.
            if missing & left:
                self._check_current(followed)
                raise self._places.missing(min(missing & left))
        raise MovedError(f"{min(left)} was deleted")

    def _is_current(self, followed: _Followed) -> bool:
        if _core.read_current(self._directory / "CURRENT") != followed.name:
            return False
        # A new database may give it the name that the old one's had.
        return os.path.samestat(os.fstat(followed.fd), os.stat(self._directory / followed.name))

    def _check_current(self, followed: _Followed) -> None:
        if not self._is_current(followed):
            raise MovedError("the MANIFEST was replaced by a new one")

    def _captured(
        self,
        followed: _Followed,
        reached: _core.ManifestChanges,
        cut: CutLogs,
        *,
        patient: bool,
    ) -> Capture:
        target = self._copies / followed.name
        copy_prefix(followed.fd, target, reached.valid_bytes)
        state = _core.read_manifest(target, allow_partial=False)
        scattered = any(sst.path_id for sst in state.sst_files)
        if scattered:
            _core.clear_path_ids(target)
        families = tuple(family.name for family in state.column_families)
        tables = followed.tables.files(state)
        files = [
            *tables,
            *cut.files,
            *self._options(families, patient=patient),
            CapturedFile(followed.name, "manifest", 0, target, reached.valid_bytes, temporary=True),
            self._written("CURRENT", "current", f"{followed.name}\n".encode()),
        ]
        if identity_file(self._directory) != followed.identity:
            raise MovedError("another database took its place")  # and these OPTIONS may be its own
        sequence = max(state.last_sequence, cut.last_sequence or 0)
        followed.logs.let_go(cut)
        copied = followed.tables.warnings(tables)
        followed.tables.let_go(tables)
        return Capture(
            files=tuple(files),
            db_id=followed.identity or identity_of(self._directory, state, files),
            sequence_number=sequence,
            column_families=families,
            scattered=scattered,
            warnings=(*warnings_of(state), *followed.warnings, *cut.warnings, *copied),
        )

    def _options(self, families: tuple[str, ...], *, patient: bool) -> list[CapturedFile]:
        files = []
        options = newest_options(self._directory)
        if options is not None:
            if patient and options.column_families() != set(families):
                raise MovedError(f"{options.name} describes other column families")
            files.append(self._written(options.name, "options", options.mended()))
        if (config := extra_config(self._directory)) is not None:
            files.append(self._written(EXTRA_CONFIG, "config", config))
        return files

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
