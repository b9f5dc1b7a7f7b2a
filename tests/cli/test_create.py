"""backup --create: one capture, and a repository only for what can be backed up."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup import _capture
from kumo_crt.cli import main
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

Here = Callable[..., tuple[int, str]]


@pytest.fixture
def here(
    command_environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Here:
    """Runs the command in this process."""
    for name, value in command_environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)

    def run(*line: object) -> tuple[int, str]:
        code = main([str(word) for word in line])
        return code, "".join(capfd.readouterr())

    return run


class Captures:
    """Notes when databases are captured; does something as soon as one is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[datetime] = []
        self.then: Callable[[], object] = lambda: None
        self._capture = _capture.capture
        monkeypatch.setattr(_capture, "capture", self._noted)

    @contextlib.contextmanager
    def _noted(self, *source: Any, **options: Any) -> Iterator[Any]:
        self.begun.append(datetime.now(UTC))
        with self._capture(*source, **options) as taken:
            self.then()
            yield taken


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    return Captures(monkeypatch)


def _keys(boto: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in boto.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.mark.parametrize("options", [(), ("--compact-first",), ("--single-object",)])
def test_the_database_is_captured_once(
    here: Here,
    captures: Captures,
    boto: Any,
    bucket: str,
    database: Path,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    url = f"s3://{bucket}/repository"
    there: list[str] = []

    def look() -> None:
        there.extend(_keys(boto, bucket))
        time.sleep(1.5)  # a capture that takes time

    captures.then = look
    code, told = here("backup", database, url, "--create", *options)
    assert code == 0, told
    assert told.startswith(f"created the repository {url}\nsnapshot 2")
    assert there == []  # it is captured before anything is created
    (begun,) = captures.begun
    listing = json.loads(here("snapshots", url, "--json")[1])
    created_at = datetime.fromisoformat(listing["snapshots"][0]["created_at"])
    # What is in it is not younger than that; the service tells its time in whole seconds.
    assert -2.5 < (created_at - begun).total_seconds() <= 0
    assert here("restore", url, tmp_path / "restored")[0] == 0
    assert databases.read_all(tmp_path / "restored") == databases.read_all(database)
    assert here("backup", database, url, "--create")[0] == 0
    assert len(captures.begun) == 2


def test_nothing_is_created_for_nothing(
    here: Here, captures: Captures, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    assert here("backup", tmp_path, url, "--create")[0] == 1
    assert captures.begun == []
    assert here("backup", database, url, "--create", "--dry-run")[0] == 0
    assert len(captures.begun) == 1
    assert here("backup", database, url, "--create", "--sse", "rot13")[0] == 2
    assert len(captures.begun) == 1
    min(database.glob("*.sst")).unlink()
    code, told = here("backup", database, url, "--create")
    assert (code, "it is not there" in told, "created the" in told) == (1, True, False), told
    assert _keys(boto, bucket) == []


@pytest.mark.parametrize("options", [(), ("--single-object",), ("--tag", "a=b")])
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_dry_run_tells_what_the_first_backup_tells(
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    boto: Any,
    bucket: str,
    database: Path,
    options: tuple[str, ...],
    encrypted: bool,
) -> None:
    """It has counted what goes into the manifest, no sealing, and no tags."""
    if encrypted:
        monkeypatch.setenv("KUMO_CRT_KEY", "07" * 32)
    line = ("backup", database, f"s3://{bucket}/repository", "--create", "--json", *options)
    planned = json.loads(here(*line, "--dry-run")[1])
    assert _keys(boto, bucket) == []
    done = json.loads(here(*line)[1])
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    for told in (planned, done):
        assert datetime.fromisoformat(told["snapshot"].pop("created_at")).microsecond == 0
        del told["snapshot"]["id"], told["seconds"]
    assert planned == done


@pytest.mark.parametrize(
    ("theirs", "code", "said"),
    [
        ({}, 0, "snapshot 2"),
        ({"sse": "AES256"}, 1, "created by somebody else meanwhile, with sse AES256"),
        ({"environment": "prod"}, 1, "belongs to environment 'prod'"),
        ({"encryption_key": kumo_crt.Key(bytes(range(32)))}, 12, "is encrypted, and a backup"),
    ],
)
def test_somebody_else_is_faster(
    here: Here,
    captures: Captures,
    s3: kumo_crt.S3Client,
    bucket: str,
    database: Path,
    theirs: dict[str, Any],
    code: int,
    said: str,
) -> None:
    url = f"s3://{bucket}/repository"
    captures.then = lambda: kumo_crt.Repository.create(url, client=s3, **theirs)
    line = ["backup", database, url, "--create", "--environment", "dev"]
    asked = ["--sse", "aws:kms"] if "sse" in theirs else []
    found, told = here(*line, *asked)
    assert (found, said in told) == (code, True), told
    assert "created the repository" not in told
    assert len(captures.begun) == 1
