"""Completion, as each shell does it; a shell that is not installed is left out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kumo_crt.cli import main
from kumo_crt.cli._grammar._tools import SHELLS

_LEVELS = {"quick", "stored", "full", "restore"}
# What is completed, and some of what it may become.
_LINES = [
    ("kumo-crt ver", {"verify"}),
    ("kumo-crt delete", {"delete-snapshot"}),
    ("kumo-crt --json dr", {"drill"}),
    ("kumo-crt verify --leve", {"--level"}),
    ("kumo-crt verify --level ", _LEVELS),
    ("kumo-crt repair --level ", _LEVELS - {"restore"}),
    ("kumo-crt ls --addressing-style ", {"auto", "path", "virtual"}),
    ("kumo-crt --addressing-style p", {"path"}),
    ("kumo-crt completion ", set(SHELLS)),
    ("kumo-crt prune s3://b/p --keep-m", {"--keep-monthly"}),
]


@pytest.fixture
def script(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> Path:
    """The script of a shell."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    path = tmp_path / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash(script: Path) -> None:
    program = (
        'source "$1"; read -ra COMP_WORDS <<< "$2"; [[ $2 == *" " ]] && COMP_WORDS+=("");'
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _kumo_crt; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    for line, wanted in _LINES:
        found = _run("bash", "-c", program, "-", str(script), line)
        assert set(found.split()) == wanted, line
    # Files are bash's own business.
    assert _run("bash", "-c", program, "-", str(script), "kumo-crt backup /et").split() == []


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish(script: Path) -> None:
    for line, wanted in _LINES:
        found = _run("fish", "-c", f"source {script}; complete -C '{line}'")
        assert {item.split("\t")[0] for item in found.splitlines()} == wanted, line


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh(script: Path) -> None:
    """Its completion needs a terminal; here it is only read."""
    _run("zsh", "-n", str(script))
    assert script.read_text().startswith("#compdef kumo-crt\n")
    program = 'compdef() { print "$@"; }; source "$1"; whence -w _kumo_crt'
    assert _run("zsh", "-f", "-c", program, "-", str(script)).splitlines() == [
        "_kumo_crt kumo-crt",
        "_kumo_crt: function",
    ]


def test_which_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion"]) == 0
    assert capsys.readouterr().out.startswith("# kumo-crt completion fish > ")
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert main(["completion"]) == 2
    assert "SHELL is '/bin/dash': choose one of bash, zsh, fish" in capsys.readouterr().err
