"""Takes hold of a consistent state of a database, as files that will not change."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from kumo_crt import _core
from kumo_crt.exceptions import RepositoryError, RepositoryLockedError

_DB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
EXTRA_CONFIG = "rocksdict-config.json"
# EXDEV: the database directory is a mount point, so that beside it is another file system.
_NO_LINKS = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMLINK,
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)


@dataclass(frozen=True, slots=True)
class CapturedFile:
    """One file: its name in the database, where it can be read, and how long it is."""

    path: str
    kind: str
    number: int
    source: Path
    size: int


@dataclass(frozen=True, slots=True)
class Capture:
    """A state of a database."""

    files: tuple[CapturedFile, ...]
    db_id: str
    sequence_number: int
    column_families: tuple[str, ...]
    temporary: bool

    def release(self, file: CapturedFile) -> None:
        """Gives up a file that is no longer needed.

        A hard link that is kept holds the disk space of a file that RocksDB has deleted.
        """
        if self.temporary:
            file.source.unlink(missing_ok=True)


def is_open_database(source: object) -> TypeGuard[Any]:
    """Whether this is an open `rocksdict.Rdict`."""
    return hasattr(source, "path") and hasattr(source, "latest_sequence_number")


@contextlib.contextmanager
def capture(source: object) -> Iterator[Capture]:
    """Captures an open `rocksdict.Rdict`, or the directory of a closed database or checkpoint.

    Yields:
        The state; its files exist until the context ends.

    Raises:
        RepositoryLockedError: The directory's database is open in some process.
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
        yield _read_state(directory, temporary=False)
        return
    with _linked(directory) as taken:
        yield taken


@contextlib.contextmanager
def _checkpoint_of(database: Any) -> Iterator[Capture]:
    from rocksdict import Checkpoint  # the caller has it: the database is one of its objects

    try:
        directory = Path(database.path()).resolve()
    except Exception as error:
        raise RepositoryError(f"{error}: pass the path of a database that is closed") from error
    if not _open_here(directory / "LOCK"):
        # Its checkpoint would leave out what is in the write-ahead log alone.
        raise RepositoryError(
            f"{directory}: this Rdict is read-only or a secondary, and RocksDB makes incomplete "
            "checkpoints through it: pass the one that writes, or the path of the closed database"
        )
    with _temporary_beside(directory) as parent:
        target = parent / "checkpoint"
        try:
            Checkpoint(database).create_checkpoint(str(target))
        except Exception as error:
            raise RepositoryError(f"{directory}: RocksDB made no checkpoint: {error}") from error
        _copy_extra(directory, target)
        yield _read_state(target, temporary=True, db_id=_identity(directory))


@contextlib.contextmanager
def _linked(directory: Path) -> Iterator[Capture]:
    """Links a closed database's files while holding its lock, so that it can be opened again.

    Immutable files are hard-linked; what RocksDB may go on writing is copied.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.ExitStack())
        lock.enter_context(database_lock(directory))
        state = _read_state(directory, temporary=False)
        try:
            target = stack.enter_context(_temporary_beside(directory)) / "checkpoint"
            target.mkdir()
            for file in state.files:
                if file.kind in ("sst", "blob"):
                    os.link(file.source, target / file.path)
                else:
                    shutil.copyfile(file.source, target / file.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Nothing can be linked here: the database stays locked for as long as it takes.
        else:
            state = _read_state(target, temporary=True, db_id=state.db_id)
            lock.close()
        yield state


@contextlib.contextmanager
def _temporary_beside(directory: Path) -> Iterator[Path]:
    """A new directory on the database's file system, removed at the end.

    It is locked for as long, so that the next backup can tell and remove what a killed one left:
    hard links that would hold the space of deleted files.
    """
    start = f".{directory.name}.kumo-capture-"
    for path in list(directory.parent.glob(glob.escape(start) + "*")):
        with contextlib.suppress(OSError), _locked_directory(path):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        while True:
            path = directory.with_name(start + secrets.token_hex(4))
            try:
                path.mkdir(mode=0o700)
            except PermissionError as error:
                raise RepositoryError(
                    f"{directory.parent}: cannot be written to: a backup links the files of a live "
                    "database in a directory beside it"
                ) from error
            try:
                stack.enter_context(_locked_directory(path))
            except FileNotFoundError:
                continue  # another backup took it for a left one in between
            except OSError:
                pass  # no locks here: then nobody removes it either
            break
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    """Locks a directory that is not locked, and that nobody has removed before that."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError(f"{path}: is about to be removed") from None
        os.stat(path)
        yield
    finally:
        os.close(fd)


