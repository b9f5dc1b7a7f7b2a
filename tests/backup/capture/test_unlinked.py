"""Where files of a database cannot be linked: other users' directories, mounts, other systems."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._capture import capture
from tests.backup.conftest import Make
from tests.backup.helpers import content_of, key_of, leftovers, stored_files, tree, url
from tests.support import databases
from tests.support.processes import environment, run_python, start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_ROOT = Path(__file__).resolve().parents[3]
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
_BIND = 'mount --bind "$0" "$0" && exec "$@"'
_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
# Root without its privileges: files of others are like those of another user.
_WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
_STRANGER = 54_321
_BACKUP = """
import sys
import kumo_crt
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    try:
        snapshot = repository.backup(sys.argv[2], live=len(sys.argv) > 3)
    except kumo_crt.RepositoryError as error:
        print(type(error).__name__, error)
    else:
        print("sent", snapshot.uploaded_bytes, *snapshot.warnings, sep="\\n")
"""
_HOLD = """
import sys
from rocksdict import Rdict
from tests.support import databases
db = Rdict(sys.argv[1], databases.options(blobs=True))
print("open", flush=True)
sys.stdin.read()
db.close()
"""

# Makes a backup in other surroundings; tells what it printed.
Elsewhere = Callable[..., str]


def _usable(line: tuple[str, ...]) -> bool:
    found = shutil.which(line[0]) is not None
    return (
        found and subprocess.run([*line, "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.fixture
def elsewhere(repository: kumo_crt.Repository, s3_server: S3Server, bucket: str) -> Elsewhere:
    """Runs a backup of a path behind other commands."""

    def run(line: tuple[str, ...], path: Path, *live: str) -> str:
        done = subprocess.run(
            [*line, sys.executable, "-c", _BACKUP, url(bucket), str(path), *live],
            env=environment({**s3_server.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def mounted() -> Callable[[str, Path], tuple[str, ...]]:
    """A line that runs what follows where a directory is a mount of its own."""
    if not _usable((*_NAMESPACE, _BIND, "/tmp")):
        pytest.skip("this system lets nobody mount a file system in a namespace (unshare -Urm)")
    return lambda how, path: (*_NAMESPACE, how, str(path))


@pytest.fixture
def without_privileges() -> tuple[str, ...]:
    """A line that runs what follows as root that may not do more than others."""
    protected = Path("/proc/sys/fs/protected_hardlinks")
    if os.geteuid() != 0 or not _usable(_WITHOUT_PRIVILEGES) or protected.read_text() != "1\n":
        pytest.skip("needs root, setpriv and fs.protected_hardlinks=1")
    return _WITHOUT_PRIVILEGES


def _give_away(path: Path) -> None:
    for found in (path, *path.rglob("*")):
        os.chown(found, _STRANGER, _STRANGER)
        found.chmod(0o755 if found.is_dir() else 0o644)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Has a database open in another process."""
    with start_python(_HOLD, str(path), env={"PYTHONPATH": str(_ROOT)}) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            yield
        finally:
            holder.communicate(timeout=30)


