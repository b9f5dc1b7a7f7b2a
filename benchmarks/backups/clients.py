"""Who makes backups, and the commands for it.

Full copies put each backup under a prefix of its own, as kumo_crt keeps each snapshot; mirrors have
one prefix that they bring up to date, and keep no older state.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite.clients.base import PARALLEL, PART, REGION
from suite.setup import Peers

BUCKET = "bench-backups"
_WORKERS = Path(__file__).parent
KUMO = "kumo_crt"
# As it comes, rclone compares an MD5 of what it sends and receives, as ours does CRC32C.
UNCHECKED = "rclone unchecked"
FULL = ("s5cmd", "rclone", UNCHECKED, "boto3", "checkpoint+boto3")
MIRRORS = ("s5cmd sync", "rclone mirror")
CLIENTS = (KUMO, *FULL, *MIRRORS)


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        name: ``first``, ``changed``, ``unchanged`` or ``restore``.
        number: Of the backup: full copies get a prefix each.
        directory: To back up, or to restore to.
    """

    name: str
    number: int
    directory: Path

    @property
    def restores(self) -> bool:
        """Whether it goes the other way."""
        return self.name == "restore"


@dataclass(frozen=True)
class Place:
    """The service, and who may use it."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """Variables that every client reads."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }


def command(client: str, peers: Peers, place: Place, step: Step) -> list[str]:
    """The command line for a step."""
    make: Callable[[str, Peers, Place, Step], list[str]] = {
        "s5cmd": _s5cmd,
        "rclone": _rclone,
        "boto3": _boto3,
        "checkpoint+boto3": _boto3,
        KUMO: _kumo,
    }[client.partition(" ")[0]]
    return make(client, peers, place, step)


def is_mirror(client: str) -> bool:
    """Whether it keeps one state alone."""
    return client in MIRRORS


def _prefix(client: str, step: Step) -> str:
    return "mirror" if is_mirror(client) else f"backup-{step.number}"


def _s5cmd(client: str, peers: Peers, place: Place, step: Step) -> list[str]:
    # The program itself: the script of that name is a Python that starts it.
    found = sorted(peers.directory.parent.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))
    if not found:
        raise FileNotFoundError("s5cmd is not installed")
    remote = f"s3://{BUCKET}/{_prefix(client, step)}/"
    local = f"{step.directory}/"
    verb = "sync" if is_mirror(client) and not step.restores else "cp"
    parts = ["--part-size", str(PART >> 20), "--concurrency", str(PARALLEL)]
    ends = [f"{remote}*", local] if step.restores else [local, remote]
    return [str(found[0]), "--endpoint-url", place.endpoint_url, verb, *parts, *ends]


def _rclone(client: str, peers: Peers, place: Place, step: Step) -> list[str]:
    remote = f":s3:{BUCKET}/{_prefix(client, step)}"
    ends = [remote, str(step.directory)] if step.restores else [str(step.directory), remote]
    return [
        str(peers.directory / "rclone"),
        "copy",
        *ends,
        "--config=",
        "--retries=1",
        f"--transfers={PARALLEL}",
        f"--multi-thread-streams={PARALLEL}",
        *([] if client == "rclone" else ["--ignore-checksum", "--s3-disable-checksum"]),
        f"--s3-chunk-size={PART}B",
        f"--s3-upload-concurrency={PARALLEL}",
        "--s3-no-check-bucket",
        "--s3-provider=SeaweedFS",
        f"--s3-endpoint={place.endpoint_url}",
        f"--s3-access-key-id={place.access_key}",
        f"--s3-secret-access-key={place.secret_key}",
        f"--s3-region={REGION}",
    ]


def _boto3(client: str, peers: Peers, place: Place, step: Step) -> list[str]:
    # A checkpoint needs rocksdict, which is beside kumo_crt's tests.
    takes_checkpoint = client.startswith("checkpoint")
    python = sys.executable if takes_checkpoint else str(peers.python)
    job = {
        "restores": step.restores,
        "checkpoint": takes_checkpoint and not step.restores,
        "bucket": BUCKET,
        "prefix": _prefix(client, step),
        "directory": str(step.directory),
    }
    return [python, str(_WORKERS / "boto_worker.py"), json.dumps(job)]


def _kumo(client: str, peers: Peers, place: Place, step: Step) -> list[str]:
    verb = "restore" if step.restores else "backup"
    url = f"s3://{BUCKET}/repository"
    return [sys.executable, str(_WORKERS / "kumo_worker.py"), verb, url, str(step.directory)]
