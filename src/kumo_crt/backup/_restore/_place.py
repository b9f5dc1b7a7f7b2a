"""The directory that a restore makes, and how it takes the place of its target."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._format import _layout
from kumo_crt.backup._local._allowed import DENIED, allowed, reason
from kumo_crt.backup._local._lock import GIVE_LOCKS, database_lock
from kumo_crt.backup._local._open_files import check_unused
from kumo_crt.exceptions import RepositoryError, RepositoryLockedError

_WORK = ".kumo-restore-"
_REPLACED = ".kumo-replaced-"
_OUR_OWN = ".kumo-"
# What RocksDB makes in a database's directory: for logs that it keeps, and what a repair gave up.
_SUBDIRECTORIES = ("archive", "lost")
# What file systems say that lock nothing.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_LEFTOVER = "is in the way, what an earlier restore has left"
_DATA_KINDS = ("sst", "blob", "wal")
# What a file system answers that cannot exchange two directories.
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def work_directory(target: Path, snapshot_id: str) -> Path:
    """Where a snapshot for a target is put together.

    Raises:
        RepositoryError: The target is the root, or ``..``: nothing can take its place. Or its name
            is so long that there is no longer one.
    """
    if target.name in ("", ".."):
        raise RepositoryError(f"{target}: cannot be replaced: name a directory below it")
    work = target.with_name(f".{target.name}{_WORK}{snapshot_id}")
    with contextlib.suppress(OSError):  # of what is wrong with its parent others tell
        excess = len(os.fsencode(work.name)) - os.pathconf(target.parent, "PC_NAME_MAX")
        if excess > 0:
            raise RepositoryError(
                f"{target}: a restore is made beside its target, under a longer name, which would "
                f"be {excess} bytes too long: choose a shorter name"
            )
    return work


def holds_database(target: Path) -> bool:
    """Whether there is a database, open or not."""
    return (target / "CURRENT").exists() or (target / "LOCK").exists()


def check_directory(path: Path, advice: str) -> None:
    """Refuses what is no directory.

    Raises:
        RepositoryError: It is not there, or is something else.
    """
    if path.is_dir():
        return
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), None)
    if there is not None and not there.is_dir():
        kind = "a link to nothing" if there.is_symlink() else "a file, no directory"
        raise RepositoryError(f"{there}: is {kind}: choose another directory")
    raise RepositoryError(f"{path}: no such directory: {advice}")


def look_at(target: Path) -> contextlib.AbstractContextManager[None]:
    """Explains why a target cannot even be looked at."""
    return allowed(
        target,
        "cannot be looked at",
        "restore as a user who may do that (its owner, or root), or choose another target",
    )


def check_target(target: Path, overwrite: bool) -> None:
    """Refuses a target that a restore must not replace.

    Raises:
        RepositoryError: It is not empty, or no database although it is to be overwritten, or holds
            other things too, or logs of its database would stay.
        RepositoryLockedError: Its database is open.
    """
    check_directory(target.parent, "create it first")
    os.scandir(target.parent).close()  # it is read again at the end, when all has been downloaded
    if target.is_symlink():
        raise RepositoryError(
            f"{target}: is a link, which would be replaced: name {os.path.realpath(target)}"
        )
    if target.exists() and not target.is_dir():
        raise RepositoryError(f"{target}: exists and is no directory: choose another target")
    if target.is_mount():
        raise RepositoryError(
            f"{target}: is a mount point, and cannot be replaced: choose a directory below it"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    if not holds_database(target):
        raise RepositoryError(
            f"{target}: is not empty, and no RocksDB database: choose an empty directory"
        )
    with database_lock(target):  # raises if it is open
        if not overwrite:
            raise RepositoryError(
                f"{target}: holds a database already: choose another directory, or say that it "
                "may be replaced (overwrite=True, --overwrite; delta=True, --delta to keep the "
                "files that it has in common with the snapshot)"
            )
        _check_strangers(target)
        _check_logs(target)


def _check_strangers(target: Path) -> None:
    """Refuses to replace a database together with something that is not RocksDB's.

    Raises:
        RepositoryError: There is something in its directory that would be lost.
    """
    found = sorted(path.name for path in target.iterdir() if not _is_rocksdbs(path))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise RepositoryError(
            f"{target}: holds {', '.join(map(repr, found[:3]))}{more} beside the database, which "
            "would be lost with it: move that elsewhere, or choose another directory"
        )


def _is_rocksdbs(path: Path) -> bool:
    name = path.name
    if name.startswith(_OUR_OWN):
        return True
    if path.is_dir() and not path.is_symlink():
        # One of db_paths or a wal_dir is known by what is in it.
        kinds = {_core.classify_file(inner.removesuffix(".trash"))[0] for inner in os.listdir(path)}
        return kinds.isdisjoint(("other",)) if name in _SUBDIRECTORIES else kinds <= {*_DATA_KINDS}
    plain = name.removesuffix(".trash").removesuffix(".dbtmp")
    return _core.classify_file(plain)[0] != "other" or _layout.is_file_name("config", plain)


def _check_logs(target: Path) -> None:
    """Refuses to replace a database while RocksDB would replay its logs into the new one.

    Raises:
        RepositoryError: It keeps logs in a directory of their own, which would stay.
    """
    from kumo_crt.backup._capture._options import newest_options, numbered  # most have no database

    try:
        options = newest_options(target)
    except FileNotFoundError:
        return
    place = target if options is None else options.wal_dir(target)
    if place.resolve() != target.resolve() and place.is_dir() and numbered(place, "wal"):
        raise RepositoryError(
            f"{target}: its write-ahead logs are in {place} (wal_dir), and RocksDB would replay "
            "them into the restored database: move the *.log files there elsewhere, and run the "
            "restore again. It brings the snapshot's own logs to the target: move those to "
            f"{place} before the database is opened with this wal_dir, or they are ignored"
        )


@contextlib.contextmanager
def made(work: Path, target: Path) -> Iterator[None]:
    """Makes the working directory, or takes the one that was left, and locks it.

    Whoever may not look into the target may not look into this one either.

    Raises:
        RepositoryLockedError: Another restore builds the same directory.
        RepositoryError: It cannot be made there, or not be locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            _make(work, target)
            stack.enter_context(_locked(work))
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise RepositoryError(
                    f"{work}: cannot be locked ({error.strerror}), so that another restore to this "
                    f"target may be under way: {GIVE_LOCKS}, or restore to another one"
                ) from error
            if error.errno not in (*DENIED, errno.EEXIST, errno.ENOTDIR):
                raise
            raise _obstacle(work, error) from error
        yield


