"""Prunes and deletions that are killed: what is to stay stays, whole, and the rest goes later."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import kumo_crt
from tests.backup.interleaving import without_waiting
from tests.faults import deaths
from tests.faults.judge import Found, expected_tree, tree
from tests.faults.mortals import Death, Life
from tests.faults.seeds import case, cases, chances, is_whole, scaled
from tests.faults.stage import Stage, generation

BOUNDARIES = 45
AT_RANDOM = 15
Alive = Callable[[], None]


@dataclass(frozen=True)
class World:
    """A repository with everything that a prune has to do with.

    Attributes:
        objects: Its objects.
        gone: Where the state is whose snapshot was deleted, and whose data is marked: due.
        pinned: Id of a snapshot that has to stay.
        superfluous: Id of one that may go.
        newest: Id of one that the rules keep.
    """

    objects: dict[str, bytes]
    gone: Path
    pinned: str
    superfluous: str
    newest: str


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """Where every kill begins."""
    path = stage.new_directory() / "db"
    prefix = stage.new_prefix()
    ids = []
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        for number in range(4):
            generation(path, number)
            ids.append(repository.backup(path).id)
            if number == 0:
                gone = stage.copied(path)
        repository.pin(ids[1])
        repository.delete_snapshot(ids[0])
        with without_waiting():
            assert repository.prune().pending_objects >= 3
    return World(stage.dump(prefix), gone, *ids[1:])


def _live(stage: Stage, world: World, prefix: str, death: Death, work: str) -> tuple[Life, Found]:
    arguments: dict[str, object] = {"keep_last": 1}
    if work == "delete_snapshot":
        arguments = {"snapshot_id": world.superfluous}
    elif work == "pin":
        arguments = {"snapshot_id": world.newest}
    elif work == "unpin":
        arguments = {"snapshot_id": world.pinned}
    life = stage.mortals.live(work, stage.url(prefix), death, arguments=arguments, at_once=True)
    assert life.error is None
    found = stage.judge.look(prefix)
    assert {world.pinned, world.newest} <= found.snapshots
    assert found.snapshots <= {world.pinned, world.newest, world.superfluous}
    return life, found


def _has_lease(found: Found) -> bool:
    return any("/prune-" in key for key in found.below("inflight/"))


def _one(stage: Stage, world: World, number: int, death: Death, work: str) -> Life:
    """One kill, and all that has to hold after it."""
    prefix = stage.seed(world.objects)
    lost = prefix + "data/00/sst-left-by-somebody-1.sst"
    stage.judge.boto.create_multipart_upload(Bucket=stage.judge.bucket, Key=lost)
    life, left = _live(stage, world, prefix, death, work)
    repository = stage.repository(prefix)
    if work == "prune":
        with without_waiting():
            # Nobody knows yet that its owner is dead.
            refused = ""
            try:
                repository.prune(keep_last=1)
            except kumo_crt.RepositoryLockedError as error:
                refused = str(error)
            if refused:
                assert "takes over" in refused
                # What was on its way when its sender died may have arrived meanwhile.
                assert _has_lease(stage.judge.look(prefix))
            else:
                assert not _has_lease(left)
    elif work == "delete_snapshot":
        try:
            repository.delete_snapshot(world.superfluous)
            assert world.superfluous in left.snapshots
        except kumo_crt.SnapshotNotFoundError:
            pass
        assert world.superfluous not in stage.judge.look(prefix).snapshots
    # What was about to be deleted is needed again, and is there or is sent.
    again = repository.backup(world.gone)
    found = stage.judge.look(prefix)
    assert {again.id, world.pinned, world.newest} <= found.snapshots
    kept = {again.id}
    if work == "unpin":
        repository.unpin(world.pinned)
    else:
        kept.add(world.pinned)
    if work == "pin":
        repository.pin(world.newest)
        kept.add(world.newest)
    assert stage.check_clean(prefix, keep_last=1).snapshots == kept
    if number % 8 == 0:
        target = stage.new_directory() / "db"
        repository.restore(target)
        assert tree(target) == expected_tree(found.manifests[again.id])
        shutil.rmtree(target.parent)
    stage.forget(prefix)
    return life


@pytest.mark.parametrize("work", ["prune", "delete_snapshot", "pin", "unpin"])
def test_killed_between_any_two_effects(
    stage: Stage, world: World, alive: Alive, work: str
) -> None:
    chance = chances(work)
    whole, found = _live(stage, world, stage.seed(world.objects), Death(), work)
    if work == "prune":
        # It deletes a snapshot, data, an upload, a mark and its leases.
        assert len(whole.effects) > 8
        assert world.superfluous not in found.snapshots
    plan = deaths.some(deaths.boundaries(whole, chance), chance, scaled(BOUNDARIES))
    for number, death in cases(plan):
        alive()
        with case(number, death):
            assert _one(stage, world, number, death, work).killed


@pytest.mark.parametrize("work", ["prune", "delete_snapshot"])
def test_killed_at_any_time(stage: Stage, world: World, alive: Alive, work: str) -> None:
    chance = chances(work, "random")
    whole, _ = _live(stage, world, stage.seed(world.objects), Death(), work)
    count = scaled(AT_RANDOM if work == "prune" else 5)
    killed = 0
    for number, death in cases(deaths.at_random(whole, chance, count)):
        alive()
        with case(number, death):
            killed += _one(stage, world, number, death, work).killed
    assert killed > 0.5 * count or not is_whole()
