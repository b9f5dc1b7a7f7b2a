"""Interleaved rounds: in each, every client makes its backups and its restore on a new server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kumo_crt
from backups import databases, machine
from backups.clients import BUCKET, KUMO, MIRRORS, Place, Step, command
from backups.databases import Shape, States
from backups.server import CountingServer
from suite.rounds import _KEPT, _machine
from suite.setup import Peers, peer_versions, say

_TIMEOUT = 600.0
_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        directory: For databases and restores.
        server_directory: For what the server stores.
        builds: Further builds of kumo_crt by name: the directories they are imported from.
    """

    rounds: int
    shapes: list[Shape]
    clients: list[str]
    directory: Path
    server_directory: Path
    builds: dict[str, Path]


class Runner:
    """One run."""

    def __init__(self, settings: Settings, peers: Peers) -> None:
        self._settings = settings
        self._peers = peers
        self._samples: list[dict[str, Any]] = []
        self._failed: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Measures everything and returns the results."""
        settings = self._settings
        facts: dict[str, dict[str, Any]] = {}
        for shape in settings.shapes:
            say(f"making the database: {shape.title}")
            states = databases.build(shape, settings.directory)
            disk: list[float] = []
            facts[shape.name] = {"title": shape.title, **states.facts(), "disk_seconds": disk}
            for turn in range(settings.rounds):
                disk.append(machine.time_of_disk(states.after, settings.directory / "copied"))
                # Another client begins each round: being first after a pause is no advantage.
                shift = turn % len(settings.clients)
                for client in settings.clients[shift:] + settings.clients[:shift]:
                    if client not in self._failed:
                        say(f"round {turn + 1} of {settings.rounds}: {shape.name} {client}")
                        self._turn(states, client, turn)
            for path in (states.before, states.after):
                shutil.rmtree(path)
        return {
            "rounds": settings.rounds,
            "clients": settings.clients,
            "shapes": facts,
            "machine": _machine(),
            "versions": {KUMO: kumo_crt.__version__, **peer_versions(self._peers)},
            "not_installed": self._peers.missing,
            "failed": self._failed,
            "samples": self._samples,
        }

    def _turn(self, states: States, client: str, turn: int) -> None:
        target = self._settings.directory / "restored"
        steps = [Step("first", 1, states.before), Step("changed", 2, states.after)]
        if client.partition(":")[0] == KUMO or client in MIRRORS:  # else the same as the last one
            steps.append(Step("unchanged", 2, states.after))
        steps.append(Step("restore", 2, target))
        with CountingServer(directory=self._settings.server_directory) as server:
            place = Place(server.endpoint_url, server.access_key_id, server.secret_access_key)
            self._prepare(client, place)
            for step in steps:
                databases.read_through(states.after)
                os.sync()
                # The client's, and the service's.
                machine.warm_memory(self._settings.directory, 2 * states.shape.size)
                before, server_cpu = server.requests(BUCKET), server.cpu_seconds()
                try:
                    figures = self._measure(client, place, step)
                except RuntimeError as error:
                    self._failed[client] = f"{step.name}: {error}"
                    say(f"  failed: {self._failed[client]}")
                    break
                figures["server_cpu_seconds"] = server.cpu_seconds() - server_cpu
                figures["requests"] = server.requests(BUCKET) - before
                if step.restores:
                    figures["synced_seconds"] = figures["wall_seconds"] + _time_to_sync(target)
                    if turn == 0 and (found := self._difference(states, client, target)):
                        self._failed[client] = f"the restored database is another one: {found}"
                        say(f"  failed: {self._failed[client]}")
                        break
                key = {"round": turn, "shape": states.shape.name, "client": client}
                self._samples.append({**key, "step": step.name, **figures})
            shutil.rmtree(target, ignore_errors=True)

    def _prepare(self, client: str, place: Place) -> None:
        with kumo_crt.S3Client(
            "us-east-1",
            place.endpoint_url,
            access_key_id=place.access_key,
            secret_access_key=place.secret_key,
        ) as s3:
            s3.create_bucket(BUCKET)
            if client.partition(":")[0] == KUMO:
                kumo_crt.Repository.create(f"s3://{BUCKET}/repository", client=s3).close()

    @staticmethod
    def _difference(states: States, client: str, target: Path) -> str:
        opened = client.startswith("checkpoint")
        return databases.difference(states.after, target, tables_only=opened)

    def _measure(self, client: str, place: Place, step: Step) -> dict[str, float]:
        name, _, build = client.partition(":")
        words = command(name, self._peers, place, step)
        # Through a small process: what a child has at most includes what its parent had.
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(_LAUNCHER), *words],
            env=self._environment(build, place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or done.stdout.splitlines() or ["no message"]
            raise RuntimeError(f"status {done.returncode}: {lines[-1][:500]}")
        output = done.stdout.split("\n")
        figures: dict[str, float] = json.loads(output[-2])
        if words[1].endswith("_worker.py"):
            figures["call_seconds"] = float(output[-4])
        return figures

    def _environment(self, build: str, place: Place) -> dict[str, str]:
        """Nothing of the user's AWS settings, and no proxies."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        kept["AWS_EC2_METADATA_DISABLED"] = "true"
        kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
        default = Path(kumo_crt.__file__).parents[1]
        kept["PYTHONPATH"] = str(self._settings.builds[build] if build else default)
        kept.update(place.environment())
        kept["AWS_DEFAULT_REGION"] = kept["AWS_REGION"]
        kept.update({n: v for n, v in os.environ.items() if n.startswith("KUMO_CRT_")})
        return kept


def _time_to_sync(directory: Path) -> float:
    begun = time.perf_counter()
    databases.synced(directory)
    return time.perf_counter() - begun
