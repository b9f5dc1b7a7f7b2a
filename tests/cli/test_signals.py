"""Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND
from tests.cli.test_demo import processes_in
from tests.support.processes import environment

_ENDS = [
    (signal.SIGINT, 130, "kumo-crt: interrupted\n"),
    (signal.SIGTERM, 143, "kumo-crt: terminated\n"),
    (signal.SIGHUP, 129, "kumo-crt: terminated\n"),
]


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(30)
        yield server


@pytest.mark.parametrize(("number", "code", "message"), _ENDS)
def test_a_stalled_transfer(
    silent_server: socket.socket, tmp_path: Path, number: int, code: int, message: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(1000))
    url = f"http://127.0.0.1:{silent_server.getsockname()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "AKEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    line = ("put", str(source), "s3://bucket/key", "--endpoint-url", url, "--json")
    with subprocess.Popen(
        [*COMMAND, *line],
        env=environment(keys),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        connection, _ = silent_server.accept()
        with connection:
            connection.recv(1)
            begun = time.monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - begun < 10
    assert err == message
    assert json.loads(out)["error"] == {
        "type": "Interrupted",
        "message": message.strip().rpartition(" ")[2],
        "exit_code": code,
    }


@pytest.mark.parametrize(("number", "code", "message"), _ENDS)
@pytest.mark.parametrize("moment", ["start the server", "make the database", "restore"])
def test_the_demo_cleans_up(
    scratch: Path, number: int, code: int, message: str, moment: str
) -> None:
    # Enough to go on with until the signal comes, also where this process has to wait for its turn.
    size = "20MB" if moment == "restore" else "100MB"
    with subprocess.Popen(
        [*COMMAND, "demo", "--size", size],
        env=environment({"TMPDIR": str(scratch)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = ""
        while not line.startswith(f"  {moment} "):
            line = process.stdout.readline()
            assert line, "the demo ended before the moment came"
        assert processes_in(scratch)
        process.send_signal(number)
        # Impatience does not break the clean-up.
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, message), out
    assert "everything is removed" not in out
    assert list(scratch.iterdir()) == []
    assert processes_in(scratch) == []


# Sends itself the signal where a module that is loaded makes a data class.
_WHILE_LOADING = """
import dataclasses, os, sys

def execute(text, names, *more):
    if names["__name__"] == sys.argv[1]:
        text = f"__import__('os').kill({os.getpid()}, {sys.argv[2]})\\n{text}"
    exec(text, names, *more)

dataclasses.exec = execute
from kumo_crt.cli._main import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize(("number", "code", "message"), _ENDS)
@pytest.mark.parametrize(
    "module",
    ["kumo_crt.backup._format._results", "kumo_crt.s3._context", "kumo_crt.backup._store._known"],
)
def test_while_a_module_is_loaded(
    tmp_path: Path,
    command_environment: dict[str, str],
    boto: Any,
    bucket: str,
    database: Path,
    number: int,
    code: int,
    message: str,
    module: str,
) -> None:
    (tmp_path / "loading.py").write_text(_WHILE_LOADING)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "loading", module, str(int(number))),
            *("backup", str(database), f"s3://{bucket}/repository", "--create"),
        ],
        env=command_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, message), done.stdout
    stored = boto.list_objects_v2(Bucket=bucket, Prefix="repository/snapshots/")
    assert "Contents" not in stored
