"""Restores into a copy of the same database, which take over what is the same."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import _core
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, flipped, leftovers, stored_files, tree, url
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _change(path: Path) -> None:
    """Something more, and something else than before, in new files."""
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 10_000, 10_100)
    del db[b"key-%08d" % 20]
    db.close()


def _bytes(snapshot: kumo_crt.Snapshot, kind: str = "sst") -> int:
    return sum(file.size for file in stored_files(snapshot, kind))


@pytest.fixture
def two(repository: kumo_crt.Repository, make: Make) -> tuple[kumo_crt.Snapshot, Path]:
    """A repository with a snapshot, and the database, which has gone on since."""
    path = make("many_files")
    snapshot = repository.backup(path)
    _change(path)
    return snapshot, path


def test_only_the_difference_is_downloaded(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
    tmp_path: Path,
) -> None:
    snapshot, path = two
    inodes = {p.name: p.stat().st_ino for p in path.glob("*.sst")}
    planned = repository.restore(path, delta=True, dry_run=True)
    report = repository.restore(path, delta=True)
    assert report.reused_bytes == planned.reused_bytes == _bytes(snapshot)
    assert report.downloaded_bytes == sum(f.size for f in stored_files(snapshot)) - _bytes(snapshot)
    assert report.kept_bytes == 0
    # The files are the ones that were there, not copies.
    for file in stored_files(snapshot, "sst"):
        assert (path / file.path).stat().st_ino == inodes[file.path]
    assert {p.name for p in path.iterdir()} == {file.path for file in snapshot.files}
    assert content_of(path) == library.truth("many_files")
    assert leftovers(tmp_path) == []


def test_back_and_forth(
    repository: kumo_crt.Repository, two: tuple[kumo_crt.Snapshot, Path]
) -> None:
    first, path = two
    later = content_of(path)
    second = repository.backup(path)
    repository.restore(path, first.id, delta=True)
    report = repository.restore(path, second.id, delta=True)
    assert 0 < report.reused_bytes < second.total_bytes
    assert content_of(path) == later


@pytest.mark.parametrize(
    "what", ["flipped", "shorter", "another", "symlink", "gone", "mode", "directory"]
)
def test_what_is_not_the_same_is_replaced(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
    tmp_path: Path,
    what: str,
) -> None:
    snapshot, path = two
    file, other = stored_files(snapshot, "sst")[:2]
    content = (path / file.path).read_bytes()
    (path / file.path).unlink()
    if what == "symlink":
        (tmp_path / "elsewhere").write_bytes(content)
        (path / file.path).symlink_to(tmp_path / "elsewhere")
    elif what == "mode":  # which a link would have, too
        (path / file.path).write_bytes(content)
        (path / file.path).chmod(0o040)
    elif what == "directory":
        (path / file.path).mkdir()
    elif what != "gone":
        new = {
            "flipped": flipped(content),
            "shorter": content[:-1],
            "another": (path / other.path).read_bytes(),
        }
        (path / file.path).write_bytes(new[what])
    report = repository.restore(path, delta=True)
    assert report.reused_bytes == _bytes(snapshot) - file.size
    assert not (path / file.path).is_symlink()
    assert (path / file.path).stat().st_mode & stat.S_IRUSR
    assert (path / file.path).read_bytes() == content
    assert content_of(path) == library.truth("many_files")


def test_an_identity_that_differs(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    """Same name, same size: two databases that nothing but the identity tells apart."""
    path, other = tmp_path / "db", tmp_path / "other"
    for where in (path, other):
        db = Rdict(str(where), databases.options())
        databases.fill(db, 0, 50)
        db.close()
    shutil.copytree(other, tmp_path / "other.old")
    snapshot = repository.backup(path)
    with pytest.raises(kumo_crt.RepositoryError, match="holds the database"):
        repository.restore(other, delta=True)
    report = repository.restore(other, delta=True, overwrite=True)
    file = stored_files(snapshot, "sst")[0]
    assert (tmp_path / "other.old" / file.path).stat().st_size == file.size
    assert report.reused_bytes == 0
    assert content_of(other) == content_of(path)


def test_blobs(repository: kumo_crt.Repository, library: Library, make: Make) -> None:
    path = make("blobs")
    snapshot = repository.backup(path)
    _change(path)
    report = repository.restore(path, delta=True)
    assert report.reused_bytes == _bytes(snapshot) + _bytes(snapshot, "blob") > 1_000_000
    assert content_of(path) == library.truth("blobs")


def test_without_a_database_it_is_an_ordinary_restore(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
    tmp_path: Path,
) -> None:
    report = repository.restore(tmp_path / "new", delta=True)
    assert report.reused_bytes == 0
    assert content_of(tmp_path / "new") == library.truth("many_files")


def test_an_open_database_is_refused(
    repository: kumo_crt.Repository, two: tuple[kumo_crt.Snapshot, Path]
) -> None:
    _, path = two
    db = Rdict(str(path), databases.options(small_files=True))
    with pytest.raises(kumo_crt.RepositoryLockedError):
        repository.restore(path, delta=True)
    assert db[b"key-%08d" % 10_000] == databases.value_of(10_000, 200)
    db.close()


_KILLED = """
import os, signal, sys
import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._restore import _place
step = int(sys.argv[3])
calls = []
def killed(name, function):
    def wrapper(*arguments, **options):
        calls.append(name)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapper
