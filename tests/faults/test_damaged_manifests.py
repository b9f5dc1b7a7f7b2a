"""Damaged and lost manifests: each is found and named, and its snapshot restored from its spare.

Without the spare it is not restored. Whoever damages them stores them as anybody could: the
service's own checksum is right again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

import kumo_crt
from tests.faults.damage import WAYS, damaged
from tests.faults.floors import FROM_SPARES, LOST, MANIFEST_ENDS, MANIFESTS, PUT_BACK
from tests.faults.judge import expected_tree, tree
from tests.faults.seeds import case, cases, chances, done, scaled
from tests.faults.stage import Stage, generation, write_first, write_second

BITS = 60
# The last bytes of a manifest hold what the others are checked by; each of their bits is changed.
END = 40
# One of so many is restored in full; of the others it is only seen that it could be.
RESTORED = 8
# Those that are gone are looked at by themselves.
_WAYS = sorted(WAYS.keys() - {"gone"})
Alive = Callable[[], None]


@dataclass(frozen=True)
class World:
    """A repository with snapshots of several kinds.

    Attributes:
        prefix: Where it is.
        manifests: Its manifests by their keys.
        trees: What a restore of each gives.
    """

    prefix: str
    manifests: dict[str, bytes]
    trees: dict[str, dict[str, str]]


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def world(request: pytest.FixtureRequest, stage: Stage) -> Iterator[World]:
    """As files, with bundles, as a single object; of two databases."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "encrypted":
            patch.setenv("KUMO_CRT_KEY", "5a" * 32)
        one, two = stage.new_directory() / "db", stage.new_directory() / "db"
        prefix = stage.new_prefix()
        with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
            write_first(one)
            repository.backup(one)
            write_second(one)
            repository.backup(one, tags={"reason": "nightly"})
            repository.backup(one, single_object=True)
            for number in range(2):
                generation(two, number)
                repository.backup(two)
        found = stage.judge.look(prefix)
        manifests = {key: stage.judge.get(prefix + key) for key in found.below("snapshots/")}
        trees = {_key(i): expected_tree(manifest) for i, manifest in found.manifests.items()}
        yield World(prefix, dict(sorted(manifests.items())), trees)


def _key(snapshot_id: str) -> str:
    return f"snapshots/{snapshot_id}.json"


def _id(key: str) -> str:
    return key.removeprefix("snapshots/").removesuffix(".json")


def _spare(key: str) -> str:
    return f"spares/{_id(key)}.json"


def _write(stage: Stage, world: World, contents: Mapping[str, bytes | None]) -> None:
    """Stores documents; those that are None are deleted."""
    for key, content in contents.items():
        where = {"Bucket": stage.judge.bucket, "Key": world.prefix + key}
        if content is None:
            stage.judge.boto.delete_object(**where)
        else:
            stage.judge.boto.put_object(**where, Body=content, ChecksumAlgorithm="CRC32C")


@contextmanager
def _stored(
    stage: Stage, world: World, contents: Mapping[str, bytes | None], *, spares: bool = True
) -> Iterator[None]:
    """Damaged and lost manifests, with or without their spares, until they are put right again."""
    _write(stage, world, contents)
    if not spares:
        _write(stage, world, {_spare(key): None for key in contents})
    try:
        yield
    finally:
        good = {key: world.manifests[key] for key in contents}
        _write(stage, world, good)
        _write(stage, world, {_spare(key): content for key, content in good.items()})


def _told(stage: Stage, world: World, contents: Mapping[str, bytes | None]) -> None:
    """A verification tells of these manifests, and of no others."""
    repository = stage.repository(world.prefix)
    report = repository.verify("all", level="quick", record=False)
    told = {problem.key: problem for problem in report.problems}
    assert told.keys() == contents.keys()
    assert not report.ok
    for key, problem in told.items():
        assert problem.kind == "manifest"
        assert problem.snapshots == (_id(key),)
        assert key in problem.message


