"""The command, run as its users run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases
from tests.support.processes import environment
from tests.support.servers import S3Server

COMMAND = (sys.executable, "-m", "kumo_crt.cli")


@dataclass(frozen=True)
class Outcome:
    """How a run of the command ended."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def document(self) -> Any:
        """The one JSON document that standard output must be."""
        return json.loads(self.out)

    def failed(self, code: int, *said: str) -> None:
        """Asserts a clean failure: its code, one line on standard error, no traceback."""
        assert self.code == code, f"{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        assert self.err.count("\n") == 1
        assert self.err.startswith("kumo-crt: error: ")
        for text in said:
            assert text in self.err


Run = Callable[..., Outcome]


@pytest.fixture
def command_environment(s3_server: S3Server) -> dict[str, str]:
    """Environment that leads the command to the server."""
    return environment(s3_server.environment())


@pytest.fixture
def kumo(command_environment: Mapping[str, str]) -> Run:
    """Runs the command to its end."""

    def run(
        *arguments: object,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> Outcome:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env={**command_environment, **(env or {})},
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    return run


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A closed database with some content."""
    path = tmp_path / "database"
    databases.make_plain(path)
    return path


@pytest.fixture
def repository(kumo: Run, bucket: str, database: Path) -> str:
    """A repository with one snapshot of the database."""
    url = f"s3://{bucket}/repository"
    assert kumo("backup", database, url, "--create").code == 0
    return url


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for temporary files, with a path short enough for the server's sockets."""
    path = Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp"))
    yield path
    shutil.rmtree(path)
