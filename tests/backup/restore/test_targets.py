"""Where a restore may write, and what it leaves there."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, leftovers, stored_files, tree
from tests.support import databases
from tests.support.processes import start_python

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def filled(repository: kumo_crt.Repository, make: Make) -> kumo_crt.Repository:
    """A repository with one snapshot, of the database `plain`."""
    repository.backup(make("plain"))
    return repository


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory with nothing in it."""
    path = tmp_path / "out"
    path.mkdir()
    return path


def _unchanged_after(
    error: type[BaseException],
    match: str,
    repository: kumo_crt.Repository,
    target: Path,
    **options: Any,
) -> None:
    before = tree(target.parent) if target.parent.is_dir() else None
    for dry_run in (True, False):
        with pytest.raises(error, match=match) as caught:
            repository.restore(target, dry_run=dry_run, **options)
        assert str(target.name) in str(caught.value) or str(target.parent) in str(caught.value)
    assert (tree(target.parent) if target.parent.is_dir() else None) == before


def test_an_empty_directory(filled: kumo_crt.Repository, library: Library, out: Path) -> None:
    (out / "target").mkdir()
    filled.restore(out / "target")
    assert content_of(out / "target") == library.truth("plain")
    assert [path.name for path in out.iterdir()] == ["target"]


