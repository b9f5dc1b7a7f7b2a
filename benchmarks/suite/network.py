"""A loopback of the run's own, in which sending costs the same from one minute to the next.

A congestion control that paces, such as BBR, programs a timer for what it holds back: in a virtual
machine that is an exit to the host each time, billed to whoever sends, a third of the CPU time of
an upload and seldom the same. Loopback has no congestion to control. A network namespace has its
own routes, so that nothing else on the machine is changed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_CONGESTION_CONTROL = "cubic"  # Linux's default
_ADDRESSES = ("127.0.0.0/8", "127.0.0.1")  # the local table's routes of IPv4 loopback


def enter() -> str:
    """Moves this process, and those that it will start, to a network namespace, if that may be had.

    It has no other network than loopback. Call it while there is one thread.

    Returns:
        What the network is, for the report.
    """
    program = shutil.which("ip")
    if program is None:
        return f"{shared()}; no network of its own, for want of iproute2's ip"
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if not _unshare():
            return f"{shared()}; no network of its own, for want of permission"
        commands = [["link", "set", "lo", "up"]]
        for address in _ADDRESSES:
            route = ["local", address, "dev", "lo", "table", "local", "proto", "kernel"]
            source = ["scope", "host", "src", "127.0.0.1", "congctl", _CONGESTION_CONTROL]
            commands.append(["route", "replace", *route, *source])
        for command in commands:
            done = subprocess.run([program, *command], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                _libc().setns(before, _CLONE_NEWNET)
                return f"{shared()}; no network of its own: {done.stderr.strip()}"
    finally:
        os.close(before)
    return f"loopback of its own, {_CONGESTION_CONTROL}"


def shared() -> str:
    """What the machine's own loopback is."""
    try:
        text = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii")
    except OSError:
        text = "congestion control unknown"
    return f"the machine's loopback, {text.strip()}"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare() -> bool:
    if _libc().unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # `ip` needs the capabilities, and exec keeps them for root alone.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        Path("/proc/self", name).write_text(text, encoding="ascii")
    return True
