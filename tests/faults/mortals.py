"""Processes that are killed: between any two of their effects, or at any time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.floors import KILLS
from tests.faults.seeds import done
from tests.support.processes import environment

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Death:
    """When a process dies; never, by default.

    Attributes:
        effect: Number of the effect that it dies at, from 0.
        moment: ``before`` it; a request just ``sent``, its answer not there; ``after``.
        pause: Seconds that a request which was sent gets to arrive.
        seconds: Instead: how long after its beginning it is killed from outside.
    """

    effect: int = -1
    moment: str = "before"
    pause: float = 0.0
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"killed after {self.seconds:.4f} s"
        return f"killed {self.moment} effect {self.effect}"


NEVER = Death()


@dataclass(frozen=True)
class Life:
    """How a process ended, and what it told if it was not killed.

    Attributes:
        killed: It was.
        effects: What it did: kind and place of each effect.
        seconds: How long its work took.
        error: What it raised.
    """

    killed: bool
    effects: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    error: str | None = None

    def requests(self) -> list[int]:
        """Numbers of the effects that are requests."""
        return [n for n, (kind, _) in enumerate(self.effects) if kind[0].isupper()]


DISK_SIZE = 24 << 20
DISK_FILES = 2_000


def small_disk(directory: Path) -> list[str]:
    """What to put before a command to which a directory is a small file system.

    Without privileges: in namespaces of its own, where the system allows them.
    """
    mount = f'mount -t tmpfs -o size={DISK_SIZE},nr_inodes={DISK_FILES} none "$0" && exec "$@"'
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    return [*alone, "sh", "-c", mount, str(directory)]


def can_mount(directory: Path) -> bool:
    """Whether this system lets anybody have a small file system."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*small_disk(directory), "true"], capture_output=True).returncode == 0


class Mortals:
    """Starts processes that do one thing each; a context manager.

    Args:
        client: Arguments of their `kumo_crt.S3Client`.
        disk: A directory that is a small file system of its own to them, and to nobody else.
    """

    def __init__(self, client: dict[str, Any], *, disk: Path | None = None) -> None:
        self._disk = disk
        # One loop each: they are short.
        self._client = {**client, "event_loops": 1}

    def __enter__(self) -> Self:
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        program = [sys.executable, "-m", "tests.faults.mortal_process"]
        if self._disk is not None:
            program = [*small_disk(self._disk), *program]
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment({"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}),
            text=True,
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def seen(self, path: Path) -> Path:
        """How others reach something on the disk of these processes."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def live(self, work: str, url: str = "", death: Death = NEVER, /, **order: Any) -> Life:
        """Lets a process do its work, or die at it.

        Args:
            work: Method of `Repository`, or another work of `mortal_process`.
            url: URL of the repository.
            death: When it dies.
            order: ``arguments`` of the work, and its circumstances.
        """
        order |= {"work": work, "url": url, "client": self._client}
        order |= {"effect": death.effect, "moment": death.moment, "pause": death.pause}
        if death.seconds is not None:
            order |= {"seconds": death.seconds, "unwatched": True}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks the mortals has ended"
        told = json.loads(line)
        assert told["status"] in (0, -signal.SIGKILL), f"{order}: {told}"
        effects = tuple((kind, what) for kind, what in told.get("effects", ()))
        killed = told["status"] != 0
        if killed:
            done[KILLS + work] += 1
        return Life(killed, effects, told.get("seconds", 0.0), told.get("error"))
