"""The benchmarks' modules and servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from suite.servers import Server, serve
from suite.setup import Programs, build_programs, cache_directory
from tests.support.certificates import Certificates

# Looked up before the tests' home directory is an empty one: the AWS libraries are not built again.
_CACHE = cache_directory()


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The server and the bounds, in the checkout's build directory."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("KUMO_CRT_CACHE_DIR", str(_CACHE))
        return build_programs()


@pytest.fixture(scope="session")
def discarding(programs: Programs) -> Iterator[Server]:
    """A server that discards what it receives."""
    with serve(programs.server) as server:
        yield server


@pytest.fixture(scope="session", params=["http", "https"])
def checking(
    request: pytest.FixtureRequest, programs: Programs, certificates: Certificates
) -> Iterator[Server]:
    """A server that checks what it receives, over both schemes."""
    if request.param == "http":
        with serve(programs.server, "--check") as server:
            yield server
        return
    arguments = (f"--tls-certificate={certificates.chain}", f"--tls-key={certificates.key}")
    with serve(programs.server, "--check", *arguments, ca_file=str(certificates.ca)) as server:
        yield server