# -- live ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV])
def test_copies_keep_what_blob_files_are_known_by(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = make("blobs")
    db = Rdict(str(path), databases.options(blobs=True))
    blob = min(path.glob("*.blob"))
    os.utime(blob, ns=(1, 1_600_000_000_123_456_789))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        with capture(path, live=True) as taken:
            (copy,) = (file for file in taken.files if file.path == blob.name)
            assert copy.source.stat().st_mtime_ns == 1_600_000_000_123_456_789
        first = repository.backup(path, live=True)
        second = repository.backup(path, live=True)
    linked = repository.backup(path, live=True)
    db.close()
    known = {file.path: key_of(file) for file in stored_files(first, "blob")}
    assert known
    for later in (second, linked):
        assert {file.path: key_of(file) for file in stored_files(later, "blob")} == known
        assert later.uploaded_bytes == 0
    sizes = [file.size for file in first.files if file.kind in ("sst", "blob")]
    for snapshot in (first, second):
        (warning,) = snapshot.warnings
        assert f"{len(sizes)} of its files ({sum(sizes)} bytes) had to be copied" in warning
        assert f"cannot be linked ({os.strerror(code)})" in warning
    assert linked.warnings == ()


def test_files_of_another_user(
    elsewhere: Elsewhere, make: Make, tmp_path: Path, without_privileges: tuple[str, ...]
) -> None:
    """The kernel lets nobody link what he does not own (protected_hardlinks)."""
    path = make("blobs")
    tmp_path.chmod(0o755)
    with _held(path):
        _give_away(path)
        first = elsewhere(without_privileges, path, "live")
        assert "had to be copied" in first
        assert "run the backup as the user that the database belongs to" in first
        assert elsewhere(without_privileges, path, "live").startswith("sent\n0\n")
        # Nor may he make a directory beside it.
        os.chown(tmp_path, _STRANGER, _STRANGER)
        refused = elsewhere(without_privileges, path, "live")
        os.chown(tmp_path, 0, 0)
    assert f"{path}: cannot be written to (Permission denied)" in refused
    assert "run the backup as the user that the database belongs to" in refused
    assert leftovers(tmp_path) == []


def test_a_mount_of_its_own(
    elsewhere: Elsewhere,
    make: Make,
    mounted: Callable[[str, Path], tuple[str, ...]],
) -> None:
    """Beside a bind mount nothing can be linked, though the device is the same: inside it can."""
    path = make("blobs")
    before = tree(path)
    assert elsewhere(mounted(_BIND, path), path).split("\n")[2:] == [""]
    assert tree(path) == before
    with _held(path):
        assert elsewhere(mounted(_BIND, path), path, "live").split("\n")[2:] == [""]
    assert leftovers(path) == []


def test_a_name_that_nothing_can_be_longer_than(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    path = make("plain").rename(tmp_path / ("n" * 250))
    truth = content_of(path)
    assert repository.backup(path).warnings == ()
    with _held(path):
        assert repository.backup(path, live=True).warnings == ()
    assert leftovers(path) == []
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == truth


# -- closed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["database", "parent"])
def test_a_read_only_mount(
    repository: kumo_crt.Repository,
    elsewhere: Elsewhere,
    make: Make,
    tmp_path: Path,
    mounted: Callable[[str, Path], tuple[str, ...]],
    whole: bool,
) -> None:
    """Its LOCK can be held by who can read it, and tells whether it is open elsewhere."""
    path = make("unflushed_wal")
    truth = content_of(path)
    place = mounted(_READ_ONLY, tmp_path if whole else path)
    said = elsewhere(place, path)
    assert said.startswith("sent\n")
    assert f"{path}: its files are read where they are" in said
    assert f"{path}: cannot be written to (Read-only file system)" in said
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == truth
    with _held(path):
        assert elsewhere(place, path).startswith("RepositoryLockedError ")
        live = elsewhere(place, path, "live")
    if whole:
        assert "cannot be written to (Read-only file system)" in live
        assert "run the backup where this file system is mounted for writing" in live
    else:
        assert "had to be copied" in live
    assert leftovers(tmp_path) == []


def test_a_closed_database_of_another_user(
    elsewhere: Elsewhere, make: Make, tmp_path: Path, without_privileges: tuple[str, ...]
) -> None:
    path = make("blobs")
    tmp_path.chmod(0o755)
    _give_away(path)
    before = tree(path)
    for owner in (0, _STRANGER):
        os.chown(tmp_path, owner, owner)
        said = elsewhere(without_privileges, path)
        assert said.startswith("sent\n")
        assert "its LOCK is held until all is sent" in said
        assert "run the backup as the user that the database belongs to" in said
    os.chown(tmp_path, 0, 0)
    assert elsewhere(without_privileges, path).startswith("sent\n0\n")
    assert tree(path) == before
    with _held(path):
        _give_away(path)
        assert elsewhere(without_privileges, path).startswith("RepositoryLockedError ")
    # Nobody can tell whether it is open: it is captured as if it were.
    _give_away(path)
    (path / "LOCK").chmod(0o600)
    refused = elsewhere(without_privileges, path)
    assert refused.startswith(f"RepositoryLockedError {path}/LOCK: cannot be locked (Permission")
    assert "had to be copied" in elsewhere(without_privileges, path, "live")
    blob = min(path.glob("*.blob"))
    blob.chmod(0o600)
    (path / "LOCK").chmod(0o644)
    refused = elsewhere(without_privileges, path)
    assert f"{blob}: Permission denied: run the backup as the user" in refused


def test_a_lock_for_readers_keeps_writers_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("plain")
    real = os.open

    def refuse(name: object, flags: int, *rest: object, **more: object) -> int:
        if flags & os.O_RDWR and str(name).endswith("/LOCK"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
        return real(name, flags, *rest, **more)  # type: ignore[arg-type]

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "link", no_links)
    program = """
        import sys
        from rocksdict import Rdict
        from tests.support import databases
        try:
            Rdict(sys.argv[1], databases.options()).close()
        except Exception as error:
            print(error)
    """
    support = {"PYTHONPATH": str(_ROOT)}
    with capture(path) as taken:
        assert not any(file.temporary for file in taken.files if file.kind == "sst")
        assert "lock" in run_python(program, str(path), env=support).stdout.lower()
        # Others who only read are not in its way.
        reader = "import fcntl, sys; fcntl.lockf(open(sys.argv[1]), fcntl.LOCK_SH | fcntl.LOCK_NB)"
        run_python(reader, str(path / "LOCK"))
    assert run_python(program, str(path), env=support).stdout == ""
