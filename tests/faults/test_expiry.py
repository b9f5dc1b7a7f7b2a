"""Credentials that expire in the middle: they are renewed, or the work ends and is gone on with.

The keys come from a ``credential_process``, as from any broker of temporary credentials. A proxy
refuses those that have expired, as S3 does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rocksdict import Rdict

from kumo_crt.cli._seaweed import SeaweedServer
from tests.backup.helpers import leftovers
from tests.faults.judge import Judge, expected_tree, tree
from tests.faults.seeds import done
from tests.faults.stage import PART, write_large
from tests.support import databases
from tests.support.fake_s3 import error_document
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.processes import environment
from tests.support.servers import S3Server

_PARTS = 4
_KEYS = 40
_ALWAYS = 1_000_000
_BODY = error_document("ExpiredToken", "The provided token has expired.")
_EXPIRED = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
# For how many seconds a key holds; others are asked for before that.
_HOLDS = 3
_PROCESS = """
import datetime, json, pathlib, sys, time
directory, holds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
if (directory / "broken").exists():
    sys.exit("the broker of credentials is not there")
number = len(list(directory.glob("issued-*")))
now = time.time()
(directory / f"issued-{number}").write_text(repr(now))
found = {
    "Version": 1,
    "AccessKeyId": f"AKKEY{number:04d}",
    "SecretAccessKey": f"secret-of-key-{number:04d}",
}
if holds:
    until = datetime.datetime.fromtimestamp(now + holds, datetime.timezone.utc)
    found["Expiration"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
print(json.dumps(found))
"""


class _Server(SeaweedServer):
    """It knows all the keys that are going to be handed out."""

    def _write_config(self, path: Path) -> None:
        super()._write_config(path)
        config = json.loads(path.read_text())
        config["identities"][0]["credentials"] += [
            {"accessKey": f"AKKEY{n:04d}", "secretKey": f"secret-of-key-{n:04d}"}
            for n in range(_KEYS)
        ]
        path.write_text(json.dumps(config))


@dataclass
class World:
    """A server, who reads it, and a database.

    Attributes:
        server: The server, for those whose keys do not expire.
        judge: Reads what it holds.
        path: The database.
        truth: What is in it.
    """

    server: S3Server
    judge: Judge
    path: Path
    truth: list[databases.Entry]


@pytest.fixture(scope="module")
def world(memory: Path) -> Iterator[World]:
    """The stage of this module."""
    path = memory / "expiry" / "db"
    path.parent.mkdir()
    write_large(path, _PARTS)
    truth = databases.read_all(path)
    with _Server(directory=memory) as server:
        keys = server.access_key_id, server.secret_access_key
        described = S3Server("seaweed-http", server.endpoint_url, *keys, server.region)
        boto = described.boto3_client()
        boto.create_bucket(Bucket="expiry")
        yield World(described, Judge(boto, "expiry"), path, truth)


@dataclass
class Broker:
    """Hands out keys, to the command as it is run by its users.

    Attributes:
        directory: What it remembers.
        proxy: Where requests pass.
        expiry: What it does to those with old keys.
        tells: Whether keys say for how long they hold.
    """

    directory: Path
    proxy: FaultProxy
    expiry: Fault = field(
        default_factory=lambda: Fault("answer", "request", times=_ALWAYS, answer=_EXPIRED)
    )
    tells: bool = True

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs the command with keys of this broker."""
        process = f"{sys.executable} -I -S {self.directory}/process.py {self.directory}"
        config = self.directory / "config"
        config.write_text(f"[default]\ncredential_process = {process} {_HOLDS * self.tells}\n")
        where = {
            "AWS_CONFIG_FILE": str(config),
            "AWS_ENDPOINT_URL_S3": self.proxy.endpoint_url,
            "AWS_REGION": "us-east-1",
            "KUMO_CRT_PART_SIZE": str(PART),
            "KUMO_CRT_MULTIPART_THRESHOLD": str(PART),
            "KUMO_CRT_MAX_CONNECTIONS": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "kumo_crt.cli", *map(str, arguments), "--json"],
            env=environment(where),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def issued(self, access_key_id: str) -> float:
        """When a key was handed out."""
        return float((self.directory / f"issued-{int(access_key_id[5:])}").read_text())

    def has_expired(self, request: Request) -> bool:
        """Whether a request is signed with a key that counts no more."""
        return time.time() > self.issued(request.access_key_id) + _HOLDS

    def break_down(self) -> None:
        """From now on it has no further keys, and all that are out expire."""
        (self.directory / "broken").touch()

    def repair(self) -> None:
        """It has keys again."""
        (self.directory / "broken").unlink()

    def keys(self) -> Counter[str]:
        """Requests by the key that they were signed with."""
        return Counter(request.access_key_id for request in self.proxy.requests)


@pytest.fixture
def broker(world: World, tmp_path: Path) -> Iterator[Broker]:
    """A broker whose keys are refused when they have expired."""
    (tmp_path / "process.py").write_text(_PROCESS)
    with FaultProxy(world.server.endpoint_url) as proxy:
        running = Broker(tmp_path, proxy)
        running.expiry.when = running.has_expired
        proxy.add(running.expiry)
        yield running


def _ended(found: subprocess.CompletedProcess[str], code: int = 0) -> None:
    assert found.returncode == code, f"{found.stdout}\n{found.stderr}"
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("tells", [True, False], ids=["known", "not known"])
def test_work_outlives_its_credentials(
    world: World, broker: Broker, tmp_path: Path, tells: bool
) -> None:
    """A backup and a restore, each of which takes longer than a key holds."""
    broker.tells = tells
    name = f"outlives-{tells}"
    url, rate = f"s3://expiry/{name}", ("--max-bytes-per-second", "5MiB")
    _ended(broker.run("backup", world.path, url, "--create", *rate))
    first = broker.keys()
    assert len(first) > 1
    target = tmp_path / "restored"
    _ended(broker.run("restore", url, target, *rate))
    assert len(broker.keys()) > len(first) + 1
    refused = _ALWAYS - broker.expiry.times
    if tells:
        assert refused < 6  # what was on its way for long
    else:
        assert refused >= 2
    (manifest,) = world.judge.look(f"{name}/").manifests.values()
    assert tree(target) == expected_tree(manifest)
    assert databases.read_all(target) == world.truth
    done["credentials renewed in the middle"] += len(broker.keys()) - 2


def _all_expire_at(broker: Broker, method: str, target: str, count: int) -> list[Request]:
    """The n-th request of some kind is the last one with keys that count, until the broker is back.

    Returns:
        The requests that are refused, as they come.
    """
    refused: list[Request] = []
    seen = Counter[str]()

    def when(request: Request) -> bool:
        if (broker.directory / "broken").exists():
            refused.append(request)
            return True
        if request.method == method and target in request.target:
            seen["such"] += 1
            if seen["such"] == count:
                (broker.directory / "broken").touch()
        return False

    broker.proxy.add(Fault("answer", "request", times=_ALWAYS, answer=_EXPIRED, when=when))
    return refused


def _denied(found: subprocess.CompletedProcess[str]) -> None:
    """The command says that it has no credentials, and what to do."""
    _ended(found, 12)
    error = json.loads(found.stdout)["error"]
    assert "ExpiredToken" in error["message"] or "no credentials could be had" in error["message"]
    done["work that credentials ended"] += 1


@pytest.mark.parametrize("part", [2, _PARTS])
def test_a_backup_without_new_ones(world: World, broker: Broker, part: int) -> None:
    name = f"ends-{part}"
    url = f"s3://expiry/{name}"
    refused = _all_expire_at(broker, "PUT", "partNumber=", part)
    _denied(broker.run("backup", world.path, url, "--create"))
    assert world.judge.look(f"{name}/").snapshots == set()
    assert leftovers(world.path.parent) == []
    (broker.directory / "broken").unlink()
    _ended(broker.run("backup", world.path, url))
    assert len(world.judge.look(f"{name}/").snapshots) == 1
    in_vain = sum("partNumber=" in request.target for request in refused)
    assert broker.proxy.count("PUT", "partNumber=") - in_vain == _PARTS
    done["parts sent before that, and not again"] += part


def test_a_restore_and_a_prune_without_new_ones(
    world: World, broker: Broker, tmp_path: Path
) -> None:
    url, prefix = "s3://expiry/later", "later/"
    _ended(broker.run("backup", world.path, url, "--create"))
    later = tmp_path / "later"
    shutil.copytree(world.path, later)
    db = Rdict(str(later))
    databases.fill(db, 9_000, 9_060)
    db.close()
    _ended(broker.run("backup", later, url))
    ids = sorted(world.judge.look(prefix).snapshots)
    target = tmp_path / "db"
    databases.make_one_key(target)
    before = tree(target)
    _all_expire_at(broker, "GET", "/data/", 3)
    restore = ("restore", url, target, "--overwrite", "--snapshot", ids[0])
    _denied(broker.run(*restore))
    assert tree(target) == before
    (broker.directory / "broken").unlink()
    _ended(broker.run(*restore))
    assert databases.read_all(target) == world.truth
    assert leftovers(tmp_path) == []
    _all_expire_at(broker, "POST", "?delete", 1)
    _denied(broker.run("prune", url, "--keep-last", "1"))
    assert ids[1] in world.judge.look(prefix).snapshots
    (broker.directory / "broken").unlink()
    held = broker.run("prune", url, "--keep-last", "1")
    # Its lease could not be deleted: to the next one it is still at work.
    _ended(held, 11)
    assert ids[1] in world.judge.look(prefix).snapshots