def _found(stage: Stage, world: World, contents: Mapping[str, bytes | None], kind: str) -> None:
    """They are told of; with their spares they are restored exactly, without them not at all."""
    repository = stage.repository(world.prefix)
    target = stage.new_directory() / "db"
    with _stored(stage, world, contents):
        _told(stage, world, contents)
        for key in contents:
            done[kind] += 1
            whole = done[kind] % RESTORED == 0
            report = repository.restore(target, _id(key), dry_run=not whole)
            (warning,) = report.warnings
            assert key in warning
            assert "spare is sound, and was used" in warning
            if whole:
                assert tree(target) == world.trees[key]
                shutil.rmtree(target)
                done[FROM_SPARES] += 1
    if None in contents.values():
        return
    with _stored(stage, world, contents, spares=False):
        _told(stage, world, contents)
        for key in contents:
            with pytest.raises(kumo_crt.FormatError, match=_id(key)):
                repository.restore(target, _id(key))
    assert list(target.parent.iterdir()) == []


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_bit(stage: Stage, world: World, alive: Alive) -> None:
    """Most of them are in names, numbers and texts, which look as good as before."""
    chance = chances("manifests", "bits")
    keys = list(world.manifests)
    drawn = [(chance.choice(keys), chance.random()) for _ in range(scaled(BITS))]
    for number, (key, where) in cases(drawn):
        alive()
        content = world.manifests[key]
        bit = int(where * 8 * len(content))
        with case(number, f"bit {bit} of {content!r}"):
            _found(stage, world, {key: _flipped(content, bit)}, MANIFESTS)
    assert stage.repository(world.prefix).verify("all", level="full", record=False).ok


def test_each_bit_of_the_end(stage: Stage, world: World, alive: Alive) -> None:
    """A checksum that is not taken for one any more would check nothing."""
    keys = list(world.manifests)
    bits = list(range(8 * END))
    groups = [bits[start : start + len(keys)] for start in range(0, len(bits), len(keys))]
    for number, group in cases(groups):
        alive()
        contents = {}
        for key, bit in zip(keys, group, strict=False):
            content = world.manifests[key]
            contents[key] = _flipped(content, 8 * len(content) - 1 - bit)
        with case(number, group):
            _found(stage, world, contents, MANIFEST_ENDS)


def test_every_manifest_in_every_way(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("manifests", "every")
    for turn in range(len(_WAYS)):
        alive()
        contents = {
            key: _damaged(_WAYS[(number + turn) % len(_WAYS)], world, key, chance)
            for number, key in enumerate(world.manifests)
        }
        with case(turn, contents):
            _found(stage, world, contents, MANIFESTS)
            _put_back(stage, world, contents)


def _put_back(stage: Stage, world: World, contents: Mapping[str, bytes | None]) -> None:
    """A repair needs no database for it."""
    repository = stage.repository(world.prefix)
    with _stored(stage, world, contents):
        report = repository.repair(level="quick")
        assert report.ok
        assert set(report.manifests) == {_id(key) for key in contents}
        for key in contents:
            assert stage.judge.get(world.prefix + key) == world.manifests[key]
    done[PUT_BACK] += len(contents)


def test_lost(stage: Stage, world: World, alive: Alive) -> None:
    """Each by itself, two at a time, and all together."""
    keys = list(world.manifests)
    groups = [[key] for key in keys] + [list(pair) for pair in pairwise(keys)] + [keys]
    for number, group in cases(groups):
        alive()
        contents = dict.fromkeys(group)
        with case(number, group):
            _found(stage, world, contents, LOST)
            _put_back(stage, world, contents)


def _damaged(way: str, world: World, key: str, chance: random.Random) -> bytes:
    while True:
        content = damaged(way, world.manifests[key], chance, world.manifests)
        if content is not None:
            return content


def test_exchanged(stage: Stage, world: World) -> None:
    """Two whole manifests, each in the other's place."""
    keys = list(world.manifests)
    for one, other in pairwise(keys):
        contents = {one: world.manifests[other], other: world.manifests[one]}
        _found(stage, world, contents, MANIFESTS)


def test_the_others_are_restored_and_nothing_is_deleted(stage: Stage, world: World) -> None:
    """Nobody knows what a damaged manifest needs: a prune deletes nothing."""
    repository = stage.repository(world.prefix)
    first, *others = world.manifests
    middle = 4 * len(world.manifests[first])
    with _stored(stage, world, {first: _flipped(world.manifests[first], middle)}):
        before = stage.judge.listed(world.prefix)
        for key in others:
            target = stage.new_directory() / "db"
            repository.restore(target, _id(key))
            assert tree(target) == world.trees[key]
        with pytest.raises(kumo_crt.FormatError, match=_id(first)):
            repository.prune(keep_last=1)
        assert stage.judge.listed(world.prefix) == before
    done["snapshots restored beside a damaged manifest"] += len(others)