def _make(work: Path, target: Path) -> None:
    mode = stat.S_IMODE(target.stat().st_mode) if target.is_dir() else None
    if work.is_symlink():  # nothing of ours is
        raise FileExistsError(errno.EEXIST, "it is a link", os.fspath(work))
    work.mkdir(mode=0o755 if mode is None else 0o700, exist_ok=True)
    if mode is not None:
        work.chmod(mode | 0o700)
    if not os.access(work, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(work))


def in_the_way(work: Path) -> contextlib.AbstractContextManager[None]:
    """Explains why what an earlier restore has left can be neither used nor removed."""
    return allowed(work, _LEFTOVER, "delete that directory, nothing needs it")


def _obstacle(work: Path, error: OSError) -> RepositoryError:
    if os.path.lexists(work):
        return RepositoryError(
            f"{work}: {_LEFTOVER}: {reason(error, work)}: delete it, nothing needs it"
        )
    return RepositoryError(
        f"{work.parent}: a restore is made beside its target, and nothing can be made there: "
        f"{reason(error, work)}: restore as a user who may do that, or choose another target"
    )


def _take_after(work: Path, target: Path) -> None:
    """Gives the new directory to whom the old one belongs, as far as this process may."""
    wanted = target.stat()
    for path in (*work.iterdir(), work):
        found = path.lstat()
        if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
            with contextlib.suppress(OSError):
                os.chown(path, wanted.st_uid, wanted.st_gid, follow_symlinks=False)
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the mode may forbid it then
    try:
        with contextlib.suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(wanted.st_mode))
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
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


