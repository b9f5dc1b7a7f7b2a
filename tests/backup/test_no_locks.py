"""File systems that lock nothing: NFS without its lock service, for one."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._capture import compact
from kumo_crt.cli import main
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, leftovers, tree, url
from tests.support import databases
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_WHAT_TO_DO = "have the file system give locks (NFS: by its lock service, or as version 4)"


def _unlocked(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Lets the system refuse all locks, as such a file system does."""

    def refuse(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, name, refuse)


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """LOCKs cannot be locked; how the system says so."""
    _unlocked(monkeypatch, "lockf", request.param)
    return os.strerror(request.param)


def _said(path: Path, refusal: str) -> str:
    return (
        f"{path}/LOCK: cannot be locked ({refusal}), so that the database may be open in another "
        f"process: {_WHAT_TO_DO}; else "
    )


def test_databases_that_cannot_be_locked(
    repository: kumo_crt.Repository, make: Make, refusal: str
) -> None:
    path = make("plain")
    before = tree(path)
    with pytest.raises(kumo_crt.RepositoryLockedError) as caught:
        repository.backup(path)
    assert str(caught.value).startswith(_said(path, refusal))
    assert "capture it from outside (live=True)" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(kumo_crt.RepositoryLockedError) as caught:
        compact(path)
    assert str(caught.value) == _said(path, refusal) + "use a directory elsewhere"
    assert tree(path) == before
    assert repository.snapshots() == []


@pytest.mark.parametrize("is_open", [False, True])
def test_they_are_captured_as_if_they_were_open(
    repository: kumo_crt.Repository,
    make: Make,
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_open: bool,
) -> None:
    path = make("plain")
    held = Rdict(str(path), databases.options()) if is_open else None
    with monkeypatch.context() as patch:
        _unlocked(patch, "lockf", errno.ENOLCK)
        repository.backup(path, live=True)
    if held is not None:
        held.close()
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("plain")


@pytest.mark.parametrize("how", ["overwrite", "delta"])
def test_nothing_is_restored_over_them(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    path = make("plain")
    repository.backup(path)
    before = tree(path)
    with monkeypatch.context() as patch:
        _unlocked(patch, "lockf", errno.ENOLCK)
        with pytest.raises(kumo_crt.RepositoryLockedError) as caught:
            repository.restore(path, overwrite=how == "overwrite", delta=how == "delta")
        assert str(caught.value).startswith(_said(path, "No locks available"))
        # Where there is nothing, nothing has to be locked.
        repository.restore(tmp_path / "restored")
    assert tree(path) == before
    assert leftovers(tmp_path) == []


def test_a_restore_that_cannot_be_locked(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.backup(make("plain"))
    target = tmp_path / "restored"
    with monkeypatch.context() as patch:
        _unlocked(patch, "flock", errno.ENOLCK)
        repository.backup(tmp_path / "plain")  # a capture does without
        with pytest.raises(kumo_crt.RepositoryError) as caught:
            repository.restore(target)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/.restored.kumo-restore-")
    assert "cannot be locked (No locks available), so that another restore to this" in said
    assert said.endswith(f"{_WHAT_TO_DO}, or restore to another one")
    assert not target.exists()
    repository.restore(target)


def test_a_lock_file_that_cannot_be_opened(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("plain")
    real = os.open

    def refuse(name: Any, *rest: Any, **more: Any) -> int:
        if str(name).endswith("/LOCK"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(name))
        return real(name, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    said = rf"^{path}/LOCK: cannot be opened \(Stale file handle\), so that nobody knows whether"
    with pytest.raises(kumo_crt.RepositoryLockedError, match=said):
        repository.backup(path)


def test_the_command(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = make("plain")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    _unlocked(monkeypatch, "lockf", errno.ENOLCK)
    assert main(["backup", str(path), url(bucket)]) == 0  # which captures from outside
    assert main(["restore", url(bucket), str(path), "--overwrite"]) == 11
    told = capfd.readouterr().err
    assert told.startswith(f"kumo-crt: error: {_said(path, 'No locks available')}")
