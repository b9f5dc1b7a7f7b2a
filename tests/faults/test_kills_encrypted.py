"""Backups to, and restores from, an encrypted repository, killed: as those of any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import deaths, test_kills_backup, test_kills_restore
from tests.faults.judge import expected_tree
from tests.faults.mortals import Death
from tests.faults.seeds import case, cases, chances, is_whole, scaled
from tests.faults.stage import Stage, write_first, write_second
from tests.faults.test_kills_backup import Alive, World
from tests.support import databases

BACKUPS = 16
SINGLE = 8
RESTORES = 10


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    """The key of the environment, for this process and those who die."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUMO_CRT_KEY", "5a" * 32)
        yield


@pytest.fixture(scope="module")
def world(key: None, stage: Stage) -> World:
    """A snapshot of an older state, and the database as it is now."""
    path = stage.new_directory() / "db"
    write_first(path)
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        snapshot = repository.backup(path)
    write_second(path)
    truth = databases.read_all(stage.copied(path))
    return World(stage.dump(prefix), {snapshot.id}, path, truth)


def test_backups(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("backup", "encrypted")
    prefix = stage.seed(world.objects)
    whole, found = test_kills_backup._live(
        stage, world, prefix, Death(), "backup", max_concurrency=1
    )
    for manifest in found.manifests.values():
        assert all("salt" in file for file in manifest["files"])
    plan = deaths.some(deaths.boundaries(whole, chance), chance, scaled(BACKUPS))
    for number, death in cases(plan):
        alive()
        with case(number, death):
            life, _ = test_kills_backup._one(stage, world, number, death, 1)
            assert life.killed


def test_backups_as_a_single_object(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("backup", "encrypted single")
    test_kills_backup.as_a_single_object(stage, world, alive, chance, SINGLE)


def test_restores(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("restore", "encrypted")
    prefix = stage.seed(world.objects)
    snapshot = stage.repository(prefix).backup(world.path)
    manifest = stage.judge.look(prefix).manifests[snapshot.id]
    name = "into nothing"
    way = test_kills_restore.WAYS[name]
    wanted = {name: (expected_tree(manifest), world.truth)}
    place = test_kills_restore.World(prefix, world.path, wanted)
    target = test_kills_restore._place(stage, place, way)
    whole = test_kills_restore._live(stage, place, way, target, Death(), 8)
    killed = 0
    for number, death in cases(deaths.at_random(whole, chance, scaled(RESTORES))):
        alive()
        with case(number, death):
            killed += test_kills_restore._one(stage, place, name, number, death, 8)[0].killed
    assert killed > 0.5 * scaled(RESTORES) or not is_whole()