for name in ("link", "rename", "replace", "unlink", "rmdir", "mkdir"):
    setattr(os, name, killed(name, getattr(os, name)))
_place.sync = killed("sync", _place.sync)
_core.exchange_paths = killed("exchange", _core.exchange_paths)
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    repository.restore(sys.argv[2], delta=True, max_concurrency=1)
print(*calls)
"""


def test_killed_anywhere(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    """Before a change of the disk: the target is the old database or the new one, whole."""
    original = make("deletions")
    repository.backup(original)
    new = library.truth("deletions")
    _change(original)
    target = tmp_path / "target"

    def run(step: int) -> tuple[int, str]:
        shutil.copytree(original, target)
        arguments = (url(bucket), str(target), str(step))
        with start_python(_KILLED, *arguments, env=s3_server.environment()) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), err
        return process.returncode, out

    code, out = run(0)
    assert code == 0
    calls = out.split()
    exchange = calls.index("exchange") + 1
    assert calls[exchange] == "sync"
    shutil.rmtree(target)
    for step in (3, exchange // 2, exchange - 1, exchange, exchange + 1, exchange + 3, len(calls)):
        before = tree(original)
        assert run(step)[0] == -signal.SIGKILL
        if step <= exchange:
            assert tree(target) == before
        else:
            assert content_of(target) == new
        repository.restore(target, delta=True)
        assert content_of(target) == new
        assert leftovers(tmp_path) == []
        shutil.rmtree(target)


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """The reason is what decides whether there is another way."""
    there = tmp_path / os.fsdecode(b"\xff")
    there.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        _core.exchange_paths(there, tmp_path / "missing")
    assert caught.value.filename == str(there)
    assert caught.value.filename2 == str(tmp_path / "missing")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_system_that_cannot_exchange_directories(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    overwrite: bool,
) -> None:
    _, path = two

    def refuse(a: Any, b: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", str(a))

    monkeypatch.setattr(_core, "exchange_paths", refuse)
    repository.restore(path, delta=not overwrite, overwrite=overwrite)
    assert content_of(path) == library.truth("many_files")
    assert leftovers(tmp_path) == []


def test_the_second_of_two_renames_fails(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    _, path = two
    before = tree(path)
    real = os.rename

    def refuse(a: Any, b: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", str(a))

    def rename(a: Any, b: Any) -> None:
        if Path(b) == path and ".kumo-restore-" in str(a):
            raise OSError(errno.EIO, "Input/output error", str(a))
        real(a, b)

    monkeypatch.setattr(_core, "exchange_paths", refuse)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        repository.restore(path, delta=True)
    assert tree(path) == before
    # Killed between the two: the next restore finds what was there.
    monkeypatch.setattr(os, "rename", real)
    os.rename(path, tmp_path / f".{path.name}.kumo-replaced-00000000")
    report = repository.restore(path, delta=True)
    assert report.kept_bytes > 0
    assert content_of(path) == library.truth("many_files")
    assert leftovers(tmp_path) == []


def test_interrupted_it_goes_on(
    repository: kumo_crt.Repository,
    library: Library,
    two: tuple[kumo_crt.Snapshot, Path],
) -> None:
    snapshot, path = two
    before = tree(path)

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.restore(path, delta=True, progress=progress)
    assert tree(path) == before
    report = repository.restore(path, delta=True)
    assert report.kept_bytes >= _bytes(snapshot)
    assert content_of(path) == library.truth("many_files")


def test_a_point_in_time_needs_logs(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    with pytest.raises(kumo_crt.RepositoryError, match="write-ahead logs"):
        repository.restore(tmp_path / "restored", at=17)
