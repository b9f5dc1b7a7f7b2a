"""The parts of `Repository` that decide what stays in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from kumo_crt.backup._base import RepositoryBase, is_id
from kumo_crt.exceptions import SnapshotNotFoundError

if TYPE_CHECKING:
    from kumo_crt.backup._prune_report import PruneReport

Progress = Callable[[int, int], object]


class Keeping(RepositoryBase):
    """Pins, prunes and deletes snapshots."""

    def prune(
        self,
        *,
        keep_last: int | None = None,
        keep_within: str | timedelta | None = None,
        keep_hourly: int | None = None,
        keep_daily: int | None = None,
        keep_weekly: int | None = None,
        keep_monthly: int | None = None,
        dry_run: bool = False,
        wait: bool = False,
        delete_versions: bool = False,
        progress: Progress | None = None,
    ) -> PruneReport:
        """Removes snapshots that no rule keeps, and deletes data that no snapshot needs.

        The rules have restic's meaning, for the snapshots of each database by itself, with hours,
        days, ISO weeks and months of UTC. Without any rule no snapshot is removed; data that
        nothing needs, such as what killed backups left, is deleted all the same. Pinned snapshots
        always stay.

        Data is deleted in two steps: what no snapshot names is marked, and deleted by the first
        prune that finds it still so half an hour later (`PruneReport.pending_objects` until then).
        So it is meant to be run regularly, and needs no time when nothing else may run: backups,
        restores and verifies go on. Killed at any moment, it leaves nothing inconsistent; run it
        again.

        Args:
            keep_last: Keep the newest n.
            keep_within: Keep what is not older than this before the newest: a timedelta, or years,
                months, days, hours, such as ``"1y6m"`` or ``"7d12h"``.
            keep_hourly: Keep the newest one of each of the last n hours that have one.
            keep_daily: The same for days.
            keep_weekly: The same for weeks.
            keep_monthly: The same for months. Of each of the counts, -1 is all and 0
                no rule.
            dry_run: Only tell what would be done.
            wait: Stay for the half hour, and do both steps at once.
            delete_versions: In a bucket with versioning, where deleted objects stay as noncurrent
                versions, delete those for good. Not the ones that Object Lock retains.
            progress: Called with how many manifests were read and objects deleted, and how many
                there are as far as is known; ten times a second at most.

        Returns:
            What was done.

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
            RepositoryLockedError: Another prune is at work.
            FormatError: A manifest cannot be read, or was lost: nothing was deleted.
            ValueError: A rule makes no sense.
        """
        from kumo_crt.backup._prune import _prune  # loaded by those who prune
        from kumo_crt.backup._prune._retention import KeepRules, Within

        rules = KeepRules(
            last=keep_last,
            within=None if keep_within is None else Within.parse(keep_within),
            hourly=keep_hourly,
            daily=keep_daily,
            weekly=keep_weekly,
            monthly=keep_monthly,
        )
        _, now = self._guarded()
        plan = _prune.PrunePlan(
            store=self._store(),
            rules=rules,
            now=now,
            dry_run=dry_run,
            wait=wait,
            delete_versions=delete_versions,
            progress=progress,
        )
        return self._run(_prune.prune_task(plan))

    def delete_snapshot(self, snapshot_id: str, *, dry_run: bool = False) -> None:
        """Deletes one snapshot; its data goes with later prunes, if nothing else needs it.

        Works for a manifest that is damaged or lost, too.

        Args:
            snapshot_id: Its id.
            dry_run: Only look whether it could be done.

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
            SnapshotNotFoundError: There is none of this id.
            RepositoryError: It is pinned.
            RepositoryLockedError: Its backup is still running, or was killed within the last half
                hour.
        """
        from kumo_crt.backup._coordination import _pins

        _, now = self._guarded()
        wanted = self._exact(snapshot_id)
        self._run(_pins.delete_snapshot_task(self._store(), wanted, now, dry_run=dry_run))

    def pin(self, snapshot_id: str, *, dry_run: bool = False) -> None:
        """Keeps a snapshot from being pruned or deleted; nothing happens if it is pinned already.

        Args:
            snapshot_id: Its id.
            dry_run: Only look whether it could be done.

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
            SnapshotNotFoundError: There is none of this id.
            RepositoryLockedError: It is being deleted.
        """
        from kumo_crt.backup._coordination import _pins

        _, now = self._guarded()
        wanted = self._exact(snapshot_id)
        self._run(_pins.pin_task(self._store(), wanted, now, dry_run=dry_run))

    def unpin(self, snapshot_id: str, *, dry_run: bool = False) -> None:
        """Lets a snapshot be pruned again; nothing happens if it is not pinned.

        Args:
            snapshot_id: Its id.
            dry_run: Only look whether it could be done.

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
            SnapshotNotFoundError: There is none of this id.
        """
        from kumo_crt.backup._coordination import _pins

        self._guarded()
        wanted = self._exact(snapshot_id)
        self._run(_pins.unpin_task(self._store(), wanted, dry_run=dry_run))

    def _exact(self, snapshot_id: str) -> str:
        """An id that names one snapshot: what "latest" is may change meanwhile.

        Raises:
            SnapshotNotFoundError: It is none.
        """
        if not is_id(snapshot_id):
            raise SnapshotNotFoundError(
                f"{self._location}: {snapshot_id!r} is no snapshot id, such as "
                "20261123T060000Z-0a1b2c3d; snapshots() and kumo-crt snapshots tell them"
            )
        return snapshot_id
