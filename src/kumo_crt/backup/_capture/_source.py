"""Captures whatever a database is handed over as."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from kumo_crt.backup._capture._live import capture_live
from kumo_crt.backup._capture._lock import database_lock, open_here
from kumo_crt.backup._capture._state import EXTRA_CONFIG, identity_file, read_state
from kumo_crt.backup._capture._types import Capture, CapturedFile
from kumo_crt.backup._capture._workplace import NO_LINKS, Workplace
from kumo_crt.exceptions import RepositoryError, RepositoryLockedError


def is_open_database(source: object) -> TypeGuard[Any]:
    """Whether this is an open `rocksdict.Rdict`."""
    return hasattr(source, "path") and hasattr(source, "latest_sequence_number")


@contextlib.contextmanager
def capture(source: object, *, live: bool = False) -> Iterator[Capture]:
    """Captures an open `rocksdict.Rdict`, or the directory of a database or checkpoint.

    Args:
        source: The database.
        live: A directory's database may be open, in whatever process.

    Yields:
        The state; its files exist until the context ends.

    Raises:
        RepositoryLockedError: The directory's database is open, and `live` is not set.
        RepositoryError: It is no database, or files of it are missing.
    """
    if is_open_database(source):
        with _checkpoint_of(source) as taken:
            yield taken
        return
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source: an open rocksdict.Rdict or a path, not {type(source).__name__}")
    # Resolved, because hard links are possible only on the file system that the files are on.
    directory = Path(source).resolve()
    if not (directory / "CURRENT").is_file():
        what = "no database" if directory.is_dir() else "no such directory"
        raise RepositoryError(f"{directory}: {what}: there is no CURRENT file in it")
    if not (directory / "LOCK").exists():
        # A checkpoint: nobody has opened it, and nothing changes it.
        yield read_state(directory, temporary=False)
        return
    with contextlib.ExitStack() as stack:
        try:
            taken = stack.enter_context(_linked(directory))
        except RepositoryLockedError:
            if not live:
                raise
            taken = stack.enter_context(capture_live(directory))
        yield taken


@contextlib.contextmanager
def _checkpoint_of(database: Any) -> Iterator[Capture]:
    from rocksdict import Checkpoint  # the caller has it: the database is one of its objects

    try:
        directory = Path(database.path()).resolve()
    except Exception as error:
        raise RepositoryError(f"{error}: pass the path of a database that is closed") from error
    if not open_here(directory / "LOCK"):
        # Its checkpoint would leave out what is in the write-ahead log alone.
        raise RepositoryError(
            f"{directory}: this Rdict is read-only or a secondary, and RocksDB makes incomplete "
            "checkpoints through it: pass the one that writes, or the path of the database"
        )
    with Workplace(directory) as workplace:
        target = workplace.path / "checkpoint"
        try:
            Checkpoint(database).create_checkpoint(str(target))
        except Exception as error:
            raise RepositoryError(f"{directory}: RocksDB made no checkpoint: {error}") from error
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(directory / EXTRA_CONFIG, target / EXTRA_CONFIG)
        yield read_state(target, temporary=True, db_id=identity_file(directory))


@contextlib.contextmanager
def _linked(directory: Path) -> Iterator[Capture]:
    """Links a closed database's files while holding its lock, so that it can be opened again.

    Immutable files are hard-linked; what RocksDB may go on writing is copied.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.ExitStack())
        lock.enter_context(database_lock(directory))
        state = read_state(directory, temporary=False)
        workplace = stack.enter_context(Workplace(directory))
        try:
            files = [_own(file, workplace) for file in state.files]
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # Nothing can be linked here: the database stays locked for as long as it takes.
        else:
            state = dataclasses.replace(state, files=tuple(files))
            lock.close()
        yield state


def _own(file: CapturedFile, workplace: Workplace) -> CapturedFile:
    target = workplace.near(file.source.parent) / file.path
    if file.kind in ("sst", "blob"):
        os.link(file.source, target)
    else:
        shutil.copyfile(file.source, target)
    return dataclasses.replace(file, source=target, temporary=True)