def _open_here(path: Path) -> bool:
    """Whether this process has the file open."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return False
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found = os.stat(int(name))
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


@contextlib.contextmanager
def database_lock(directory: Path) -> Iterator[None]:
    """Holds RocksDB's LOCK, if there is one, so that nobody opens the database meanwhile.

    Raises:
        RepositoryLockedError: Somebody has it open.
    """
    path = directory / "LOCK"
    if not path.exists():
        yield
        return
    # POSIX locks are the process's: taking the one of our own open database would succeed, and
    # letting it go would unlock that database.
    if _open_here(path):
        raise RepositoryLockedError(
            f"{directory}: the database is open in this process: pass the open Rdict itself"
        )
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise RepositoryLockedError(
                f"{directory}: the database is open in another process: close it there, or make "
                "the backup from that process with its open Rdict"
            ) from None
        yield
    finally:
        os.close(fd)


def _identity(directory: Path) -> str:
    """RocksDB's id of the database, from its IDENTITY file; empty without one."""
    try:
        text = (directory / "IDENTITY").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _DB_ID.fullmatch(text) else ""


def _read_state(directory: Path, *, temporary: bool, db_id: str = "") -> Capture:
    """Lists a database's live files, as its MANIFEST has them."""
    try:
        manifest_name = _core.read_current(directory / "CURRENT")
        manifest = _core.read_manifest(directory / manifest_name)
        logs = _logs(directory)
        ends = (_core.scan_wal(log).last_sequence for _, log in logs)
        # None: the log is empty, or compressed in a way that only RocksDB reads.
        sequence = max([manifest.last_sequence, *(end for end in ends if end is not None)])
        files = _live_files(directory, manifest)
    except _core.RocksDBFormatError as error:
        raise RepositoryError(f"{directory}: the database is damaged: {error}") from error
    except FileNotFoundError as error:
        raise RepositoryError(
            f"{directory}: the database is damaged: {error.filename} is missing"
        ) from error
    files.extend(
        CapturedFile(log.name, "wal", number, log, log.stat().st_size) for number, log in logs
    )
    options = _newest_options(directory)
    for kind, name in (
        ("options", options),
        ("config", EXTRA_CONFIG if (directory / EXTRA_CONFIG).is_file() else None),
        ("manifest", manifest_name),
        ("current", "CURRENT"),
    ):
        if name is not None:
            path = directory / name
            files.append(CapturedFile(name, kind, 0, path, path.stat().st_size))
    identity = db_id or _identity(directory) or manifest.db_id or _identity_of_tables(files)
    return Capture(
        files=tuple(files),
        db_id=identity if _DB_ID.fullmatch(identity) else "",
        sequence_number=sequence,
        column_families=tuple(family.name for family in manifest.column_families),
        temporary=temporary,
    )


def _identity_of_tables(files: list[CapturedFile]) -> str:
    """The database's id as a table file has it: a checkpoint may have no other trace of it."""
    for file in files:
        if file.kind == "sst":
            found = _core.sst_properties(file.source)
            if found.identity_complete and found.original_file_number == file.number:
                return found.db_id
    return ""


def _live_files(directory: Path, manifest: _core.ManifestState) -> list[CapturedFile]:
    """Table and blob files of the current version; each is there, whole."""
    wanted = [
        *(("sst", f.number, f"{f.number:06d}.sst", f.size) for f in manifest.sst_files),
        *(("blob", f.number, f"{f.number:06d}.blob", None) for f in manifest.blob_files),
    ]
    files = []
    for kind, number, file_name, size in wanted:
        path = directory / file_name
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise RepositoryError(
                f"{path}: the MANIFEST names this file, and it is not there. If the database "
                "keeps files in several directories (cf_paths), open it and pass the open Rdict"
            ) from None
        if size is not None and found != size:
            raise RepositoryError(f"{path}: {found} bytes, the MANIFEST says {size}: damaged")
        if kind == "blob" and not _core.read_blob_file(path).closed:
            raise RepositoryError(f"{path}: the MANIFEST names this blob file, and it is not whole")
        files.append(CapturedFile(file_name, kind, number, path, found))
    return files


def _numbered(directory: Path, kind: str) -> list[tuple[int, Path]]:
    found = []
    for name in os.listdir(directory):
        found_kind, number = _core.classify_file(name)
        if found_kind == kind and number is not None:
            found.append((number, directory / name))
    return sorted(found)


def _newest_options(directory: Path) -> str | None:
    found = _numbered(directory, "options")
    return found[-1][1].name if found else None


def _logs(directory: Path) -> list[tuple[int, Path]]:
    """Write-ahead logs, in the directory that the options name, by number."""
    options = _newest_options(directory)
    if options is not None:
        text = (directory / options).read_text(encoding="utf-8", errors="replace")
        match = re.search(r"^\s*wal_dir=(.*)$", text, re.MULTILINE)
        elsewhere = Path(match[1].strip()) if match and match[1].strip() else directory
        if not elsewhere.is_absolute():
            elsewhere = directory
        # A checkpoint gathers its logs; the option it copied still names the old place.
        if elsewhere != directory and elsewhere.is_dir() and (directory / "LOCK").exists():
            return _numbered(elsewhere, "wal")
    return _numbered(directory, "wal")


def _copy_extra(directory: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(directory / EXTRA_CONFIG, target / EXTRA_CONFIG)
