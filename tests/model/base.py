"""What the rules of the machine stand on: its world, choices of one of several, its end."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from kumo_crt import SnapshotNotFoundError
from tests.faults import seeds
from tests.faults.stage import later
from tests.model.world import Clocked, Database, Stage, Taken, World, check_content

# Which one of several: taken modulo their number.
ONE = st.integers(0, 7)
KEYS = st.integers(0, 30).map(lambda number: b"%02d" % number)


class Base(RuleBasedStateMachine):
    """One example: an empty repository and two empty databases, and what happens to them.

    Args:
        stage: Where it happens.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        seeds.done["examples of the model"] += 1
        self.stage = stage

    @initialize(encrypted=st.sampled_from([False, False, True]))
    def begin(self, encrypted: bool) -> None:
        """Whatever is chosen must come from hypothesis, or it could not do it again."""
        self.world = World.begin(self.stage, encrypted=encrypted)

    def teardown(self) -> None:
        """Whatever happened, in the end everything that is committed is there, and nothing else."""
        world = self.world
        try:
            for database in world.databases:
                database.close()
                check_content(database.path, database.content)
            if world.snapshots:
                assert world.repositories[0].verify("all", level="full").ok
            else:
                with pytest.raises(SnapshotNotFoundError, match="no snapshot yet"):
                    world.repositories[0].verify("all")
            for taken in world.snapshots.values():
                target = world.new_path("end")
                world.repositories[0].restore(target, taken.id)
                check_content(target, taken.content)
            with later():
                for _ in range(2):
                    world.repositories[0].prune()
            stored = world.stored()
            assert {key for key in stored if key.startswith("data/")} == world.named()
            assert not {key for key in stored if key.startswith(("inflight/", "marks/"))}
        finally:
            world.end()

    @invariant()
    def nothing_is_missing(self) -> None:
        """After every step: the snapshots of the model, and every object that they need."""
        stored = self.world.stored()
        ids = {f"snapshots/{snapshot_id}.json" for snapshot_id in self.world.snapshots}
        assert {key for key in stored if key.startswith("snapshots/")} == ids
        spares = {key.replace("snapshots/", "spares/") for key in ids}
        assert {key for key in stored if key.startswith("spares/2")} == spares
        assert self.world.named() <= stored

    def database(self, one: int) -> Database:
        """One of the databases."""
        return self.world.databases[one % len(self.world.databases)]

    def repository(self, one: int) -> Clocked:
        """The repository, by one of its clients."""
        return self.world.repositories[one % len(self.world.repositories)]

    def taken(self, one: int) -> Taken:
        """One of the snapshots."""
        snapshots = self.world.snapshots
        return snapshots[sorted(snapshots)[one % len(snapshots)]]

    def has_snapshots(self) -> bool:
        """For preconditions."""
        return bool(self.world.snapshots)


def family_of(database: Database, one: int) -> str:
    """One of a database's column families."""
    return sorted(database.content)[one % len(database.content)]
