"""Python programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

# What a test process may inherit: nothing that leads to a real AWS account.
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR", "LANG")
_KEPT_PREFIXES = ("PYTHON", "ASAN_", "LSAN_", "TSAN_", "UBSAN_", "KUMO_CRT_", "COVERAGE_")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns a clean environment plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **(extra or {})}


def powerless() -> list[str]:
    """What a command begins with whom permissions bind, though root runs the tests."""
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []


def start_python(
    program: str, *arguments: str, env: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Starts a program; its standard streams are pipes."""
    return subprocess.Popen(
        [sys.executable, *flags, "-c", textwrap.dedent(program), *arguments],
        env=environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(
    program: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    flags: tuple[str, ...] = (),
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end.

    Raises:
        AssertionError: It failed; with what it wrote.
    """
    with start_python(program, *arguments, env=env, flags=flags) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"the program did not end in {timeout} s:\n{out}\n{err}") from None
    assert process.returncode == 0, f"status {process.returncode}:\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
