"""Restores a snapshot: beside the target, checked, synced, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup import _names
from kumo_crt.backup._capture import database_lock
from kumo_crt.backup._results import RestoreReport, Snapshot, SnapshotFile
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    IntegrityError,
    NotFoundError,
    RepositoryError,
    RepositoryLockedError,
    TransportError,
)
from kumo_crt.s3._get import GetOptions, get_task

# What file systems keep for themselves: a restore must not fill the last byte.
_SPACE_MARGIN = 64 << 20


def check_target(target: Path, overwrite: bool) -> None:
    """Refuses a target that a restore must not replace.

    Raises:
        RepositoryError: It is not empty, or no database although it is to be overwritten.
        RepositoryLockedError: Its database is open.
    """
    if not target.parent.is_dir():
        raise RepositoryError(f"{target.parent}: no such directory: create it first")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise RepositoryError(f"{target}: exists and is no directory: choose another target")
    if target.is_mount():
        raise RepositoryError(
            f"{target}: is a mount point, and cannot be replaced: choose a directory below it"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    is_database = (target / "CURRENT").exists() or (target / "LOCK").exists()
    if not is_database:
        raise RepositoryError(
            f"{target}: is not empty, and no RocksDB database: choose an empty directory"
        )
    with database_lock(target):  # raises if it is open
        if not overwrite:
            raise RepositoryError(
                f"{target}: holds a database already: choose another directory, or say that it "
                "may be replaced (overwrite=True, --overwrite)"
            )


def restore(
    run: Callable[[Task[None]], None],
    store: Store,
    snapshot: Snapshot,
    target: Path,
    *,
    overwrite: bool,
    concurrency: int,
    progress: Callable[[int, int], object] | None,
    dry_run: bool,
) -> RestoreReport:
    """Restores a snapshot to a directory; until the end the target is untouched."""
    started = time.monotonic()
    target = target.absolute()
    check_target(target, overwrite)
    work = target.with_name(f".{target.name}.kumo-restore-{snapshot.id}")
    if dry_run:
        _check_space(target.parent, snapshot.total_bytes)
        return RestoreReport(
            snapshot.id, str(target), len(snapshot.files), snapshot.total_bytes, 0, 0, 0.0
        )
    try:
        work.mkdir(mode=0o755, exist_ok=True)
    except PermissionError as error:
        raise RepositoryError(
            f"{target.parent}: cannot be written to: a restore is made beside its target"
        ) from error
    with _locked(work):
        kept = _keep_good(work, snapshot)
        missing = [file for file in snapshot.files if file.path not in kept]
        kept_bytes = sum(file.size for file in snapshot.files if file.path in kept)
        try:
            _check_space(work, snapshot.total_bytes - kept_bytes)
        except RepositoryError:
            with contextlib.suppress(OSError):
                work.rmdir()  # nothing of an earlier restore is in it
            raise
        meter = Meter(progress, snapshot.total_bytes)
        meter.add(kept_bytes)
        run(
            _download_all(store, work, [f for f in missing if f.inline is None], concurrency, meter)
        )
        for file in sorted(missing, key=lambda file: file.kind == "current"):
            if file.inline is not None and file.kind != "current":
                (work / file.path).write_bytes(file.inline)
                meter.add(file.size)
        _sync(work)
        current = next(file for file in snapshot.files if file.kind == "current")
        (work / "CURRENT").write_bytes(current.inline or b"")  # inline: the reader made sure
        meter.add(current.size if "CURRENT" not in kept else 0)
        _sync_one(work / "CURRENT")
        _sync_one(work)
        _move_into_place(work, target, overwrite)
        meter.flush()
    _remove_abandoned(target)
    return RestoreReport(
        snapshot=snapshot.id,
        target=str(target),
        files=len(snapshot.files),
        total_bytes=snapshot.total_bytes,
        downloaded_bytes=sum(file.size for file in missing if file.inline is None),
        kept_bytes=kept_bytes,
        seconds=time.monotonic() - started,
    )


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Keeps two restores from building the same directory."""
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise RepositoryLockedError(
                f"{work}: another restore of this snapshot to this target is under way"
            ) from None
        yield
    finally:
        os.close(fd)


def _keep_good(work: Path, snapshot: Snapshot) -> set[str]:
    """Names of files that an interrupted restore completed; everything else is removed."""
    wanted = {file.path: file for file in snapshot.files}
    kept = set()
    for path in list(work.iterdir()):
        file = wanted.get(path.name)
        good = (
            file is not None
            and file.kind != "current"
            and path.is_file()
            and not path.is_symlink()
            and path.stat().st_size == file.size
            and _names.crc32c_of(path) == file.crc32c
        )
        if good:
            kept.add(path.name)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return kept


def _check_space(directory: Path, needed: int) -> None:
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    if needed + min(_SPACE_MARGIN, needed // 10) > free:
        raise RepositoryError(
            f"{directory}: the restore needs {needed} bytes, {free} are free on this file system: "
            "make room, or choose another target"
        )


def _download_all(
    store: Store, work: Path, files: list[SnapshotFile], concurrency: int, meter: Meter
) -> Task[None]:
    ordered = sorted(files, key=lambda file: file.size, reverse=True)
    yield Gather((_download(store, work, file, meter) for file in ordered), concurrency)


def _download(store: Store, work: Path, file: SnapshotFile, meter: Meter) -> Task[None]:
    options = GetOptions(expected_size=file.size, expected_crc32c=file.crc32c, meter=meter)
    key = store.location.key(file.key or "")
    try:
        yield from get_task(store.context, store.bucket, key, work / file.path, options)
    except NotFoundError as error:
        raise IntegrityError(
            f"{file.path}: its object {store.url(file.key or '')} is missing from the repository"
        ) from error
    except ChecksumMismatchError as error:
        raise IntegrityError(f"{file.path}: damaged in the repository: {error}") from error
    except TransportError as error:
        # A size that differs is damage if the service itself says so.
        if "were expected" in str(error):
            raise IntegrityError(f"{file.path}: damaged in the repository: {error}") from error
        raise


def _remove_abandoned(target: Path) -> None:
    """Removes what interrupted restores of other snapshots to this target left."""
    start = f".{target.name}.kumo-restore-"
    for path in list(target.parent.iterdir()):
        if path.name.startswith(start):
            with contextlib.suppress(OSError, RepositoryLockedError), _locked(path):
                shutil.rmtree(path)


def _sync_one(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(work: Path) -> None:
    for path in work.iterdir():
        _sync_one(path)
    _sync_one(work)


def _move_into_place(work: Path, target: Path, overwrite: bool) -> None:
    # Looked at again: a long download has passed since.
    check_target(target, overwrite)
    old: Path | None = None
    if target.exists() and any(target.iterdir()):
        old = target.with_name(f".{target.name}.kumo-replaced-{os.getpid()}")
        os.rename(target, old)
    try:
        os.rename(work, target)  # also over an empty directory
    except OSError:
        if old is not None:
            os.rename(old, target)
        raise
    _sync_one(target.parent)
    if old is not None:
        shutil.rmtree(old)
