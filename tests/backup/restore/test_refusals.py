"""What is said where a restore, or a drill, cannot be: what it was, and what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, delete, get, key_of, leftovers, put, stored_files, url
from tests.support.processes import environment, powerless
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

Failing = Callable[..., str]


@pytest.fixture
def failing(s3_server: S3Server, bucket: str) -> Failing:
    """Runs a command that permissions bind, and returns what it says."""

    def run(command: str, *arguments: object) -> str:
        done = subprocess.run(
            [*powerless(), sys.executable, "-m", "kumo_crt.cli", command, url(bucket)]
            + [str(argument) for argument in arguments],
            env=environment(s3_server.environment()),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1, done.stderr
        return done.stderr

    return run


@pytest.mark.parametrize("below", ["target", "deep/er/target"])
def test_a_file_above_the_target(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, below: str
) -> None:
    repository.backup(make("one_key"))
    (tmp_path / "file").write_text("irreplaceable")
    with pytest.raises(
        kumo_crt.RepositoryError, match=rf"^{tmp_path}/file: is a file, no directory: choose"
    ):
        repository.restore(tmp_path / "file" / below)
    (tmp_path / "file").unlink()
    (tmp_path / "file").symlink_to("nowhere")
    with pytest.raises(kumo_crt.RepositoryError, match=r"/file: is a link to nothing: choose"):
        repository.restore(tmp_path / "file" / below)


@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--delta",), ("--dry-run",)])
def test_a_target_that_cannot_be_looked_at(
    repository: kumo_crt.Repository,
    failing: Failing,
    make: Make,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    path = make("one_key")
    repository.backup(path)
    path.chmod(0o000)
    said = failing("restore", path, *options)
    assert f"{path}: cannot be looked at: " in said
    assert "Permission denied: restore as a user who may do that" in said
    path.chmod(0o755)
    (tmp_path / "above").mkdir(mode=0o000)
    said = failing("restore", tmp_path / "above" / "target", *options)
    assert f"{tmp_path}/above/target: cannot be looked at: " in said


def test_nothing_can_be_made_beside_the_target(
    repository: kumo_crt.Repository, failing: Failing, make: Make, tmp_path: Path
) -> None:
    repository.backup(make("one_key"))
    (tmp_path / "above").mkdir(mode=0o555)
    said = failing("restore", tmp_path / "above" / "target")
    assert f"{tmp_path}/above: a restore is made beside its target, and nothing can be" in said
    assert "Permission denied: restore as a user who may do that, or choose another" in said


def test_no_place_for_a_drill(
    repository: kumo_crt.Repository, failing: Failing, make: Make, tmp_path: Path
) -> None:
    repository.backup(make("one_key"))
    above = tmp_path / "above"
    above.mkdir(mode=0o555)
    said = failing("drill", "--scratch", above)
    assert f"{above}: no scratch directory can be made there: " in said
    assert "Permission denied: name another directory (scratch=, --scratch" in said
    above.chmod(0o000)
    assert f"{above}/x: cannot be looked at: " in failing("drill", "--scratch", above / "x")
    said = failing("drill", "--scratch", tmp_path / "none")
    assert f"{tmp_path}/none: no such directory: create it, or name another" in said
    (tmp_path / "file").touch()
    said = failing("drill", "--scratch", tmp_path / "file")
    assert f"{tmp_path}/file: is a file, no directory" in said


def test_no_room_for_a_drill(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = repository.backup(make("plain")).total_bytes
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def nearly_full(path: Any) -> Any:
        return SimpleNamespace(f_bavail=size, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    wanted = (
        f"{scratch}: {size} bytes are needed and {size // 10} more are to stay free, {size} are "
        "free on this file system: make room, or name another directory (scratch=, --scratch"
    )
    with pytest.raises(kumo_crt.RepositoryError, match=f"^{re.escape(wanted)}"):
        repository.drill(scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_what_damage_leaves(
    repository: kumo_crt.Repository,
    library: Library,
    make: Make,
    tmp_path: Path,
    boto: Any,
    bucket: str,
) -> None:
    snapshot = repository.backup(make("plain"))
    file = stored_files(snapshot, "sst")[-1]
    content = get(boto, bucket, key_of(file))
    delete(boto, bucket, key_of(file))
    target = tmp_path / "target"
    with pytest.raises(kumo_crt.IntegrityError) as caught:
        repository.restore(target, max_concurrency=1)
    (left,) = tmp_path.glob(".target*")
    assert f"What was restored so far is kept in {left}: the same restore, run" in str(caught.value)
    assert "Nothing was restored" not in str(caught.value)
    # Of a drill nothing stays, and it does not say so.
    report = repository.drill(scratch=tmp_path, record=False)
    assert "kept in" not in report.problems[0].message
    put(boto, bucket, key_of(file), content)
    assert repository.restore(target).kept_bytes > 0
    assert content_of(target) == library.truth("plain")
    assert leftovers(tmp_path) == []


def test_what_is_an_option_too(
    repository: kumo_crt.Repository, failing: Failing, make: Make, tmp_path: Path
) -> None:
    repository.backup(make("one_key"))
    said = failing("restore", tmp_path / "x", "--at", "2026-11-23T06:00:00Z")
    assert "at='2026-11-23T06:00:00Z', --at: " in said
