"""Damage that is known: the next backup puts it right, or relies on something else; killed, too."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt.s3 import _retry
from tests.backup.helpers import flipped
from tests.faults import deaths
from tests.faults.damage import WAYS, damaged
from tests.faults.judge import Found, expected_tree, tree
from tests.faults.mortals import Death
from tests.faults.seeds import case, cases, chances, done, scaled
from tests.faults.stage import Stage, generation, write_first, write_second
from tests.support import databases
from tests.support.mortal_server import MortalServer

ROUNDS = 16
KILLS = 20
Alive = Callable[[], None]


@dataclass(frozen=True)
class World:
    """A repository of two databases, and the databases as they are now.

    Attributes:
        objects: The repository: two snapshots of the one, three of the other.
        found: The same, as the judge sees it.
        paths: The databases; each has what its newest snapshot has, and more.
    """

    objects: dict[str, bytes]
    found: Found
    paths: tuple[Path, ...]

    @property
    def data(self) -> dict[str, bytes]:
        """Its data objects."""
        return {key: self.objects[key] for key in sorted(self.found.below("data/"))}


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """Some of what is stored is still on the disks, and some is not."""
    one, two = stage.new_directory() / "db", stage.new_directory() / "db"
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        write_first(one)
        repository.backup(one)
        write_second(one)
        repository.backup(one)
        for number in range(3):
            generation(two, number)
            repository.backup(two)
    return World(stage.dump(prefix), stage.judge.look(prefix), (one, two))


def _damage(stage: Stage, world: World, number: int, chance: random.Random) -> tuple[str, set[str]]:
    """A copy of the repository in which objects are damaged; its prefix, and their keys."""
    data = world.data
    count = [len(data), 1, 3, len(data) // 2][number % 4]
    ways = sorted(WAYS)
    plan = {
        key: damaged(chance.choice(ways), data[key], chance, data)
        for key in chance.sample(list(data), count)
    }
    contents = {**world.objects, **plan}
    prefix = stage.seed({key: value for key, value in contents.items() if value is not None})
    assert not stage.repository(prefix).verify("all", level="full").ok
    return prefix, set(plan)


def _backed_up(stage: Stage, world: World, prefix: str, keys: set[str]) -> None:
    """Both databases are safe again, whatever was damaged; and what they still have, is good."""
    for path in world.paths:
        snapshot = stage.repository(prefix).backup(path)
        manifest = stage.judge.check(prefix, snapshot.id)
        target = stage.new_directory() / "restored"
        stage.repository(prefix).restore(target, snapshot.id)
        assert tree(target) == expected_tree(manifest)
    report = stage.repository(prefix).verify("all", level="full", record=False)
    left = {problem.key for problem in report.problems}
    assert left <= keys
    done["damaged objects, put right by the next backup"] += len(keys - left)
    # What is left is known, and nobody's but old snapshots'.
    newest = {
        file["key"]
        for path in world.paths
        for file in stage.judge.check(prefix, stage.repository(prefix).backup(path).id)["files"]
        if "key" in file
    }
    assert left.isdisjoint(newest)
    known = {key for item in stage.repository(prefix).health() for key in item.damaged}
    assert known == left
    notices = {key for key in stage.judge.listed(prefix) if key.startswith("inflight/")}
    assert bool(notices) is bool(left)
    assert all(key.startswith("inflight/damage-") for key in notices)


def test_a_rotten_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bit changes on the server's own disk: sizes and stored checksums are what they were."""
    monkeypatch.setattr(_retry, "_OUTAGE_FAILING", 1.0)
    monkeypatch.setenv("KUMO_CRT_BUNDLE_BELOW", "0")
    databases.make_plain(tmp_path / "db")
    with MortalServer(directory=tmp_path) as server:
        server.described().boto3_client().create_bucket(Bucket="rotten")
        with kumo_crt.S3Client(**server.described().client_arguments()) as client:
            repository = kumo_crt.Repository.create("s3://rotten/db", client=client)
            snapshot = repository.backup(tmp_path / "db")
            file = max(snapshot.files, key=lambda file: file.size)
            part = (tmp_path / "db" / file.path).read_bytes()[1000:1100]
            server.kill()
            (volume,) = (p for p in tmp_path.rglob("*.dat") if part in p.read_bytes())
            content = volume.read_bytes()
            volume.write_bytes(flipped(content, content.index(part)))
            server.revive()
            # It may take a moment to find its volumes again, and answers 500 until then.
            deadline = time.monotonic() + 60
            ready = False
            while not ready:
                assert time.monotonic() < deadline, "SeaweedFS has not found its data again"
                with contextlib.suppress(kumo_crt.S3Error):
                    ready = repository.verify(level="stored").ok
            report = repository.verify(level="full")
            assert [(p.key, p.kind) for p in report.problems] == [(file.key, "unreadable")]
            again = repository.backup(tmp_path / "db")
            assert again.uploaded_bytes == file.size
            assert repository.verify("all", level="full").ok
    done["bits changed on a server's disk, put right by the next backup"] += 1


def test_any_damage(stage: Stage, world: World, alive: Alive) -> None:
    chance = chances("healing")
    for number, seed in cases(chance.random() for _ in range(scaled(ROUNDS))):
        alive()
        prefix, keys = _damage(stage, world, number, random.Random(seed))
        with case(number, sorted(keys)):
            _backed_up(stage, world, prefix, keys)
            # With the old snapshots everything goes that is damaged, and all that tells of it.
            stage.check_clean(prefix, keep_last=1)
        stage.forget(prefix)


def test_killed(stage: Stage, world: World, alive: Alive) -> None:
    """Between any two effects: what was good stays so, and the next backup ends it."""
    chance = chances("healing", "kills")
    prefix, keys = _damage(stage, world, 0, random.Random(0))
    objects = stage.dump(prefix)
    arguments = {"source": str(world.paths[0]), "max_concurrency": 1}
    life = stage.mortals.live("backup", stage.url(prefix), Death(), arguments=arguments)
    assert life.error is None
    plan = deaths.some(deaths.boundaries(life, chance), chance, scaled(KILLS))
    for number, death in cases(plan):
        alive()
        prefix = stage.seed(objects)
        with case(number, death):
            life = stage.mortals.live("backup", stage.url(prefix), death, arguments=arguments)
            assert life.error is None
            report = stage.repository(prefix).verify("all", level="full", record=False)
            assert {problem.key for problem in report.problems} <= keys
            later = [key for key in stage.judge.listed(prefix) if "inflight/backup-" in key]
            stage.client.delete_objects(stage.judge.bucket, [prefix + key for key in later])
            _backed_up(stage, world, prefix, keys)
        stage.forget(prefix)
