"""Storms: of all requests a part is refused with 503, and everything ends right all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt.s3 import _retry
from tests.faults.judge import expected_tree, tree
from tests.faults.seeds import chances, done
from tests.faults.stage import Stage, later, write_first, write_second
from tests.support import databases
from tests.support.fake_s3 import error_document
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

_ALWAYS = 1_000_000


def _refusal(status: str, code: str) -> bytes:
    body = error_document(code)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


SLOW_DOWN = _refusal("503 Slow Down", "SlowDown")
INTERNAL = _refusal("500 Internal Server Error", "InternalError")


def _whole_life(
    stage: Stage, repository: kumo_crt.Repository, prefix: str, path: Path, *, fails: bool
) -> None:
    """Two backups, a restore, a verification of every byte, a prune; judged without the storm."""
    write_first(path)
    old = repository.backup(path)
    write_second(path)
    truth = databases.read_all(stage.copied(path))
    new = repository.backup(path)
    found = stage.judge.look(prefix)
    assert found.snapshots == {old.id, new.id}
    left = found.below("inflight/")
    # Where a service fails, and not only asks to slow down, a spare may still be on its way.
    assert left == set() or (fails and all(key.startswith("inflight/backup-") for key in left))
    assert stage.judge.uploads(prefix) == []
    assert repository.verify("all", level="full").ok
    target = stage.new_directory() / "restored"
    repository.restore(target)
    assert tree(target) == expected_tree(found.manifests[new.id])
    assert databases.read_all(target) == truth
    with later():
        for _ in range(2):
            repository.prune(keep_last=1)
    found = stage.judge.look(prefix)
    assert found.snapshots == {new.id}
    assert found.below("data/") == found.named()
    assert found.below("inflight/") == found.below("marks/") == set()
    shutil.rmtree(target.parent)


@pytest.mark.parametrize(
    ("percent", "answer", "cause"),
    [
        (5, SLOW_DOWN, "throttled"),
        (10, SLOW_DOWN, "throttled"),
        (50, SLOW_DOWN, "throttled"),
        (20, INTERNAL, "server_error"),
    ],
    ids=["5 %", "10 %", "50 %", "20 % errors"],
)
def test_all_ends_right(
    stage: Stage,
    seaweed: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    percent: int,
    answer: bytes,
    cause: str,
) -> None:
    """With as many attempts as everybody's client has; only the pauses between them are shorter."""
    monkeypatch.setattr(_retry, "_THROTTLED_BASE", 0.02)
    monkeypatch.setattr(_retry.Pace, "SLOWEST", 100.0)
    storm = Fault("answer", "request", times=_ALWAYS, chance=percent / 100, answer=answer)
    seed = chances("storm", percent, cause).getrandbits(32)
    with FaultProxy(seaweed.endpoint_url, seed=seed) as proxy:
        arguments = seaweed.client_arguments(endpoint_url=proxy.endpoint_url)
        with kumo_crt.S3Client(**arguments) as client, proxy.armed(storm):
            for _ in range(max(1, 15 // percent)):  # a weak storm takes longer to be one
                prefix = stage.new_prefix()
                url = stage.url(prefix)
                with kumo_crt.Repository.create(url, client=client) as repository:
                    path = stage.new_directory() / "db"
                    _whole_life(stage, repository, prefix, path, fails=answer == INTERNAL)
            metrics = client.metrics()
        requests = len(proxy.requests)
    refused = _ALWAYS - storm.times
    # Every refusal was followed by another attempt, and is told of; but for what was lost with a
    # connection that the server closed meanwhile, as nothing came through.
    lost = metrics["retries"].pop("transport", 0)
    assert metrics["retries"].keys() == {cause}
    assert refused - lost <= metrics["retries"][cause] <= refused
    assert lost < 5
    failed = sum(operation["failed"] for operation in metrics["operations"].values())
    assert failed >= refused
    assert refused > 0.3 * percent / 100 * requests
    done[f"requests refused in a storm of {percent} %"] += refused
    done[f"requests sent in a storm of {percent} %"] += requests
