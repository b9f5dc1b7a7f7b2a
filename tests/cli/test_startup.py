"""A command loads what it needs, and no more: most of a short command's time is that."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from kumo_crt._config import ADDRESSING_STYLES
from kumo_crt.cli import _grammar
from kumo_crt.cli._main import _COMMANDS, _command

PROGRAM = """
import sys
from kumo_crt.cli import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def commands() -> set[str]:
    parser = _grammar.build()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return set(action.choices)


def test_every_command_has_a_function() -> None:
    assert set(_COMMANDS) == commands()
    for name in _COMMANDS:
        assert callable(_command(name))


def test_the_grammar_knows_the_addressing_styles() -> None:
    (action,) = (a for a in _grammar.build()._actions if a.dest == "addressing_style")
    assert action.choices == ADDRESSING_STYLES


@pytest.mark.parametrize(
    ("arguments", "unloaded"),
    [
        (["--version"], ("kumo_crt.s3", "kumo_crt.backup", "kumo_crt.export", "dataclasses")),
        (["completion", "bash"], ("kumo_crt.s3", "kumo_crt.backup", "kumo_crt.export")),
        (["prune", "--help"], ("kumo_crt.s3", "kumo_crt.backup", "kumo_crt.export")),
        (["ls", "s3://bucket/"], ("kumo_crt.backup", "kumo_crt.export", "kumo_crt.s3._put")),
        (["snapshots", "s3://bucket/prefix"], ("kumo_crt.export", "kumo_crt.cli._demo")),
        (
            ["restore", "s3://bucket/prefix", "/nonexistent"],
            (
                "kumo_crt.export",
                "kumo_crt.backup._capture",
                "kumo_crt.backup._coordination._inflight",
                "kumo_crt.backup._reports",
                "kumo_crt.s3._async_client",
                "kumo_crt.s3._put",
            ),
        ),
    ],
)
def test_what_is_not_needed_is_not_loaded(arguments: list[str], unloaded: tuple[str, ...]) -> None:
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nobody is there
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=environment
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert "kumo_crt.cli._main" in loaded, done.stderr
    assert not set(unloaded) & set(loaded)
