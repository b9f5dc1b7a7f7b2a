"""The benchmarks' servers, as long as a run needs them."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.setup import ROOT


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    ca_file: str | None

    @property
    def endpoint_url(self) -> str:
        """Its URL."""
        return f"{'http' if self.ca_file is None else 'https'}://127.0.0.1:{self.port}"

    def statistics(self) -> dict[str, Any]:
        """What it counted since it started."""
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        url = f"{self.endpoint_url}/-/statistics"
        with urllib.request.urlopen(url, context=context) as answer:
            document: dict[str, Any] = json.load(answer)
            return document


@contextlib.contextmanager
def serve(program: Path, *arguments: str, ca_file: str | None = None) -> Iterator[Server]:
    """Starts a server.

    Raises:
        SystemExit: It does not start.
    """
    with subprocess.Popen(
        [str(program), "--with-parent", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{program.name} did not start, see above")
            yield Server(json.loads(line)["port"], ca_file)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Servers:
    """Those of a run: they discard, or they check.

    Attributes:
        tls: None where TLS is not wanted, or was not built.
    """

    plain: Server
    checking: Server
    tls: Server | None
    checking_tls: Server | None

    def choose(self, *, tls: bool, checking: bool = False) -> Server | None:
        """The one of a kind."""
        if tls:
            return self.checking_tls if checking else self.tls
        return self.checking if checking else self.plain


@contextlib.contextmanager
def serve_all(
    program: Path, python: Path, directory: Path, *, tls: bool, spin_us: int
) -> Iterator[Servers]:
    """Starts all servers of a run."""
    with contextlib.ExitStack() as stack:
        spin = f"--spin-us={spin_us}"
        plain = stack.enter_context(serve(program, spin))
        checking = stack.enter_context(serve(program, "--check"))
        if not tls:
            yield Servers(plain, checking, None, None)
            return
        ca, arguments = _certificates(python, directory)
        yield Servers(
            plain,
            checking,
            stack.enter_context(serve(program, spin, *arguments, ca_file=ca)),
            stack.enter_context(serve(program, "--check", *arguments, ca_file=ca)),
        )


def _certificates(python: Path, directory: Path) -> tuple[str, list[str]]:
    """Makes a CA and a certificate, as the tests do."""
    text = (
        "import sys; from pathlib import Path; "
        "from tests.support.certificates import make_certificates; "
        "make_certificates(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [str(python), "-c", text, str(directory)], cwd=ROOT, stderr=sys.stderr, check=False
    )
    if done.returncode != 0:
        raise SystemExit("no certificates could be made, see above; --no-tls does without")
    chain, key = directory / "chain.pem", directory / "key.pem"
    return str(directory / "ca.pem"), ["--tls-certificate", str(chain), "--tls-key", str(key)]