def remove_tree(path: Path) -> None:
    """Removes a directory with all that is in it."""
    import shutil  # rarely needed, and slow to load

    shutil.rmtree(path)


def sync(path: Path) -> None:
    """Brings a file or directory to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Moved(NamedTuple):
    """A restore that is in its place: whatever fails from here on, it has succeeded.

    Attributes:
        old: Where the database is that was there before.
        warning: Why that has to stay.
    """

    old: Path | None = None
    warning: str | None = None


def move_into_place(work: Path, target: Path, overwrite: bool) -> Moved:
    """Makes the finished directory the target, in one step where the file system can.

    Raises:
        RepositoryError: The target has changed meanwhile; see `check_target`.
        RepositoryLockedError: Its database is open.
    """
    # Looked at again: a long download has passed since.
    with look_at(target):
        check_target(target, overwrite)
    with allowed(
        target,
        "cannot be replaced",
        f"restore as a user who may do that; what was downloaded is kept in {work}, and the same "
        "restore goes on with it",
    ):
        if target.exists():
            _take_after(work, target)
        if not target.exists() or not any(target.iterdir()):
            os.rename(work, target)  # also over an empty directory
            old = None
        else:
            # Held until it has another name: nobody can open it in between.
            with database_lock(target):
                check_unused(target)
                old = _exchange(work, target)
    try:
        sync(target.parent)
    except OSError as error:
        kept = f", and then delete {old}, which is what was there before" if old else ""
        return Moved(
            old,
            f"{target}: is restored, but whether a power failure would undo that is not known: "
            f"{target.parent} cannot be brought to the disk ({reason(error)}): run sync{kept}",
        )
    return Moved(old)


def _exchange(work: Path, target: Path) -> Path:
    """Puts the new directory in the old one's place; returns where the old one is now."""
    try:
        _core.exchange_paths(work, target)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
    else:
        return work
    # Two steps: killed between them, the next restore finds the old one (see `put_back`).
    old = target.with_name(f".{target.name}{_REPLACED}{os.urandom(4).hex()}")
    os.rename(target, old)
    try:
        os.rename(work, target)
    except OSError:
        os.rename(old, target)
        raise
    # Nobody is to take it for a replacement that was not finished, if it cannot be removed.
    with contextlib.suppress(OSError):
        os.rename(old, work)
        return work
    return old


def put_back(target: Path) -> None:
    """Undoes the first half of a replacement that was killed before the second."""
    if target.exists() or not target.parent.is_dir():
        return
    left = [p for p in _left(target, _REPLACED) if (p / "CURRENT").exists()]
    if len(left) == 1:
        os.rename(left[0], target)


def remove_left(target: Path, old: Path | None) -> tuple[str, ...]:
    """Removes what restores to this target left, of any snapshot.

    Args:
        target: It is there, restored.
        old: Where the database is that it has replaced.

    Returns:
        What cannot be removed: for whoever runs the restore to do.
    """
    paths = {old} if old is not None else set()
    with contextlib.suppress(OSError):
        paths.update(path for kind in (_WORK, _REPLACED) for path in _left(target, kind))
    warnings = []
    for path in sorted(paths):
        try:
            with _locked(path):
                remove_tree(path)
        except (FileNotFoundError, RepositoryLockedError):
            pass  # somebody else removes it, or uses it
        except OSError as error:
            what = "what was there before" if path == old else "what an earlier restore has left"
            warnings.append(
                f"{path}: {what} cannot be removed ({reason(error, path)}): nothing needs it, and "
                f"it can be deleted; {target} is restored"
            )
    return tuple(warnings)


def _left(target: Path, kind: str) -> list[Path]:
    start = f".{target.name}{kind}"
    return [path for path in target.parent.iterdir() if path.name.startswith(start)]
