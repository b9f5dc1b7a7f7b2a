"""A restore that is in its place has succeeded, though what was there before cannot be removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._restore import _place
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, leftovers, url
from tests.support.processes import environment, powerless
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_RESTORE = """
import errno, sys
from kumo_crt import _core
from kumo_crt.cli import main
if sys.argv.pop(1) == "in two steps":
    def refuse(a, b):
        raise OSError(errno.EINVAL, "Invalid argument")
    _core.exchange_paths = refuse
sys.exit(main(sys.argv[1:]))
"""


class Restores:
    """Restores by a process that permissions bind."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        self._server = server
        self._url = url(bucket)

    def run(self, target: Path, way: str, *options: str) -> subprocess.CompletedProcess[str]:
        program = [*powerless(), sys.executable, "-c", textwrap.dedent(_RESTORE), way]
        return subprocess.run(
            [*program, "restore", self._url, str(target), *options],
            env=environment(self._server.environment()),
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def restores(s3_server: S3Server, bucket: str) -> Restores:
    """Restores of the test's bucket."""
    return Restores(s3_server, bucket)


def _forbid(target: Path, what: str) -> None:
    """Makes that a directory cannot be removed."""
    if what == "its owner":
        os.chown(target, 12345, 23456)
        target.chmod(0o755)
    else:
        (target / "archive").mkdir()
        (target / "archive" / "000001.log").write_bytes(b"x")
        (target / "archive").chmod(0o555)


_root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.mark.parametrize("what", [pytest.param("its owner", marks=_root_alone), "a mode below"])
@pytest.mark.parametrize("way", ["in one step", "in two steps"])
@pytest.mark.parametrize("option", ["--overwrite", "--delta"])
def test_what_was_there_before(
    repository: kumo_crt.Repository,
    restores: Restores,
    library: Library,
    make: Make,
    tmp_path: Path,
    what: str,
    way: str,
    option: str,
) -> None:
    target = make("many_files")
    first = repository.backup(target)
    _forbid(target, what)
    done = restores.run(target, way, option, "--json")
    assert done.returncode == 0, done.stderr
    left = tmp_path / f".{target.name}.kumo-restore-{first.id}"
    document = json.loads(done.stdout)
    (warning,) = document["warnings"]
    assert warning.startswith(f"{left}: what was there before cannot be removed (")
    assert "ermission denied" in warning
    assert "it can be deleted" in warning
    assert warning in done.stderr
    assert content_of(target) == library.truth("many_files")
    assert [path.name for path in tmp_path.iterdir() if "kumo" in path.name] == [left.name]
    # It is in the way of the next one, which says so.
    again = restores.run(target, way, option)
    assert again.returncode == 1
    assert f"{left}: is in the way, what an earlier restore has left: " in again.stderr
    assert "ermission denied" in again.stderr or "not permitted" in again.stderr
    assert "delete" in again.stderr
    assert content_of(target) == library.truth("many_files")
    # A restore of another snapshot goes past it, and still tells of it.
    second = repository.backup(target)
    other = restores.run(target, way, option, "--snapshot", second.id, "--json")
    assert other.returncode == 0, other.stderr
    (warning,) = json.loads(other.stdout)["warnings"]
    assert warning.startswith(f"{left}: what an earlier restore has left cannot be removed (")
    # If the database is deleted, what is left is not taken for it.
    shutil.rmtree(target)
    assert restores.run(target, way).returncode == 0
    assert content_of(target) == library.truth("many_files")
    subprocess.run(["chmod", "-R", "u+w", left], check=True)
    repository.restore(target, first.id, overwrite=True)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "link", "unreadable"])
def test_what_is_in_the_way(
    repository: kumo_crt.Repository, restores: Restores, make: Make, tmp_path: Path, what: str
) -> None:
    snapshot = repository.backup(make("one_key"))
    target = tmp_path / "target"
    left = tmp_path / f".{target.name}.kumo-restore-{snapshot.id}"
    if what == "file":
        left.write_text("of somebody")
    elif what == "link":
        left.symlink_to(tmp_path / "one_key")
    else:
        left.mkdir(mode=0o000)
    failed = restores.run(target, "in one step")
    assert failed.returncode == 1
    assert f"{left}: is in the way, what an earlier restore has left: " in failed.stderr
    assert (tmp_path / "one_key" / "CURRENT").exists()
    assert not target.exists()


@pytest.mark.parametrize("before", ["a database", "nothing"])
def test_a_parent_that_cannot_be_synced(
    repository: kumo_crt.Repository,
    library: Library,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    """The old database stays: a power failure could bring it back."""
    path = make("many_files")
    repository.backup(path)
    target = path if before == "a database" else tmp_path / "new"
    sync = _place.sync

    def failing(place: Path) -> None:
        if place == tmp_path:
            raise OSError(5, "Input/output error", str(place))
        sync(place)

    monkeypatch.setattr(_place, "sync", failing)
    report = repository.restore(target, overwrite=True)
    (warning,) = report.warnings
    assert f"{target}: is restored, but whether a power failure would undo that" in warning
    assert "Input/output error" in warning
    assert content_of(target) == library.truth("many_files")
    left: list[Any] = [p for p in tmp_path.iterdir() if "kumo" in p.name]
    assert [str(p) in warning for p in left] == [True] * (before == "a database")
    monkeypatch.setattr(_place, "sync", sync)
    assert repository.restore(target, overwrite=True).warnings == ()
    assert leftovers(tmp_path) == []
