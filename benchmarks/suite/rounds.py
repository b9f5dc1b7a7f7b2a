"""Runs the measurements: a first pass against the checking server, then interleaved rounds."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kumo_crt
from suite.actions import SMALL, Job
from suite.cases import BOUND, KUMO, Case
from suite.servers import Servers
from suite.setup import Peers, Programs, peer_versions, say

WARM_UP = 32 << 20
# What is uploaded in the first pass: several parts, so that multipart uploads are seen.
_CHECKED = 64 << 20
_FILES = 64
CONCURRENCY = 32
# A measurement that takes longer hangs.
_TIMEOUT = 300
# What a measuring process may inherit.
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        builds: Further builds of kumo_crt: the directories that they are imported from, by name.
    """

    size: int
    rounds: int
    small_requests: int
    small_seconds: float
    builds: dict[str, Path]


class Runner:
    """One run."""

    def __init__(
        self,
        settings: Settings,
        cases: list[tuple[Case, list[str]]],
        peers: Peers,
        programs: Programs,
        servers: Servers,
        scratch: Path,
    ) -> None:
        self._settings = settings
        self._cases = cases
        self._peers = peers
        self._programs = programs
        self._servers = servers
        self._scratch = scratch
        self._failed: dict[tuple[str, str], str] = {}
        self._unsupported: dict[tuple[str, str], str] = {}

    def run(self) -> dict[str, Any]:
        """Measures everything and returns the results."""
        self._make_files()
        checks = self._first_pass()
        samples: list[dict[str, Any]] = []
        for turn in range(self._settings.rounds):
            for case, clients in self._cases:
                # Another client begins each round: being first after a pause is no advantage.
                shift = turn % len(clients)
                for client in clients[shift:] + clients[:shift]:
                    if self._left_out(case, client):
                        continue
                    say(f"round {turn + 1} of {self._settings.rounds}: {case.name} {client}")
                    figures = self._measure(case, client, verify=turn == 0)
                    if figures is not None:
                        samples.append(
                            {"round": turn, "case": case.name, "client": client, **figures}
                        )
        return {
            "size": self._settings.size,
            "rounds": self._settings.rounds,
            "machine": _machine(),
            "versions": {KUMO: kumo_crt.__version__, **peer_versions(self._peers)},
            "not_installed": self._peers.missing,
            "cases": {case.name: clients for case, clients in self._cases},
            "failed": _nested(self._failed),
            "unsupported": _nested(self._unsupported),
            "checks": checks,
            "samples": samples,
        }

    def _left_out(self, case: Case, client: str) -> bool:
        return (case.name, client) in self._failed or (case.name, client) in self._unsupported

    # -- preparation -----------------------------------------------------------------------

    def _make_files(self) -> None:
        say("writing the files")
        block = os.urandom(1 << 20)
        _write(self._scratch / "source", self._settings.size, block)
        _write(self._scratch / "warm-up", min(WARM_UP, self._settings.size), block)
        _write(self._scratch / "checked", min(_CHECKED, self._settings.size), block)
        for directory, size in (("many", self._settings.size), ("many-checked", _CHECKED)):
            (self._scratch / directory).mkdir()
            for number in range(_FILES):
                path = self._scratch / directory / f"{number:03}"
                _write(path, size // _FILES, block)

    def _first_pass(self) -> dict[str, dict[str, Any]]:
        """Uploads once to the server that checks: what does each client send, and is it right?"""
        checks: dict[str, dict[str, Any]] = {}
        for case, clients in self._cases:
            if not case.action.startswith("upload_"):
                continue
            server = self._servers.choose(tls=case.tls, checking=True)
            assert server is not None
            for client in clients:
                if client.startswith(BOUND):
                    continue
                say(f"checking what arrives: {case.name} {client}")
                before = server.statistics()
                if self._measure(case, client, checking=True) is None:
                    continue
                after = server.statistics()
                found = {
                    name: after[name] - before[name]
                    for name in ("bodies_verified", "bodies_without_checksum", "bodies_damaged")
                }
                found["requests"] = {
                    name: count - before["requests"].get(name, 0)
                    for name, count in after["requests"].items()
                    if count != before["requests"].get(name, 0)
                }
                received = after["content_received"] - before["content_received"]
                if received < _CHECKED or found["bodies_damaged"]:
                    self._fail(case, client, f"{received} bytes arrived, {found}")
                checks.setdefault(case.name, {})[client] = found
        return checks

    # -- one measurement -------------------------------------------------------------------

    def _measure(
        self, case: Case, client: str, *, verify: bool = False, checking: bool = False
    ) -> dict[str, Any] | None:
        """Returns the figures; None if there are none, which is noted."""
        if client.startswith(BOUND):
            command = self._bound_command(client.removeprefix(BOUND))
        else:
            command = self._worker_command(case, client, verify=verify, checking=checking)
        try:
            done = subprocess.run(
                command,
                env=self._environment(case, client),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._fail(case, client, f"no end after {_TIMEOUT} s")
            return None
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            self._fail(case, client, f"status {done.returncode}: {lines[-1][:500]}")
            return None
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if client.startswith(BOUND):
            return answer
        if "unsupported" in answer:
            self._unsupported[case.name, client] = answer["unsupported"]
            say(f"  left out: {answer['unsupported']}")
            return None
        figures: dict[str, Any] = answer["figures"]
        return figures

    def _fail(self, case: Case, client: str, why: str) -> None:
        self._failed[case.name, client] = why
        say(f"  failed: {why}")

    def _bound_command(self, name: str) -> list[str]:
        small = name.startswith("small-")
        return [
            str(self._programs.bounds),
            name,
            f"--port={self._servers.plain.port}",
            f"--size={SMALL if small else self._settings.size}",
            f"--count={self._settings.small_requests}",
            f"--source={self._scratch / 'source'}",
            f"--target={self._scratch / 'target'}",
        ]

    def _worker_command(
        self, case: Case, client: str, *, verify: bool, checking: bool
    ) -> list[str]:
        server = self._servers.choose(tls=case.tls, checking=checking)
        assert server is not None
        job = Job(
            client=client.partition(":")[0],
            action=case.action,
            size=self._settings.size,
            verify=verify,
            server=f"127.0.0.1:{self._servers.plain.port}",
            endpoint_url=server.endpoint_url,
            ca_file=server.ca_file,
            checksum=case.checksum,
            source=str(self._scratch / ("checked" if checking else "source")),
            warm_up=str(self._scratch / "warm-up"),
            directory=str(self._scratch / ("many-checked" if checking else "many")),
            target=str(self._scratch / "target"),
            count=self._settings.small_requests,
            seconds=self._settings.small_seconds,
            concurrency=CONCURRENCY,
        )
        ours = client.partition(":")[0] == KUMO
        python = sys.executable if ours else str(self._peers.python)
        worker = Path(__file__).with_name("worker.py")
        return [python, str(worker), json.dumps(dataclasses.asdict(job))]

    def _environment(self, case: Case, client: str) -> dict[str, str]:
        """Nothing of the user's AWS settings, and no proxies."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        kept["AWS_EC2_METADATA_DISABLED"] = "true"
        kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
        kept["AWS_ACCESS_KEY_ID"], kept["AWS_SECRET_ACCESS_KEY"] = "AKBENCH", "benchmark"
        kept["AWS_REGION"] = "us-east-1"
        server = self._servers.choose(tls=case.tls)
        if server is not None and server.ca_file is not None:
            # Where each of the clients that cannot be told looks for the CAs to trust.
            for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
                kept[name] = server.ca_file
        name, _, build = client.partition(":")
        if name == KUMO:
            default = Path(kumo_crt.__file__).parents[1]
            kept["PYTHONPATH"] = str(self._settings.builds[build] if build else default)
            kept.update({n: v for n, v in os.environ.items() if n.startswith("KUMO_CRT_")})
        return kept


def _write(path: Path, size: int, block: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])


def _nested(notes: dict[tuple[str, str], str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for (case, client), note in notes.items():
        found.setdefault(case, {})[client] = note
    return found


def _machine() -> dict[str, Any]:
    return {
        "cpu": _first_value(Path("/proc/cpuinfo").read_text(encoding="utf-8"), "model name"),
        "cpus": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }


def _first_value(text: str, name: str) -> str:
    lines: Iterable[str] = text.splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "?")