def test_a_relative_path(
    filled: kumo_crt.Repository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    report = filled.restore("target")
    assert report.target == str(out / "target")
    assert (out / "target" / "CURRENT").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_other_files(
    filled: kumo_crt.Repository, out: Path, overwrite: bool
) -> None:
    (out / "target").mkdir()
    (out / "target" / "thesis.txt").write_text("irreplaceable")
    _unchanged_after(
        kumo_crt.RepositoryError,
        "not empty, and no RocksDB database",
        filled,
        out / "target",
        overwrite=overwrite,
    )


@pytest.mark.parametrize("kind", ["file", "symlink", "dangling", "fifo"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_directory(
    filled: kumo_crt.Repository, make: Make, out: Path, kind: str, overwrite: bool
) -> None:
    target = out / "target"
    if kind == "file":
        target.write_text("irreplaceable")
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to(make("one_key") if kind == "symlink" else out / "nowhere")
    why = "is no directory" if kind in ("file", "fifo") else rf"is a link, .*{os.readlink(target)}$"
    _unchanged_after(kumo_crt.RepositoryError, why, filled, target, overwrite=overwrite)


@pytest.mark.parametrize("target", ["/", "..", "somewhere/.."])
def test_what_has_no_name(
    filled: kumo_crt.Repository, out: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (out / "somewhere").mkdir()
    monkeypatch.chdir(out / "somewhere")
    with pytest.raises(kumo_crt.RepositoryError, match=": cannot be replaced: name a directory"):
        filled.restore(target, overwrite=True)


@pytest.mark.parametrize("holds", ["nothing", "a database"])
@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_whom_a_target_belongs_to(
    filled: kumo_crt.Repository, make: Make, out: Path, mode: int, holds: str
) -> None:
    """Else everybody could read it, and the service that it is for could not open it."""
    target = make("many_files") if holds == "a database" else out / "target"
    target.mkdir(exist_ok=True)
    target.chmod(mode)
    is_root = os.geteuid() == 0
    owner = (12345, 23456) if is_root else (os.geteuid(), os.getegid())
    os.chown(target, *owner)
    before = target.stat()
    seen = set()

    def progress(done: int, total: int) -> None:
        (work,) = target.parent.glob(f".{target.name}.kumo-restore-*")
        seen.add(stat.S_IMODE(work.stat().st_mode))

    filled.restore(target, overwrite=True, progress=progress)
    assert seen == {mode}
    found = target.stat()
    assert found.st_ino != before.st_ino
    assert stat.S_IMODE(found.st_mode) == mode
    for path in (target, *target.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_name_that_is_too_long(filled: kumo_crt.Repository, library: Library, out: Path) -> None:
    for name, excess in (("x" * 255, 40), ("ü" * 108, 1)):
        _unchanged_after(
            kumo_crt.RepositoryError, f"be {excess} bytes too long", filled, out / name
        )
    filled.restore(out / ("x" * 215))
    assert content_of(out / ("x" * 215)) == library.truth("plain")


def test_missing_parent(filled: kumo_crt.Repository, out: Path) -> None:
    _unchanged_after(
        kumo_crt.RepositoryError, "no such directory: create it", filled, out / "no" / "target"
    )


def test_a_database_is_replaced_only_if_told_so(
    filled: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path
) -> None:
    target = make("many_files")
    _unchanged_after(kumo_crt.RepositoryError, "--overwrite", filled, target)
    (target / "LOG.old.1").write_text("an old file")
    filled.restore(target, overwrite=True)
    assert content_of(target) == library.truth("plain")
    assert not (target / "LOG.old.1").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "what",
    ["notes.txt", "uploads/photo.jpg", "copy/CURRENT", "link", "archive/notes.txt", "lost/photos"],
)
def test_what_is_not_rocksdbs_is_not_lost(
    filled: kumo_crt.Repository, library: Library, make: Make, what: str
) -> None:
    target = make("many_files")
    (target / what).parent.mkdir(exist_ok=True)
    if what == "link":
        (target / what).symlink_to(target.parent)
    else:
        (target / what).write_text("of somebody")
    first = what.partition("/")[0]
    why = f"holds '{first}' beside the database, which would be lost"
    _unchanged_after(kumo_crt.RepositoryError, why, filled, target, overwrite=True)
    _unchanged_after(kumo_crt.RepositoryError, why, filled, target, overwrite=True, delta=True)
    (target / first).rename(target.parent / "elsewhere")
    # These are RocksDB's, or ours.
    for directory in ("archive", "lost", "second", ".kumo-capture-1"):
        (target / directory).mkdir()
    for name in (
        *("archive/000001.log", "archive/000002.log.trash", "lost/MANIFEST-000004"),
        *("second/000002.sst", "000003.sst.trash", "CURRENT.dbtmp"),
    ):
        (target / name).write_text("x")
    filled.restore(target, overwrite=True)
    assert content_of(target) == library.truth("plain")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_database_that_is_open_here(
    filled: kumo_crt.Repository, make: Make, overwrite: bool
) -> None:
    target = make("one_key")
    db = Rdict(str(target), databases.options())
    try:
        # A log line more is no change.
        files = {path.name for path in target.iterdir()}
        with pytest.raises(
            kumo_crt.RepositoryLockedError, match="open in this process: close it first"
        ):
            filled.restore(target, overwrite=overwrite)
        assert {path.name for path in target.iterdir()} == files
        # Its lock is still held: nobody else can open it.
        databases.fill(db, 1, 5)
        with start_python(
            "import sys; from rocksdict import Rdict; Rdict(sys.argv[1])", str(target)
        ) as other:
            assert "lock" in other.communicate(timeout=30)[1].lower()
        assert other.returncode != 0
    finally:
        db.close()


_HOLDER = """
import sys
from rocksdict import Options, Rdict
db = Rdict(sys.argv[1], Options(raw_mode=True))
print("open", flush=True)
sys.stdin.read()
db.close()
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_database_that_is_open_elsewhere(
    filled: kumo_crt.Repository, library: Library, make: Make, overwrite: bool
) -> None:
    target = make("one_key")
    with start_python(_HOLDER, str(target)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(kumo_crt.RepositoryLockedError, match="another process"):
            filled.restore(target, overwrite=overwrite)
        holder.communicate(timeout=30)
    assert content_of(target) == library.truth("one_key")
    filled.restore(target, overwrite=True)
    assert content_of(target) == library.truth("plain")


def test_opened_while_the_restore_was_under_way(
    filled: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    target = make("one_key")
    opened: list[Rdict] = []

    def open_it(done: int, total: int) -> None:
        if not opened:
            opened.append(Rdict(str(target), databases.options()))

    with pytest.raises(kumo_crt.RepositoryLockedError):
        filled.restore(target, overwrite=True, progress=open_it)
    assert len(list(opened[0].items())) == 1
    opened[0].close()
    # What was downloaded is kept for the next try.
    report = filled.restore(target, overwrite=True)
    assert report.kept_bytes > 0
    assert leftovers(tmp_path) == []


def test_filled_while_the_restore_was_under_way(filled: kumo_crt.Repository, out: Path) -> None:
    target = out / "target"

    def fill(done: int, total: int) -> None:
        target.mkdir(exist_ok=True)
        (target / "thesis.txt").write_text("irreplaceable")

    with pytest.raises(kumo_crt.RepositoryError, match="not empty"):
        filled.restore(target, progress=fill)
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]


def test_two_restores_at_once(filled: kumo_crt.Repository, library: Library, out: Path) -> None:
    inside = threading.Event()
    leave = threading.Event()
    failures: list[BaseException] = []

    def wait(done: int, total: int) -> None:
        inside.set()
        assert leave.wait(30)

    def first() -> None:
        try:
            filled.restore(out / "target", progress=wait)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    try:
        with pytest.raises(kumo_crt.RepositoryLockedError, match="another restore"):
            filled.restore(out / "target")
    finally:
        leave.set()
        thread.join()
    assert failures == []
    assert content_of(out / "target") == library.truth("plain")
    assert leftovers(out) == []


def test_no_room(filled: kumo_crt.Repository, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = filled.snapshot().total_bytes
    real = os.statvfs

    def nearly_full(path: Any) -> Any:
        real(path)
        return SimpleNamespace(f_bavail=size - 1, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    _unchanged_after(
        kumo_crt.RepositoryError,
        rf"{size} bytes are needed and {size // 10} more are to stay free, {size - 1} are free",
        filled,
        out / "t",
    )
    monkeypatch.setattr(os, "statvfs", real)
    filled.restore(out / "t")


def test_dry_run_writes_nothing(filled: kumo_crt.Repository, out: Path) -> None:
    report = filled.restore(out / "target", dry_run=True)
    snapshot = filled.snapshot()
    assert (report.snapshot, report.files) == (snapshot.id, len(snapshot.files))
    assert report.total_bytes == snapshot.total_bytes
    assert report.downloaded_bytes == 0
    assert list(out.iterdir()) == []


def test_older_snapshots(repository: kumo_crt.Repository, make: Make, out: Path) -> None:
    path = make("one_key")
    first = repository.backup(path)
    db = Rdict(str(path), databases.options())
    databases.fill(db, 0, 50)
    db.close()
    repository.backup(path)
    report = repository.restore(out / "first", first.id)
    assert report.snapshot == first.id
    assert len(content_of(out / "first")) == 1
    repository.restore(out / "latest")
    assert len(content_of(out / "latest")) == 50
    with pytest.raises(kumo_crt.SnapshotNotFoundError):
        repository.restore(out / "none", "20200101T000000Z-00000000")
    assert sorted(path.name for path in out.iterdir()) == ["first", "latest"]


def test_what_other_restores_left_is_removed(
    filled: kumo_crt.Repository, make: Make, out: Path
) -> None:
    abandoned = out / ".target.kumo-restore-20200101T000000Z-00000000"
    abandoned.mkdir()
    (abandoned / "000001.sst").write_bytes(b"half")
    neighbour = out / ".other.kumo-restore-20200101T000000Z-00000000"
    neighbour.mkdir()
    filled.restore(out / "target")
    assert sorted(path.name for path in out.iterdir()) == [neighbour.name, "target"]


def test_kept_files_are_checked_again(
    filled: kumo_crt.Repository, library: Library, make: Make, out: Path
) -> None:
    snapshot = filled.snapshot()
    work = out / f".target.kumo-restore-{snapshot.id}"
    work.mkdir()
    good, bad = stored_files(snapshot, "sst")[:2]
    source = out.parent / "plain"
    (work / good.path).write_bytes((source / good.path).read_bytes())
    (work / bad.path).write_bytes(b"\0" * bad.size)
    (work / "CURRENT").write_text("MANIFEST-000099\n")
    (work / "999999.sst").write_bytes(b"what is this?")
    (work / "directory").mkdir()
    (work / "link").symlink_to(source)
    report = filled.restore(out / "target")
    assert report.kept_bytes == good.size
    assert {p.name for p in (out / "target").iterdir()} == {file.path for file in snapshot.files}
    assert content_of(out / "target") == library.truth("plain")
    assert (source / "CURRENT").exists()
