"""What a terminal gets, and nobody else."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Run
from tests.support.data import MIB, payload

pytestmark = pytest.mark.servers("seaweed-http")

_BAR = "━"
_WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None\n"
    "from kumo_crt.cli import main; sys.exit(main(sys.argv[1:]))"
)


def _on_terminal(
    *line: str, env: Mapping[str, str], both: bool = False, program: tuple[str, ...] = COMMAND
) -> tuple[int, str, str]:
    """Runs the command with standard error (or both) on a terminal.

    Returns:
        Exit code, what came on standard output's pipe, what the terminal saw.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*program, *line],
        stdout=theirs if both else subprocess.PIPE,
        stderr=theirs,
        env={**env, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        seen, out = b"", b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the last process that had it open has ended
                break
            if not piece:
                break
            seen += piece
        if process.stdout is not None:
            out = process.stdout.read()
        code = process.wait(timeout=30)
    with contextlib.suppress(OSError):
        os.close(ours)
    return code, out.decode(), seen.decode()


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(payload(1 * MIB) * 48)
    return path


@pytest.fixture
def line(bucket: str, big_file: Path) -> tuple[str, ...]:
    return ("put", str(big_file), f"s3://{bucket}/key")


def test_progress_on_a_terminal(line: tuple[str, ...], command_environment: dict[str, str]) -> None:
    code, out, seen = _on_terminal(*line, env=command_environment)
    assert code == 0
    assert _BAR in seen
    assert "/50.3 MB" in seen
    assert out.startswith("stored s3://")
    assert _BAR not in out


def test_json_stays_pure_on_a_terminal(
    line: tuple[str, ...], command_environment: dict[str, str]
) -> None:
    code, out, seen = _on_terminal(*line, "--json", env=command_environment)
    assert code == 0
    assert out.startswith("{")
    assert out.endswith("}\n")
    assert _BAR in seen


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_no_progress_if_not_wanted(
    line: tuple[str, ...], command_environment: dict[str, str], option: str
) -> None:
    code, _, seen = _on_terminal(*line, option, env=command_environment)
    assert code == 0
    assert _BAR not in seen


def test_no_progress_without_a_terminal(kumo: Run, line: tuple[str, ...]) -> None:
    outcome = kumo(*line)
    assert outcome.code == 0
    assert outcome.err == ""


def test_without_rich(
    line: tuple[str, ...], command_environment: dict[str, str], repository: str
) -> None:
    program = (sys.executable, "-c", _WITHOUT_RICH)
    code, out, seen = _on_terminal(*line, env=command_environment, program=program)
    assert code == 0
    assert seen == ""
    assert out.startswith("stored s3://")
    code, _, seen = _on_terminal(
        "snapshots", repository, env=command_environment, both=True, program=program
    )
    assert code == 0
    assert seen.startswith("snapshot ")
    assert "\x1b" not in seen


def test_tables_on_a_terminal(command_environment: dict[str, str], repository: str) -> None:
    code, _, seen = _on_terminal("snapshots", repository, env=command_environment, both=True)
    assert code == 0
    assert "─" in seen
    assert "created (UTC)" in seen
