"""Databases that are open without a LOCK: read-only, as a secondary, in a container."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rocksdict import AccessType, Checkpoint, Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, leftovers, tree
from tests.support import databases
from tests.support.processes import environment

pytestmark = pytest.mark.servers("seaweed-http")

_READER = """
import sys
from rocksdict import AccessType, Options, Rdict
how, path, own = sys.argv[1:]
options = Options(raw_mode=True)
options.create_if_missing(False)
options.set_allow_mmap_reads(how == "mapped")
access = AccessType.secondary(own) if how == "secondary" else AccessType.read_only()
db = Rdict(path, options, access_type=access)
count = sum(1 for _ in db.keys())
print("open", flush=True)
sys.stdin.read()
assert sum(1 for _ in db.keys()) == count > 0
"""


@contextlib.contextmanager
def _running(program: str, *arguments: object, before: Sequence[str] = ()) -> Iterator[int]:
    """A process that has a database open until the block ends; its id."""
    command = [*before, sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
def filled(repository: kumo_crt.Repository, make: Make) -> Path:
    """A database, of which the repository has a snapshot."""
    path = make("many_files")
    repository.backup(path)
    return path


@pytest.mark.parametrize("how", ["read-only", "mapped", "secondary"])
@pytest.mark.parametrize("delta", [False, True])
def test_what_another_process_reads(
    repository: kumo_crt.Repository,
    library: Library,
    filled: Path,
    tmp_path: Path,
    how: str,
    delta: bool,
) -> None:
    before = tree(filled)
    with _running(_READER, how, filled, tmp_path / "own") as pid:
        for dry_run in (True, False):
            with pytest.raises(
                kumo_crt.RepositoryLockedError,
                match=rf"{filled}: is read by process {pid} \(python.*; .*close it there first",
            ):
                repository.restore(filled, overwrite=not delta, delta=delta, dry_run=dry_run)
        assert tree(filled) == before
        assert leftovers(tmp_path) == []
    repository.restore(filled, overwrite=not delta, delta=delta)
    assert content_of(filled) == library.truth("many_files")


@pytest.mark.parametrize("secondary", [False, True])
def test_what_this_process_reads(
    repository: kumo_crt.Repository, filled: Path, tmp_path: Path, secondary: bool
) -> None:
    access = AccessType.secondary(str(tmp_path / "own")) if secondary else AccessType.read_only()
    db = Rdict(str(filled), databases.options(small_files=True), access_type=access)
    count = len(list(db.keys()))
    with pytest.raises(kumo_crt.RepositoryLockedError, match="open in this process, read-only or"):
        repository.restore(filled, overwrite=True)
    assert len(list(db.keys())) == count > 0
    db.close()
    repository.restore(filled, overwrite=True)


@pytest.mark.parametrize("delta", [False, True])
def test_opened_while_the_restore_was_under_way(
    repository: kumo_crt.Repository, library: Library, filled: Path, tmp_path: Path, delta: bool
) -> None:
    before = tree(filled)
    with contextlib.ExitStack() as stack:

        def open_it(done: int, total: int) -> None:
            if done == total:
                stack.enter_context(_running(_READER, "read-only", filled, tmp_path / "own"))

        with pytest.raises(kumo_crt.RepositoryLockedError, match=r"is read by process \d+"):
            repository.restore(filled, overwrite=not delta, delta=delta, progress=open_it)
        assert tree(filled) == before
    report = repository.restore(filled, overwrite=not delta, delta=delta)
    assert report.kept_bytes > 0
    assert content_of(filled) == library.truth("many_files")
    assert leftovers(tmp_path) == []


def test_a_path_through_a_link(
    repository: kumo_crt.Repository, filled: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with (
        _running(_READER, "read-only", filled, tmp_path / "own"),
        pytest.raises(kumo_crt.RepositoryLockedError, match="is read by process"),
    ):
        repository.restore(tmp_path / "link" / filled.name, overwrite=True)


_BOUND = ("unshare", "-Urm", "sh", "-c", 'mount --bind "$0" "$1" && shift 1 && exec "$@"')


def test_a_container(repository: kumo_crt.Repository, filled: Path, tmp_path: Path) -> None:
    """It has the directory under another name."""
    there = tmp_path / "there"
    there.mkdir()
    bound = (*_BOUND, str(filled), str(there))
    if shutil.which("unshare") is None or subprocess.run([*bound, "true"]).returncode:
        pytest.skip("this system lets nobody mount anything in a namespace (unshare -Urm)")
    with (
        _running(_READER, "read-only", there, tmp_path / "own", before=bound) as pid,
        pytest.raises(kumo_crt.RepositoryLockedError, match=f"is read by process {pid} "),
    ):
        repository.restore(filled, overwrite=True)


def test_what_is_no_reason_to_refuse(
    repository: kumo_crt.Repository, library: Library, filled: Path, tmp_path: Path
) -> None:
    """A checkpoint has the same files, by other names; and whoever follows a LOG reads no data."""
    db = Rdict(str(filled), databases.options(small_files=True))
    Checkpoint(db).create_checkpoint(str(tmp_path / "checkpoint"))
    db.close()
    log = os.open(filled / "LOG", os.O_RDONLY)
    with _running(_READER, "read-only", tmp_path / "checkpoint", tmp_path / "own"):
        repository.restore(filled, overwrite=True)
    os.close(log)
    assert content_of(filled) == library.truth("many_files")


def test_where_there_is_no_proc(
    repository: kumo_crt.Repository,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing can be seen then: it is as if nobody was there."""
    monkeypatch.setattr("kumo_crt.backup._local._open_files._PROC", str(tmp_path / "proc"))
    db = Rdict(str(filled), databases.options(small_files=True), access_type=AccessType.read_only())
    repository.restore(filled, overwrite=True)
    db.close()
