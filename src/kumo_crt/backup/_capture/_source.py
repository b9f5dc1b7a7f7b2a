"""Captures whatever a database is handed over as."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from kumo_crt.backup._capture._cost import compact_closed, compact_open, families_of
from kumo_crt.backup._capture._live import capture_live
from kumo_crt.backup._capture._mend import mended
from kumo_crt.backup._capture._places import Places, places_of
from kumo_crt.backup._capture._state import (
    EXTRA_CONFIG,
    extra_config,
    identity_file,
    read_state,
)
from kumo_crt.backup._capture._types import Capture, CapturedFile
from kumo_crt.backup._capture._workplace import NoLinksError, Workplace
from kumo_crt.backup._local._lock import database_lock
from kumo_crt.backup._local._reading import may_be_read
from kumo_crt.backup._local._room import no_room, room_in
from kumo_crt.exceptions import RepositoryError, RepositoryLockedError

_FULL = (
    "make room and run it again. Nothing was sent: a state of the database has to be held first, "
    "by links to its files and copies of its write-ahead logs, MANIFEST and OPTIONS"
)


def is_open_database(source: object) -> TypeGuard[Any]:
    """Whether this is an open `rocksdict.Rdict`."""
    return hasattr(source, "path") and hasattr(source, "latest_sequence_number")


@contextlib.contextmanager
def capture(
    source: object,
    *,
    live: bool = False,
    data_paths: Sequence[str | os.PathLike[str]] = (),
) -> Iterator[Capture]:
    """Captures an open `rocksdict.Rdict`, or the directory of a database or checkpoint.

    Args:
        source: The database.
        live: A directory's database may be open, in whatever process.
        data_paths: Directories with further files of it (db_paths, cf_paths).

    Yields:
        The state; its files exist until the context ends.

    Raises:
        RepositoryLockedError: The directory's database is open, and `live` is not set.
        RepositoryError: It is no database, or files of it are missing.
    """
    with contextlib.ExitStack() as stack:
        with may_be_read(), room_in("the database's file system", _FULL):
            taken = stack.enter_context(_taken(source, live, data_paths))
        with room_in("the temporary directory", _FULL):
            mended_one = stack.enter_context(mended(taken))
        yield mended_one


def directory_of(source: str | os.PathLike[str]) -> Path:
    """The directory of a database or checkpoint.

    Raises:
        RepositoryError: It is none.
    """
    # Resolved, because hard links are possible only on the file system that the files are on.
    directory = Path(source).resolve()
    with may_be_read():
        found = (directory / "CURRENT").is_file()
    if not found:
        what = "no database: there is no CURRENT file in it"
        if not directory.is_dir():
            what = "is no directory" if directory.exists() else "no such directory"
        raise RepositoryError(
            f"{directory}: {what}: name the directory of a database or of a checkpoint"
        )
    return directory


def _taken(
    source: object, live: bool, data_paths: Sequence[str | os.PathLike[str]]
) -> contextlib.AbstractContextManager[Capture]:
    if is_open_database(source):
        return _checkpoint_of(source, data_paths)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source: an open rocksdict.Rdict or a path, not {type(source).__name__}")
    directory = directory_of(source)
    places = places_of(directory, data_paths)
    if not (directory / "LOCK").exists():
        # A checkpoint: nobody has opened it, and nothing changes it.
        return contextlib.nullcontext(read_state(places, temporary=False))
    return _from_directory(places, live)


@contextlib.contextmanager
def _from_directory(places: Places, live: bool) -> Iterator[Capture]:
    with contextlib.ExitStack() as stack:
        try:
            taken = stack.enter_context(_linked(places))
        except RepositoryLockedError:
            if not live:
                raise
            taken = stack.enter_context(capture_live(places))
        yield taken


def compact(source: object, *, everything: bool = False) -> None:
    """Compacts a database before it is captured.

    Args:
        source: The open database, or its directory.
        everything: Write all tables once more, so that none has the identity that it had.

    Raises:
        RepositoryLockedError: The directory's database is open in some process.
        RepositoryError: It cannot be compacted without its application.
    """
    if is_open_database(source):
        compact_open(source, everything=everything)
    elif isinstance(source, str | os.PathLike):
        compact_closed(Path(source).resolve(), everything=everything)


@contextlib.contextmanager
def _checkpoint_of(
    database: Any, data_paths: Sequence[str | os.PathLike[str]]
) -> Iterator[Capture]:
    from rocksdict import Checkpoint  # the caller has it: the database is one of its objects

    try:
        directory = Path(database.path()).resolve()
    except Exception as error:
        raise RepositoryError(f"{error}: pass the path of a database that is closed") from error
    if not _is_writer(database):
        # Its checkpoint would leave out what is in the write-ahead log alone.
        raise RepositoryError(
            f"{directory}: this Rdict is read-only or a secondary, and RocksDB makes incomplete "
            "checkpoints through it: pass the one that writes, or the path of the database"
        )
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(Workplace(directory)).path / "checkpoint"
        try:
            Checkpoint(database).create_checkpoint(str(target))
        except Exception as error:
            if "db_paths" not in str(error):
                raise no_room(error, target) or RepositoryError(
                    f"{directory}: RocksDB made no checkpoint: {error}"
                ) from error
            # RocksDB cannot do it with files in several directories; we can, from outside.
            _flush(database)
            taken = stack.enter_context(capture_live(places_of(directory, data_paths)))
        else:
            if (config := extra_config(directory)) is not None:
                (target / EXTRA_CONFIG).write_bytes(config)
            taken = read_state(Places(target), temporary=True, db_id=identity_file(directory))
            files = (file._replace(origin=directory / file.path) for file in taken.files)
            taken = taken._replace(files=tuple(files))
        yield taken


def _is_writer(database: Any) -> bool:
    """Whether this is the one that has the database open for writing; others may be, beside it."""
    try:
        database.flush_wal(True)  # which a checkpoint does, too
    except Exception as error:
        # Of what else may be wrong the checkpoint tells.
        return re.search(r"operation in (read only|secondary) mode", str(error)) is None
    return True


def _flush(database: Any) -> None:
    """Flushes all column families, as a checkpoint does: also what is in no log is captured."""
    for _, family in families_of(database):
        family.flush()


@contextlib.contextmanager
def _linked(places: Places) -> Iterator[Capture]:
    """Links a closed database's files while holding its lock, so that it can be opened again.

    Immutable files are hard-linked; what RocksDB may go on writing is copied.
    """
    before = os.stat(places.directory)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.ExitStack())
        lock.enter_context(
            database_lock(
                places.directory,
                here="pass the open Rdict itself, or its path with live=True",
                elsewhere="capture it from outside (live=True), make the backup there with its "
                "open Rdict, or close it",
                reading=True,
            )
        )
        state = read_state(places, temporary=False)
        workplace = stack.enter_context(Workplace(places.directory))
        files = None
        try:
            files = tuple(_own(file, workplace) for file in state.files)
        except NoLinksError as error:
            # The database stays locked for as long as it takes.
            held = (
                f"{places.directory}: its files are read where they are, and its LOCK is held "
                "until all is sent: who opens the database before that gets RocksDB's error that "
                f"it is locked. {error}"
            )
            state = state._replace(warnings=(*state.warnings, held))
        else:
            state = state._replace(files=files)
        # The lock is on the files of the directory that had the name then.
        if not os.path.samestat(before, os.stat(places.directory)):
            raise RepositoryError(
                f"{places.directory}: another directory took its place while its files were "
                "linked: run the backup again"
            )
        if files is not None:
            lock.close()
        yield state


def _own(file: CapturedFile, workplace: Workplace) -> CapturedFile:
    """Links or copies a file.

    Raises:
        NoLinksError: It cannot be linked.
    """
    if file.kind in ("sst", "blob"):
        target = workplace.link(file.source, file.path)
        if target is None:
            raise workplace.obstacle or AssertionError("it tells why")
    else:
        target = workplace.near(file.source.parent) / file.path
        config = extra_config(file.source.parent) if file.kind == "config" else None
        if config is None:
            shutil.copyfile(file.source, target)
        else:
            target.write_bytes(config)
            file = file._replace(size=len(config))
    return file._replace(source=target, temporary=True, origin=file.source)
