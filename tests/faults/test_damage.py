"""Hundreds of damaged objects: all are found and named, and no restore gives a wrong database."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import kumo_crt
from tests.faults.damage import WAYS, Content, damaged
from tests.faults.floors import DAMAGED, EVERY_WAY
from tests.faults.judge import Found, expected_tree, tree
from tests.faults.seeds import case, cases, chances, done, scaled
from tests.faults.stage import Stage, generation, write_first, write_second
from tests.support.databases import make_one_key

ROUNDS = 30
Alive = Callable[[], None]


@dataclass(frozen=True)
class World:
    """A repository with snapshots that share objects, and what is in it.

    Attributes:
        prefix: Where it is.
        objects: Its objects.
        found: The same, as the judge sees it.
        other: A database to restore over.
    """

    prefix: str
    objects: dict[str, bytes]
    found: Found
    other: Path

    @property
    def data(self) -> dict[str, bytes]:
        """Its data objects."""
        return {key: self.objects[key] for key in sorted(self.found.below("data/"))}

    def users(self, key: str) -> set[str]:
        """Snapshots that name an object."""
        manifests = self.found.manifests.items()
        return {i for i, m in manifests if any(f.get("key") == key for f in m["files"])}


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """Two states of one database, two of another."""
    one, two = stage.new_directory() / "db", stage.new_directory() / "db"
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        write_first(one)
        repository.backup(one)
        write_second(one)
        stage.mortals.live("unclosed", arguments={"path": str(one), "first": 5_000, "last": 5_050})
        repository.backup(one)
        for number in range(3):
            generation(two, number)
            repository.backup(two)
    other = stage.new_directory() / "db"
    make_one_key(other)
    return World(prefix, stage.dump(prefix), stage.judge.look(prefix), other)


def _write(stage: Stage, world: World, contents: dict[str, Content]) -> None:
    """Puts objects there as anybody could, or takes them away."""

    def write(item: tuple[str, Content]) -> None:
        where = {"Bucket": stage.judge.bucket, "Key": world.prefix + item[0]}
        if item[1] is None:
            stage.judge.boto.delete_object(**where)
        else:
            stage.judge.boto.put_object(**where, Body=item[1], ChecksumAlgorithm="CRC32C")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents.items()))


def _plan(world: World, number: int, chance: random.Random) -> dict[str, Content]:
    """Damage for some of the objects: in turn for one, half, all but one, or any number."""
    keys = list(world.data)
    count = [1, len(keys) // 2, len(keys) - 1, chance.randint(1, len(keys))][number % 4]
    ways = sorted(WAYS)
    return {
        key: damaged(chance.choice(ways), world.data[key], chance, world.data)
        for key in chance.sample(keys, count)
    }


def _expected(world: World, level: str, key: str, content: Content) -> set[str]:
    """Kinds of problem that a level may report; nothing if it need not find it."""
    if content is None:
        return {"missing"}
    if len(content) != len(world.objects[key]):
        return {"size"}
    return set() if level == "quick" else {"checksum"}


def _verified(stage: Stage, world: World, plan: dict[str, Content]) -> None:
    """Each level reports each object that it has to, by itself, and no other."""
    for level in ("quick", "stored", "full"):
        report = stage.repository(world.prefix).verify("all", level=level, record=False)
        problems = {problem.key: problem for problem in report.problems}
        assert len(problems) == len(report.problems)
        expected = {key: _expected(world, level, key, content) for key, content in plan.items()}
        assert set(problems) == {key for key, kinds in expected.items() if kinds}, level
        for key, problem in problems.items():
            assert problem.kind in expected[key], (level, key)
            assert set(problem.snapshots) == world.users(key)
            assert key in problem.message
        assert report.ok is not bool(problems)
        if level == "full":
            done[DAMAGED] += len(problems)


def _restored(stage: Stage, world: World, damaged_keys: set[str], snapshot_id: str) -> None:
    """A snapshot comes back as it was, or not at all."""
    repository = stage.repository(world.prefix)
    manifest = world.found.manifests[snapshot_id]
    target = stage.copied(world.other)
    before = tree(target)
    if damaged_keys & {file.get("key") for file in manifest["files"]}:
        with pytest.raises(kumo_crt.IntegrityError):
            repository.restore(target, snapshot_id, overwrite=True)
        assert tree(target) == before
        with pytest.raises(kumo_crt.IntegrityError):
            repository.restore(target.with_name("new"), snapshot_id)
        assert not target.with_name("new").exists()
        done["restores refused"] += 2
    else:
        repository.restore(target, snapshot_id, overwrite=True)
        assert tree(target) == expected_tree(manifest)
        done["restores beside damage"] += 1
    shutil.rmtree(target.parent)


def test_objects(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("damage")
    assert len(world.data) >= 20
    plans = [_plan(world, number, chance) for number in range(scaled(ROUNDS))]
    for number, plan in cases(plans):
        alive()
        with case(number, sorted(plan)):
            _write(stage, world, plan)
            _verified(stage, world, plan)
            for snapshot_id in world.found.snapshots:
                _restored(stage, world, set(plan), snapshot_id)
            _write(stage, world, {key: world.objects[key] for key in plan})
    assert stage.repository(world.prefix).verify("all", level="full", record=False).ok


def test_every_object_in_every_way(stage: Stage, world: World, alive: Alive) -> None:
    """Nothing depends on which object it is: each is damaged in each way once."""
    chance = chances("every")
    keys, ways = list(world.data), sorted(WAYS)
    for turn in range(len(ways)):
        alive()
        plan = {
            key: damaged(ways[(number + turn) % len(ways)], world.data[key], chance, world.data)
            for number, key in enumerate(keys)
        }
        _write(stage, world, plan)
        _verified(stage, world, plan)
    _write(stage, world, dict(world.data))
    done[EVERY_WAY] += len(ways)
