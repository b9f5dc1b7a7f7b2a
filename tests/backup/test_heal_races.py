"""Backups that put damage right beside others, prunes and verifications, in every order."""

from __future__ import annotations

import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup import _notices
from kumo_crt.backup._ledger import Damage
from tests.backup.conftest import Make
from tests.backup.helpers import key_of, keys, put, stored_files, url
from tests.backup.interleaving import run_interleaved, without_waiting
from tests.backup.test_heal import noticed
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class World:
    """A repository with damage that is known, and clients that take turns."""

    def __init__(self, server: S3Server, bucket: str, path: Path, how: str) -> None:
        self.path = path
        self.url = f"s3://{bucket}/{uuid.uuid4().hex[:12]}"
        self.clients = {name: kumo_crt.S3Client(**server.client_arguments()) for name in "ABP"}
        with kumo_crt.Repository.create(self.url, client=self.clients["A"]) as repository:
            self.first = repository.backup(path)
            file = stored_files(self.first, "sst")[0]
            where = self.url.removeprefix("s3://").partition("/")
            full = f"{where[2]}/{key_of(file)}"
            if how == "missing":
                self.clients["A"].delete_object(bucket, full)
            else:
                self.clients["A"].put_object(bucket, full, b"?" * file.size)
            assert not repository.verify("all", level="full").ok

    def __getitem__(self, name: str) -> kumo_crt.Repository:
        return kumo_crt.Repository(self.url, client=self.clients[name])

    def back_up(self, name: str) -> Callable[[], kumo_crt.Snapshot]:
        # Only one of them could have the lock of one directory.
        path = self.path if name == "A" else self.path.with_name("copy")
        return lambda: self[name].backup(path, max_concurrency=1)

    def damaged(self) -> set[str]:
        """What is taken for damaged."""
        return {key for item in self["A"].health() for key in item.damaged}

    def check(self) -> None:
        """Everything is good, and nobody says otherwise after one more backup."""
        report = self["A"].verify("all", level="full", record=False)
        assert report.ok, report.problems
        again = self.back_up("A")()
        assert again.uploaded_bytes == 0
        assert again.object_keys == self.first.object_keys
        if self.damaged():
            # Ledgers count seconds: of two readings within one, the worse counts until the next.
            time.sleep(1.1)
            assert self["A"].verify("all", level="full").ok
        assert self.damaged() == set()
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        assert list(self.clients["A"].list_objects(bucket, f"{prefix}/inflight/")) == []


@pytest.fixture
def world(
    s3_server: S3Server, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], World]]:
    monkeypatch.setenv("KUMO_CRT_BUNDLE_BELOW", "0")
    path = make("plain")
    shutil.copytree(path, path.with_name("copy"))
    made: list[World] = []

    def new(how: str) -> World:
        made.append(World(s3_server, bucket, path, how))
        return made[-1]

    yield new
    for one in made:
        for client in one.clients.values():
            client.close()


def _others(one: World) -> dict[str, Callable[[], Any]]:
    return {
        "backup": one.back_up("B"),
        "prune": lambda: one["B"].prune(keep_last=1),
        "verify": lambda: one["B"].verify("all", level="full"),
        "repair": lambda: one["B"].repair(one.path),
    }


@pytest.mark.parametrize("how", ["missing", "changed"])
@pytest.mark.parametrize("other", ["backup", "prune", "verify", "repair"])
def test_beside_others(world: Callable[[str], World], how: str, other: str) -> None:
    chance = random.Random(f"{how} {other}")
    for _ in range(6):
        one = world(how)
        stay = chance.choice([0.5, 0.7, 0.9])
        letter = chance.choice("AB")
        schedule = ""
        for _ in range(80):
            schedule += letter
            if chance.random() > stay:
                letter = "B" if letter == "A" else "A"
        works: dict[str, Any] = {
            "A": (one.clients["A"], one.back_up("A")),
            "B": (one.clients["B"], _others(one)[other]),
        }
        with without_waiting():
            outcomes = run_interleaved(works, schedule)
        assert isinstance(outcomes["A"], kumo_crt.Snapshot), (schedule, outcomes)
        assert not isinstance(outcomes["B"], Exception), (schedule, outcomes)
        one.check()


# -- notices ---------------------------------------------------------------------------------------


def test_notices_are_put_together(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    store = repository._store()
    told = {f"data/1f/sst-{number}": Damage(NOW, "missing") for number in range(20)}
    for key, damage in told.items():
        repository._run(_notices.add_task(store, {key: damage}, "a test"))
        repository._run(_notices.add_task(store, {key: damage}, "a test"))
        assert len(keys(boto, bucket, "inflight/")) <= 8
    assert set(noticed(boto, bucket)) == set(told)
    # Of what was seen before, and no more.
    seen = repository._run(_notices.read_all_task(store))
    assert seen.damaged == told
    late = {"data/1f/sst-late": Damage(NOW, "size")}
    repository._run(_notices.add_task(store, late, "a test"))
    repository._run(_notices.withdraw_task(store, seen, {*list(told)[:19], *late}, "a test"))
    assert set(noticed(boto, bucket)) == {list(told)[19], *late}
    seen = repository._run(_notices.read_all_task(store))
    repository._run(_notices.withdraw_task(store, seen, seen.damaged, "a test"))
    assert keys(boto, bucket, "inflight/") == set()


def test_what_cannot_be_judged_is_no_damage(repository: kumo_crt.Repository) -> None:
    """What has to be thawed, or compared in another way, is not told."""
    store = repository._store()
    told = {"data/1f/sst-1": Damage(NOW, "unverifiable"), "data/1f/sst-2": Damage(NOW, "archived")}
    repository._run(_notices.add_task(store, told, "a test"))
    assert repository._run(_notices.read_all_task(store)).parts == {}


@pytest.mark.parametrize("content", [b"?", b"", b'{"format":"kumo-damage","version":2}'])
def test_a_notice_that_cannot_be_read_is_worth_nothing(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    key = f"inflight/damage-{'0' * 32}-000000.json"
    put(boto, bucket, key, content)
    path = make("one_key")
    repository.backup(path)
    repository.backup(path)
    repository.prune()
    assert repository.verify(level="full").ok
    assert f"{url(bucket)}/{key}" in caplog.text
    assert keys(boto, bucket, "inflight/") == {key}
