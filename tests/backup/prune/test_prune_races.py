"""Prunes beside backups, in every order: nothing that a snapshot names is ever deleted."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library
from tests.backup.interleaving import run_interleaved, without_waiting
from tests.support import databases
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


class World:
    """Databases, and a repository in which much is about to be deleted.

    The snapshots of `again` are gone: its objects are what the next prune deletes, and what the
    next backup of `again` finds. Those of `kept` stay.
    """

    def __init__(self, s3_server: S3Server, bucket: str, again: Path, kept: Path) -> None:
        self.again, self.kept = again, kept
        self.url = f"s3://{bucket}/{uuid.uuid4().hex[:12]}"
        arguments = s3_server.client_arguments()
        self.clients = {name: kumo_crt.S3Client(**arguments) for name in "BP"}
        with kumo_crt.Repository.create(self.url, client=self.clients["B"]) as repository:
            stays = repository.backup(kept)
            gone = repository.backup(again)
            repository.delete_snapshot(gone.id)
            marked = repository.prune()
        self.objects = gone.object_keys - stays.object_keys
        assert marked.pending_objects == len(self.objects) > 0

    def __getitem__(self, name: str) -> kumo_crt.Repository:
        return kumo_crt.Repository(self.url, client=self.clients[name])

    def back_up(self) -> kumo_crt.Snapshot:
        """Backs up what the prune is about to delete."""
        return self["B"].backup(self.again, max_concurrency=1)

    def prune(self) -> kumo_crt.PruneReport:
        """Deletes what is due."""
        return self["P"].prune(keep_last=1)

    def keys(self, below: str) -> set[str]:
        """Keys in the repository."""
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        listed = self.clients["B"].list_objects(bucket, f"{prefix}/{below}")
        return {item.key.removeprefix(f"{prefix}/") for item in listed}

    def check(self) -> None:
        """Everything that is committed is whole."""
        for snapshot in self["B"].snapshots():
            report = self["B"].verify(snapshot.id, level="full")
            assert report.ok, report.problems

    def check_end(self) -> None:
        """The same, and after two more prunes nothing superfluous is left."""
        self.check()
        for _ in range(2):
            self["P"].prune(keep_last=1)
        self.check()
        named = {key for s in self["B"].snapshots() for key in s.object_keys}
        assert self.keys("data/") == named
        assert self.keys("marks/") == set()
        assert {key for key in self.keys("inflight/") if "/sweep-" not in key} == set()

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


@pytest.fixture(scope="module")
def paths(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small databases of three table files each, that nobody opens."""
    parent = tmp_path_factory.mktemp("races")
    for name in ("again", "kept"):
        db = Rdict(str(parent / name), databases.options(small_files=True))
        for start in (0, 100, 200):
            databases.fill(db, start, start + 100, value_size=50)
            db.flush()
        db.close()
    return {name: parent / name for name in ("again", "kept")}


Make = Any


@pytest.fixture
def world(s3_server: S3Server, bucket: str, paths: dict[str, Path]) -> Iterator[Make]:
    """Makes worlds; marks are old at once."""
    made: list[World] = []

    def make() -> World:
        made.append(World(s3_server, bucket, paths["again"], paths["kept"]))
        return made[-1]

    with without_waiting():
        yield make
    for one in made:
        one.close()


def test_alone(world: Make) -> None:
    """What the races are about: alone, the prune deletes what the backup alone would reuse."""
    one, two = world(), world()
    assert one.prune().deleted_objects == len(one.objects)
    one.check_end()
    snapshot = two.back_up()
    assert snapshot.uploaded_bytes == 0
    assert two.prune().deleted_objects == 0
    two.check_end()


def test_a_whole_prune_between_any_two_requests_of_a_backup(world: Make) -> None:
    number = 0
    deleted = set()
    while True:
        one = world()

        def prune(at: int, sent: Sent, one: World = one, wanted: int = number) -> None:
            if at == wanted:
                deleted.add(one.prune().deleted_objects)

        with watched(one.clients["B"], prune) as watch:
            snapshot = one.back_up()
        one.check()
        if number >= len(watch.sent):
            break
        assert snapshot.id in {item.id for item in one["B"].snapshots()}
        if number % 5 == 0:
            one.check_end()
        number += 1
    assert number > 12
    # Before the pin everything goes, with it nothing.
    assert deleted == {0, len(one.objects)}


def test_a_whole_backup_between_any_two_requests_of_a_prune(world: Make) -> None:
    number = 0
    uploaded = set()
    while True:
        one = world()

        def back_up(at: int, sent: Sent, one: World = one, wanted: int = number) -> None:
            if at == wanted:
                uploaded.add(one.back_up().uploaded_bytes)

        with watched(one.clients["P"], back_up) as watch:
            one.prune()
        one.check()
        if number >= len(watch.sent):
            break
        if number % 5 == 0:
            one.check_end()
        number += 1
    assert number > 15
    assert len(uploaded) == 2


@pytest.mark.parametrize("prune_first", range(9, 21))
def test_a_backup_ends_while_a_prune_looks_around(world: Make, prune_first: int) -> None:
    """Its manifest comes, and its pin goes, between any two requests of the prune."""
    one = world()
    with watched(one.clients["B"]) as watch:
        one.back_up()
    one = world()
    # All but the manifest and the pin's end.
    schedule = "B" * (len(watch.sent) - 2) + "P" * prune_first + "BB"
    works: dict[str, Any] = {
        "B": (one.clients["B"], one.back_up),
        "P": (one.clients["P"], one.prune),
    }
    outcomes = run_interleaved(works, schedule)
    assert outcomes["P"].deleted_objects == 0
    one.check()
    assert len(one["B"].snapshots()) == 2


@pytest.mark.parametrize("seed", range(16))
def test_a_backup_and_a_prune_in_any_order(world: Make, seed: int) -> None:
    chance = random.Random(seed)
    one = world()
    # From evenly mixed to long runs of one.
    stay = chance.choice([0.5, 0.7, 0.9])
    letter = chance.choice("BP")
    schedule = ""
    for _ in range(60):
        schedule += letter
        if chance.random() > stay:
            letter = "P" if letter == "B" else "B"
    works: dict[str, Any] = {
        "B": (one.clients["B"], one.back_up),
        "P": (one.clients["P"], one.prune),
    }
    outcomes = run_interleaved(works, schedule)
    assert isinstance(outcomes["B"], kumo_crt.Snapshot), schedule
    assert isinstance(outcomes["P"], kumo_crt.PruneReport), schedule
    one.check()
    assert outcomes["B"].id in {item.id for item in one["B"].snapshots()}
    one.check_end()
