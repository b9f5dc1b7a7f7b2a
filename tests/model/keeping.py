"""Rules: what stays in the repository, and what goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from kumo_crt.exceptions import RepositoryError, SnapshotNotFoundError
from tests.faults.stage import later
from tests.model.base import ONE, Base

Rules = dict[str, int]
_COUNT = st.sampled_from([0, 0, 0, 1, 2, 3, -1])
RULES = st.fixed_dictionaries(
    {
        "last": _COUNT,
        "hourly": _COUNT,
        "daily": _COUNT,
        "weekly": _COUNT,
        "monthly": _COUNT,
        "within": st.sampled_from([0, 0, 1, 30, 24 * 8]),
    }
)


def as_arguments(rules: Rules) -> dict[str, Any]:
    """Arguments of `Repository.prune`."""
    within = rules["within"]
    counts = {f"keep_{name}": count or None for name, count in rules.items() if name != "within"}
    return {**counts, "keep_within": f"{within}h" if within else None}


class Keeping(Base):
    """Snapshots go."""

    @rule(who=ONE, rules=RULES, dry_run=st.booleans())
    def prune(self, who: int, rules: Rules, dry_run: bool) -> None:
        """Snapshots go by restic's rules; data is only marked."""
        world = self.world
        removed = world.removed(rules)
        before = world.stored()
        report = self.repository(who).prune(dry_run=dry_run, **as_arguments(rules))
        assert set(report.removed) == removed
        assert set(report.kept) == set(world.snapshots) - removed
        assert (report.deleted_objects, report.protected_objects) == (0, 0)
        stored = world.stored()
        if dry_run:
            assert stored == before
            kept = {key: taken for key, taken in world.snapshots.items() if key not in removed}
            assert report.pending_objects == len(world.superfluous(kept))
        else:
            world.forget(removed)
            assert report.pending_objects == len(world.superfluous())
            assert report.wasted_bytes == world.wasted()
            assert {k for k in stored if k.startswith("data/")} == {
                k for k in before if k.startswith("data/")
            }

    @rule(who=ONE, rules=RULES)
    def prune_later(self, who: int, rules: Rules) -> None:
        """Half an hour later the data goes as well: all that is not needed, and nothing else."""
        world = self.world
        removed = world.removed(rules)
        superfluous = world.superfluous(
            {key: taken for key, taken in world.snapshots.items() if key not in removed}
        )
        with later():
            first = self.repository(who).prune(**as_arguments(rules))
            assert set(first.removed) == removed
            planned = self.repository(who).prune(dry_run=True)
            second = self.repository(who + 1).prune()
        world.forget(removed)
        assert planned.deleted_objects == second.deleted_objects
        assert first.deleted_objects + second.deleted_objects == len(superfluous)
        assert (second.removed, second.pending_objects) == ((), 0)
        assert {key for key in world.stored() if key.startswith("data/")} == world.named()

    @precondition(Base.has_snapshots)
    @rule(one=ONE, who=ONE, dry_run=st.booleans())
    def pin_or_unpin(self, one: int, who: int, dry_run: bool) -> None:
        """Pinned snapshots stay, whatever the rules say."""
        snapshot_id = self.taken(one).id
        pinned = self.world.pinned
        if snapshot_id in pinned:
            self.repository(who).unpin(snapshot_id, dry_run=dry_run)
        else:
            self.repository(who).pin(snapshot_id, dry_run=dry_run)
        if not dry_run:
            pinned ^= {snapshot_id}
        assert self.repository(who).snapshot(snapshot_id).pinned == (snapshot_id in pinned)

    @precondition(Base.has_snapshots)
    @rule(one=ONE, who=ONE, dry_run=st.booleans())
    def delete(self, one: int, who: int, dry_run: bool) -> None:
        """One snapshot, unless it is pinned."""
        world, repository = self.world, self.repository(who)
        snapshot_id = self.taken(one).id
        if snapshot_id in world.pinned:
            with pytest.raises(RepositoryError, match="pin"):
                repository.delete_snapshot(snapshot_id)
            return
        repository.delete_snapshot(snapshot_id, dry_run=dry_run)
        if not dry_run:
            world.forget({snapshot_id})
            with pytest.raises(SnapshotNotFoundError):
                repository.delete_snapshot(snapshot_id)
            with pytest.raises(SnapshotNotFoundError):
                repository.snapshot(snapshot_id)
