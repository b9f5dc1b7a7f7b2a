"""A network of the run's own: what it says of itself is so, and a server in it is reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAM = """
import json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from suite import network

def inode():
    return os.stat("/proc/self/ns/net").st_ino

def congestion_control():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            name = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            return name.rstrip(b"\\0").decode()

before, usual = inode(), congestion_control()
name = network.enter()
print(json.dumps([name, before != inode(), usual, congestion_control()]))
"""


def enter(**environment: str) -> tuple[str, bool, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(BENCHMARKS)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    name, moved, before, after = json.loads(done.stdout)
    return name, moved, before, after


def test_it_is_what_it_says() -> None:
    name, moved, before, after = enter(PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    if moved:
        assert (name, after) == ("loopback of its own, cubic", "cubic")
    else:  # no iproute2, or not allowed here
        assert "no network of its own" in name
        assert after == before


def test_without_iproute2_the_machines_loopback_is_used(tmp_path: Path) -> None:
    name, moved, before, after = enter(PATH=str(tmp_path))
    assert not moved
    assert after == before
    assert (
        name
        == f"the machine's loopback, {before}; no network of its own, for want of iproute2's ip"
    )
