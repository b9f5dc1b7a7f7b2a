"""Restores that are killed: the target is the old state or the whole new one, a rerun ends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.faults import deaths
from tests.faults.judge import expected_tree, tree
from tests.faults.mortals import Death, Life
from tests.faults.seeds import case, cases, chances, is_whole, scaled
from tests.faults.stage import Stage, footprint, write_first, write_second
from tests.support import databases
from tests.support.databases import Entry

BOUNDARIES = 30  # of each way to restore
AT_RANDOM = 8
Alive = Callable[[], None]


@dataclass(frozen=True)
class Way:
    """A way to restore.

    Attributes:
        arguments: Of `Repository.restore`.
        over: What is there before: nothing, or an older state of the database.
        no_exchange: The file system cannot exchange two directories in one step.
    """

    arguments: dict[str, Any]
    over: bool = True
    no_exchange: bool = False


WAYS = {
    "into nothing": Way({}, over=False),
    "over another": Way({"overwrite": True}),
    "delta": Way({"delta": True}),
    "in two steps": Way({"delta": True}, no_exchange=True),
    "a column family": Way({"overwrite": True, "column_families": ["users"]}),
}


@dataclass(frozen=True)
class World:
    """A repository, an older copy of its database, and what has to come back.

    Attributes:
        prefix: Of the repository, which nobody changes.
        old: A closed database of the older state.
        wanted: What each way gives: files with their CRC32C, and entries.
    """

    prefix: str
    old: Path
    wanted: dict[str, tuple[dict[str, str], list[Entry]]]


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """Where every kill begins."""
    path = stage.new_directory() / "db"
    write_first(path)
    old = stage.copied(path)
    write_second(path)
    stage.mortals.live("unclosed", arguments={"path": str(path), "first": 5_000, "last": 5_050})
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        snapshot = repository.backup(path)
    truth = databases.read_all(path)
    manifest = stage.judge.look(prefix).manifests[snapshot.id]
    wanted = {name: (expected_tree(manifest), truth) for name in WAYS}
    # The MANIFEST of a part is kumo_crt's own; what RocksDB finds through it is the judge.
    target = stage.new_directory() / "db"
    stage.repository(prefix).restore(target, column_families=["users"])
    files = tree(target)
    assert files is not None
    part = databases.read_all(target)
    assert part == [entry for entry in truth if entry[0] == "users"]
    wanted["a column family"] = (files, part)
    return World(prefix, old, wanted)


def _place(stage: Stage, world: World, way: Way) -> Path:
    return stage.copied(world.old) if way.over else stage.new_directory() / "db"


def _live(stage: Stage, world: World, way: Way, target: Path, death: Death, threads: int) -> Life:
    arguments = {"target": str(target), "max_concurrency": threads, **way.arguments}
    life = stage.mortals.live(
        "restore",
        stage.url(world.prefix),
        death,
        arguments=arguments,
        no_exchange=way.no_exchange,
    )
    assert life.error is None
    return life


def _works(target: Path) -> list[Path]:
    return list(target.parent.glob(f".{target.name}.kumo-restore-*"))


def _finished(way: Way, work: Path, wanted: dict[str, str]) -> int:
    """Bytes of files that the killed one had brought; those that it makes itself do not count."""
    own = ("CURRENT", "MANIFEST", "OPTIONS") if "column_families" in way.arguments else ("CURRENT",)
    there = (tree(work) or {}).items()
    names = [name for name, crc in there if wanted.get(name) == crc and not name.startswith(own)]
    return sum((work / name).stat().st_size for name in names)


def _lose_pages(works: list[Path], number: int) -> None:
    """As if the power had gone: a file has its size, and not its content."""
    for work in works:
        files = sorted(path for path in work.iterdir() if path.name != "CURRENT")
        if files and not (work / "LOCK").exists():  # not the old database, after the exchange
            lost = files[number % len(files)]
            size = lost.stat().st_size
            lost.unlink()  # it may be a link to a file of the target
            lost.write_bytes(bytes(size))


def _one(
    stage: Stage, world: World, name: str, number: int, death: Death, threads: int
) -> tuple[Life, bool]:
    """One kill, and all that has to hold after it; tells whether the new state was there."""
    way, (wanted, truth) = WAYS[name], world.wanted[name]
    target = _place(stage, world, way)
    old = tree(target)
    life = _live(stage, world, way, target, death, threads)
    found = tree(target)
    if found is None and way.no_exchange:
        # Between two renames: the old one is beside it, whole.
        (aside,) = target.parent.glob(f".{target.name}.kumo-replaced-*")
        assert tree(aside) == old
    else:
        assert found in (old, wanted)
    done = found == wanted
    if number % 3 == 0:
        _lose_pages(_works(target), number)
    kept = sum(_finished(way, work, wanted) for work in _works(target))
    if done and not way.over:
        with pytest.raises(kumo_crt.RepositoryError, match="holds a database already"):
            stage.repository(world.prefix).restore(target)
    else:
        report = stage.repository(world.prefix).restore(target, **way.arguments)
        assert done or report.kept_bytes + report.reused_bytes >= kept
    assert tree(target) == wanted
    assert [path.name for path in target.parent.iterdir()] == ["db"]
    if number % 10 == 0:
        assert databases.read_all(target) == truth
    shutil.rmtree(target.parent)
    return life, done


@pytest.mark.parametrize("name", WAYS)
def test_killed_between_any_two_effects(
    stage: Stage, world: World, alive: Alive, name: str
) -> None:
    chance = chances("restore", name)
    old = footprint(world.old)
    whole = _live(stage, world, WAYS[name], _place(stage, world, WAYS[name]), Death(), 1)
    assert not whole.killed
    plan = deaths.some(deaths.boundaries(whole, chance), chance, scaled(BOUNDARIES))
    states = []
    for number, death in cases(plan):
        alive()
        with case(number, death):
            life, done = _one(stage, world, name, number, death, 1)
            assert life.killed
            states.append((death.effect, death.moment == "after", done))
    # Once it is there it stays.
    assert [done for *_, done in sorted(states)] == sorted(done for *_, done in states)
    assert footprint(world.old) == old


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_any_time(stage: Stage, world: World, alive: Alive, name: str) -> None:
    chance = chances("restore", "random", name)
    whole = _live(stage, world, WAYS[name], _place(stage, world, WAYS[name]), Death(), 8)
    killed = 0
    for number, death in cases(deaths.at_random(whole, chance, scaled(AT_RANDOM))):
        alive()
        with case(number, death):
            killed += _one(stage, world, name, number, death, 8)[0].killed
    assert killed > 0.5 * scaled(AT_RANDOM) or not is_whole()
