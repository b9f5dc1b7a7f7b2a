"""Backups that put damage right beside others, prunes and verifications, in every order."""

from __future__ import annotations

import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._send import _upload
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.damaging import check_good, damage, largest_table, noticed
from tests.backup.helpers import delete, get, key_of, keys, stored_files, url
from tests.backup.interleaving import run_interleaved, without_waiting
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


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


@pytest.fixture
def unwatched(
    repository: kumo_crt.Repository, s3_server: S3Server, bucket: str
) -> Iterator[kumo_crt.Repository]:
    """The same repository through a client of its own."""
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        yield kumo_crt.Repository(url(bucket), client=client)


@pytest.mark.usefixtures("each_alone")
def test_damage_is_found_while_a_backup_runs(
    repository: kumo_crt.Repository,
    unwatched: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """Whenever that is, no snapshot relies on it without knowing."""
    path = make("plain")
    first, file, good = largest_table(repository, boto, bucket, path)
    with watched(s3) as watch:
        repository.backup(path)
    count = len(watch.sent)
    last_look = max(i for i, s in enumerate(watch.sent) if s.operation == "ListObjectsV2")
    for moment in range(count):
        damage(boto, bucket, key_of(file), "missing")

        def find(number: int, sent: Sent, moment: int = moment) -> None:
            if number == moment:
                assert not unwatched.verify(first.id).ok

        with watched(s3, find):
            second = repository.backup(path)
        if moment <= last_look:
            assert get(boto, bucket, key_of(file)) == good, moment
            assert second.uploaded_bytes == file.size
            assert noticed(boto, bucket) == {}
        else:
            # Too late for this one: the next.
            assert noticed(boto, bucket) == {key_of(file): "missing"}
            assert repository.backup(path).uploaded_bytes == file.size
        check_good(repository, boto, bucket)


@pytest.mark.usefixtures("each_alone")
def test_damage_that_is_found_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
    repository: kumo_crt.Repository,
    unwatched: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """Then the backup fails, and says why."""
    monkeypatch.setattr(_upload, "_FRESH", 0.0)
    path = make("plain")
    first = repository.backup(path)
    files = stored_files(first)
    assert len(files) >= 2
    lists = []

    def find(number: int, sent: Sent) -> None:
        if sent.operation == "ListObjectsV2" and sent.key.endswith("inflight/"):
            lists.append(number)
            if len(lists) % 2 == 0:
                delete(boto, bucket, key_of(files[len(lists) // 2 - 1]))
                unwatched.verify(first.id)

    before = keys(boto, bucket, "snapshots/")
    with watched(s3, find), pytest.raises(kumo_crt.IntegrityError, match="found damaged while"):
        repository.backup(path)
    assert keys(boto, bucket, "snapshots/") == before
    repository.backup(path)
    check_good(repository, boto, bucket)
