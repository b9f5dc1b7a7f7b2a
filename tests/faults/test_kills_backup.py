"""Backups that are killed: nothing committed is lost, nothing partial is seen, a rerun ends it."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rocksdict import Rdict

from tests.backup.boundaries import Sent, watched
from tests.backup.helpers import leftovers
from tests.faults import deaths
from tests.faults.judge import Found, expected_tree, tree
from tests.faults.mortals import Death, Life
from tests.faults.seeds import case, cases, chances, is_whole, scaled
from tests.faults.stage import (
    ASKED_FIRST,
    Stage,
    contents,
    footprint,
    write_first,
    write_second,
)
from tests.support import databases
from tests.support.databases import Entry

BOUNDARIES = 70
AT_RANDOM = 25
SINGLE = 16
LIVE = 10
OPEN = 8
Alive = Callable[[], None]


@dataclass(frozen=True)
class World:
    """A repository to begin with, and the database that is to be backed up into copies of it.

    Attributes:
        objects: The repository: one snapshot of an older state of the database.
        before: Its snapshot.
        path: The database, closed; its newest writes are in the write-ahead log alone.
        truth: What is in the database.
    """

    objects: dict[str, bytes]
    before: set[str]
    path: Path
    truth: list[Entry]


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """Where every kill begins."""
    path = stage.new_directory() / "db"
    write_first(path)
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        snapshot = repository.backup(path)
    write_second(path)
    stage.mortals.live("unclosed", arguments={"path": str(path), "first": 5_000, "last": 5_050})
    truth = databases.read_all(stage.copied(path))
    return World(stage.dump(prefix), {snapshot.id}, path, truth)


def _live(
    stage: Stage, world: World, prefix: str, death: Death, work: str, **arguments: object
) -> tuple[Life, Found]:
    """A backup, killed; and what it left, in which everything that was committed is whole."""
    arguments = {"source": str(world.path), **arguments}
    life = stage.mortals.live(work, stage.url(prefix), death, arguments=arguments)
    assert life.error is None
    found = stage.judge.look(prefix)
    assert world.before <= found.snapshots
    assert len(found.snapshots - world.before) <= 1
    if not life.killed:
        assert len(found.snapshots - world.before) == 1
    return life, found


def _again(
    stage: Stage, world: World, prefix: str, left: Found, *, single_object: bool = False
) -> Found:
    """The same backup once more: it succeeds, and sends nothing that has been sent."""
    with watched(stage.client) as watch:
        snapshot = stage.repository(prefix).backup(world.path, single_object=single_object)
    found = stage.judge.look(prefix)
    # A manifest that was on its way when its sender died may have arrived meanwhile.
    assert left.snapshots | {snapshot.id} <= found.snapshots
    assert len(found.snapshots - world.before) <= 2
    there = left.below("data/")
    assert {key: found.objects[key] for key in there} == {key: left.objects[key] for key in there}
    sent = _puts(watch.sent, prefix)
    for key in there:
        # Small ones are sent without being asked for, and refused.
        assert sent[key] <= (left.objects[key].size < ASKED_FIRST), key
    for key in found.below("data/") - there:
        assert sent[key] == 1 or (sent[key] == 0 and found.objects[key].size >= ASKED_FIRST), key
    assert leftovers(world.path.parent) == []
    return found


def _puts(sent: list[Sent], prefix: str) -> Counter[str]:
    writing = ("PutObject", "CompleteMultipartUpload")
    return Counter(item.key.removeprefix(prefix) for item in sent if item.operation in writing)


def _restored(stage: Stage, world: World, prefix: str, found: Found) -> None:
    """Every snapshot comes back, and the newest holds what was written."""
    for snapshot_id in found.snapshots:
        target = stage.new_directory() / "restored"
        stage.repository(prefix).restore(target, snapshot_id)
        assert tree(target) == expected_tree(found.manifests[snapshot_id])
    newest = stage.new_directory() / "restored"
    stage.repository(prefix).restore(newest)
    assert databases.read_all(newest) == world.truth


def test_a_backup_has_the_effects_that_are_expected(stage: Stage, world: World) -> None:
    """What the kills are aimed at: each file linked, sent and released; pin, manifest and spare."""
    prefix = stage.seed(world.objects)
    life, found = _live(stage, world, prefix, Death(), "backup", max_concurrency=1)
    assert not life.killed
    kinds = Counter(kind for kind, _ in life.effects)
    (new,) = found.snapshots - world.before
    files = contents(found, new)
    linked = [file for file in files.values() if file["kind"] in ("sst", "blob")]
    assert kinds["os.link"] == len(linked) > 6
    assert kinds["os.remove"] >= len(files)
    uploaded = found.named() - {key for key in world.objects if key.startswith("data/")}
    assert kinds["PutObject"] == len(uploaded) + 3
    assert {f["kind"] for f in files.values()} >= {"sst", "blob", "wal", "manifest", "options"}
    assert max(file["size"] for file in files.values()) > ASKED_FIRST
    _restored(stage, world, prefix, found)


def _one(
    stage: Stage, world: World, number: int, death: Death, concurrency: int
) -> tuple[Life, Found]:
    """One kill, and all that has to hold after it."""
    prefix = stage.seed(world.objects)
    life, left = _live(stage, world, prefix, death, "backup", max_concurrency=concurrency)
    found = _again(stage, world, prefix, left)
    if number % 10 == 0:
        _restored(stage, world, prefix, found)
    if number % 5 == 0:
        assert stage.check_clean(prefix).snapshots == found.snapshots
    stage.forget(prefix)
    return life, left


def test_killed_between_any_two_effects(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("backup", "boundaries")
    footprints = footprint(world.path)
    prefix = stage.seed(world.objects)
    whole, _ = _live(stage, world, prefix, Death(), "backup", max_concurrency=1)
    (commit,) = (n for n, (_, what) in enumerate(whole.effects) if "/snapshots/" in what)
    for number, death in cases(
        deaths.some(deaths.boundaries(whole, chance), chance, scaled(BOUNDARIES))
    ):
        alive()
        with case(number, death):
            life, left = _one(stage, world, number, death, 1)
            assert life.killed
            if death.effect < commit or (death.effect == commit and death.moment == "before"):
                assert left.snapshots == world.before
            elif death.effect > commit:
                assert left.snapshots > world.before
    assert footprint(world.path) == footprints


def test_killed_at_any_time(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("backup", "random")
    prefix = stage.seed(world.objects)
    whole, _ = _live(stage, world, prefix, Death(), "backup")
    killed = 0
    for number, death in cases(deaths.at_random(whole, chance, scaled(AT_RANDOM))):
        alive()
        with case(number, death):
            killed += _one(stage, world, number, death, 8)[0].killed
    assert killed > 0.6 * scaled(AT_RANDOM) or not is_whole()


def test_killed_as_a_single_object(stage: Stage, world: World, alive: Alive) -> None:
    as_a_single_object(stage, world, alive, chances("backup", "single"), SINGLE)


def as_a_single_object(
    stage: Stage, world: World, alive: Alive, chance: random.Random, deaths_at_most: int
) -> None:
    """Kills backups as a single object, and goes on with them."""
    prefix = stage.seed(world.objects)
    whole, _ = _live(stage, world, prefix, Death(), "backup", single_object=True)
    for number, death in cases(
        deaths.some(deaths.boundaries(whole, chance), chance, scaled(deaths_at_most))
    ):
        alive()
        with case(number, death):
            prefix = stage.seed(world.objects)
            life, left = _live(stage, world, prefix, death, "backup", single_object=True)
            assert life.killed
            found = _again(stage, world, prefix, left, single_object=True)
            assert len([key for key in found.below("data/") if "/archive-" in key]) == 1
            if number % 4 == 0:
                _restored(stage, world, prefix, found)
                assert stage.check_clean(prefix).snapshots == found.snapshots
            stage.forget(prefix)


def test_killed_while_another_process_writes(stage: Stage, world: World, alive: Alive) -> None:
    """The database is open here: it is captured from its files, and never disturbed."""
    chance = chances("backup", "live")
    path = stage.copied(world.path)
    moved = dataclasses.replace(world, path=path)
    db = Rdict(str(path))
    prefix = stage.seed(world.objects)
    whole, _ = _live(stage, moved, prefix, Death(), "backup", live=True)
    killed = 0
    for number, death in cases(deaths.at_random(whole, chance, scaled(LIVE))):
        alive()
        with case(number, death):
            db[b"written-%08d" % number] = databases.value_of(number, 100)
            prefix = stage.seed(world.objects)
            life, left = _live(stage, moved, prefix, death, "backup", live=True)
            killed += life.killed
            repository = stage.repository(prefix)
            snapshot = repository.backup(db)
            assert left.snapshots | {snapshot.id} <= stage.judge.look(prefix).snapshots
            assert leftovers(path.parent) == []
            if number % 4 == 0:
                target = stage.new_directory() / "restored"
                repository.restore(target)
                assert databases.read_all(target) == list(databases.entries(db))
            stage.forget(prefix)
    db.close()
    assert killed > 0.6 * scaled(LIVE) or not is_whole()


def test_killed_with_its_own_database_open(stage: Stage, world: World, alive: Alive) -> None:
    """The writer backs itself up, and both die: the database opens again, with all it had."""
    chance = chances("backup", "open")
    seconds = 0.3
    killed = 0
    for number in range(scaled(OPEN)):
        alive()
        death = Death(seconds=chance.uniform(0, seconds))
        with case(number, death):
            path = stage.copied(world.path)
            prefix = stage.seed(world.objects)
            moved = dataclasses.replace(world, path=path)
            life = stage.mortals.live(
                "backup_open", stage.url(prefix), death, arguments={"path": str(path)}
            )
            killed += life.killed
            seconds = 0.9 * life.seconds or seconds
            found = _again(stage, moved, prefix, stage.judge.look(prefix))
            assert found.snapshots > world.before
            assert databases.read_all(path) == world.truth
            shutil.rmtree(path.parent)
            stage.forget(prefix)
    assert killed > 0.4 * scaled(OPEN)
