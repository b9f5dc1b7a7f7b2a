"""Prunes a repository: snapshots by the keep rules, then data that nothing names any more.

docs/format.md, "Deleting", has the steps and says why nothing is lost.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Sleep, Task
from kumo_crt.backup._coordination import _census, _inflight, _notices, _pins, _spares
from kumo_crt.backup._coordination._census import Census, Mark
from kumo_crt.backup._coordination._clock import ServiceClock
from kumo_crt.backup._coordination._inflight import LeaseState
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._format import _layout
from kumo_crt.backup._prune import _retention
from kumo_crt.backup._prune._retention import Candidate, KeepRules
from kumo_crt.backup._prune._sweep import Sweeper, batches
from kumo_crt.backup._prune._unreferenced import Unreferenced, find_task
from kumo_crt.backup._prune_report import PruneReport
from kumo_crt.backup._repair import _sparing
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import AccessDeniedError, FormatError, RepositoryLockedError, S3Error
from kumo_crt.s3._bucket import get_versioning_task
from kumo_crt.s3._deletions import DELETE_BATCH
from kumo_crt.s3._results import ObjectInfo

_log = logging.getLogger("kumo_crt.backup")
# Hashes of one mark.
_MARK_SIZE = 100_000
# Where deletions leave versions.
_FOLDERS = (
    _layout.DATA,
    _layout.SNAPSHOTS,
    _layout.SPARES,
    _inflight.INFLIGHT,
    _census.MARKS,
    _pins.PINS,
)
# Two prunes that began at the same time both see the other: they try again once, at random times.
_TIE = timedelta(seconds=10)
_TIE_PAUSE = 2.0
_HEADS = 8
# Keys of a snapshot, in the order in which they are deleted: a spare without a manifest tells that
# the manifest was lost.
_BOTH = (_layout.spare_key, _layout.snapshot_key)


@dataclass(slots=True)
class PrunePlan:
    """What a prune is to do."""

    store: Store
    rules: KeepRules
    now: datetime
    dry_run: bool = False
    wait: bool = False
    delete_versions: bool = False
    progress: Callable[[int, int], object] | None = None


def prune_task(plan: PrunePlan) -> Task[PruneReport]:
    """Runs a plan.

    Raises:
        RepositoryLockedError: Another prune is at work.
        FormatError: A manifest cannot be read; nothing was deleted.
        LeaseExpiredError: The prune stood still for so long that others took it for dead.
    """
    return (yield from _Prune(plan).run())


class _Prune:
    def __init__(self, plan: PrunePlan) -> None:
        store = plan.store
        self._plan = plan
        self._store = store
        self._started = time.monotonic()
        self._clock = ServiceClock(plan.now)
        self._lease = Lease(
            store,
            _inflight.PRUNE,
            "the prune",
            "What it did is complete in itself: run it again to go on",
        )
        self._meter = Meter(plan.progress, 0)
        self._census = Census(store)
        self._sweeper = Sweeper(store, self._lease, self._census, self._clock, self._meter)
        self._warnings: list[str] = []
        self._reasons: dict[str, tuple[str, ...]] = {}
        self._removed: list[str] = []
        # Snapshots that have a spare.
        self._with_spare: set[str] = set()

    def run(self) -> Task[PruneReport]:
        if self._plan.dry_run:
            return (yield from self._look())
        return (yield from self._lease.during(self._alone()))

    # -- one at a time ---------------------------------------------------------------------

    def _alone(self) -> Task[PruneReport]:
        """Gets the lease that only one prune can have, and works under it."""
        for may_be_tie in (True, False):
            yield from self._lease.acquire()
            listed: _inflight.Listed = yield from _inflight.look(self._store)
            leases = listed.leases
            now = self._clock.now()
            others = [
                lease
                for lease in leases.values()
                if lease.id != self._lease.id
                and _inflight.PRUNE in lease.kinds
                and not lease.has_lapsed(now)
            ]
            if not others:
                break
            yield from self._lease.release()
            is_tie = all(other.began is not None and now - other.began < _TIE for other in others)
            if not (may_be_tie and is_tie):
                raise (yield from self._locked(others[0]))
            yield Sleep(random.uniform(0.1, 1.0) * _TIE_PAUSE)  # noqa: S311 - no secret
        return (yield from self._lease.keep(self._work(listed)))

    def _locked(self, other: LeaseState) -> Task[RepositoryLockedError]:
        try:
            contents = yield from _inflight.read_parts(self._store, other.parts[:1])
            owner = next((content.owner for content in contents.values()), "a process that is gone")
        except FormatError:
            owner = "an unknown process"
        written = (part.written for part in other.parts if part.written is not None)
        last = max(written, default=self._clock.now())
        until = f"{last + _inflight.grace():%H:%M:%S} UTC"
        return RepositoryLockedError(
            f"{self._store.location}: is being pruned by {owner}: wait for it. If that has been "
            f"killed, a prune after {until} takes over"
        )

    def _clean(self, leases: Iterable[LeaseState]) -> Task[None]:
        """Deletes leases of the dead, before anything that they may have relied on."""
        now = self._clock.now()
        full = self._store.location.key
        dead = (x for x in leases if x.id != self._lease.id and x.has_lapsed(now))
        keys = [full(part.key) for lease in dead for part in lease.parts]
        yield from self._delete(keys)

    def _delete(self, full_keys: Iterable[str]) -> Task[set[str]]:
        locked: set[str] = set()
        for batch in batches(full_keys, DELETE_BATCH):
            refused = yield from self._sweeper.delete_keys([(key, None) for key in batch])
            locked |= {key for key, _ in refused}
        return locked

    # -- the work --------------------------------------------------------------------------

    def _look(self) -> Task[PruneReport]:
        """What would be done."""
        yield from self._choose()
        leases = yield from _inflight.list_leases(self._store)
        protection = yield from _inflight.read_protection(
            self._store, leases.values(), self._clock.now()
        )
        marks, _ = yield from _census.read_marks(self._store)
        found = yield from find_task(
            self._store, self._census, self._removed, protection, marks, self._clock
        )
        status = yield from self._versioning()
        if self._plan.delete_versions:
            doomed = {
                *(self._store.location.key(f(i)) for f in _BOTH for i in self._removed),
                *(item.key for item in found.due),
            }
            if not status:
                doomed.clear()  # it goes without a version
            yield from self._sweeper.delete_versions(_FOLDERS, status == "Enabled", doomed)
        self._meter.flush()
        return self._report(found, status, found.due)

    def _work(self, listed: _inflight.Listed) -> Task[PruneReport]:
        yield from self._clean(listed.leases.values())
        yield from self._choose()
        if self._removed:
            yield from self._lease.sweeping(self._remove_snapshots(), snapshots=self._removed)
        yield from self._write_spares()
        protection = yield from self._sweeper.protection()
        marks, worthless = yield from _census.read_marks(self._store)
        found = yield from find_task(self._store, self._census, (), protection, marks, self._clock)
        marked = yield from self._mark(found)
        if self._plan.wait and found.until is not None:
            left = (found.until - self._clock.now()).total_seconds()
            yield Sleep(max(0.0, left))
            found.due += found.pending
            found.pending = []
            worthless += marked
        # A mark is used up when its objects have had their turn. It goes after they went: killed in
        # between, the next prune finds it.
        used = [mark.key for mark in marks if self._is_old(mark)] + worthless
        yield from self._sweeper.sweep(found.due)
        yield from self._abort_uploads()
        yield from self._delete(self._store.location.key(key) for key in used)
        if listed.notices:
            yield from self._forget_damage(listed.notices)
        status = yield from self._versioning()
        if self._plan.delete_versions:
            yield from self._sweeper.delete_versions(_FOLDERS, status == "Enabled")
        self._meter.flush()
        return self._report(found, status)

    def _choose(self) -> Task[None]:
        """Reads all manifests and decides which snapshots are to go."""
        witnesses: _spares.Witnesses = yield from _spares.witnesses_task(self._store)
        self._with_spare.update(witnesses.spares)
        yield from self._census.read_new(self._meter)
        yield from self._check_lost(witnesses)
        entries = self._census.entries.values()
        candidates = (Candidate(e.id, e.db_id, e.created_at) for e in entries)
        kept = _retention.kept(self._plan.rules, candidates, self._clock.now())
        for entry in sorted(entries, key=lambda e: e.id):
            reasons = kept.get(entry.id, ())
            if entry.id in witnesses.pins:
                reasons = ("pinned", *reasons)
            if reasons:
                self._reasons[entry.id] = reasons
            else:
                self._removed.append(entry.id)

    def _check_lost(self, witnesses: _spares.Witnesses) -> Task[None]:
        """Makes sure that the manifests of all snapshots are there: their data is to stay, too.

        Raises:
            FormatError: One is gone.
        """
        witnesses = witnesses.without_new_pins(self._clock.now())
        lost = yield from _spares.lost_task(self._store, witnesses, self._census.entries.keys())
        if lost:
            raise _spares.refusal(self._store, lost)

    def _remove_snapshots(self) -> Task[None]:
        # After the sweep was written: who pins one of them from now on sees that, and who goes on
        # writing one of them has said so before.
        leases = yield from _inflight.list_leases(self._store)
        unfinished = yield from _inflight.read_unfinished(
            self._store, leases.values(), self._clock.now()
        )
        pins = yield from _pins.list_pins(self._store)
        self._spare(unfinished, "not finished")
        self._spare(pins, "pinned")
        for key_of in _BOTH:
            keys = {self._store.location.key(key_of(i)): i for i in self._removed}
            locked = {keys[key] for key in (yield from self._delete(keys))}
            if key_of is _layout.spare_key:
                self._with_spare.difference_update(set(self._removed) - locked)
            self._spare(locked, "locked")
        for snapshot_id in self._removed:
            del self._census.entries[snapshot_id]

    def _spare(self, ids: Iterable[str], reason: str) -> None:
        """Keeps some of the snapshots that were to be removed."""
        spared = set(ids)
        self._reasons.update((i, (reason,)) for i in self._removed if i in spared)
        self._removed = [i for i in self._removed if i not in spared]

    def _write_spares(self) -> Task[None]:
        """Writes spares that are missing: of backups that were killed at the end, or lost."""
        bare = self._census.entries.keys() - self._with_spare
        try:
            yield from _sparing.write_spares_task(self._store, bare, self._clock.now())
        except AccessDeniedError as error:
            self._warnings.append(_sparing.unwritten(error))

    def _is_old(self, mark: Mark) -> bool:
        return self._clock.now() - mark.written > _inflight.grace()

    def _mark(self, found: Unreferenced) -> Task[list[str]]:
        """Marks what is not marked yet; returns the keys of the marks."""
        keys = []
        hashes = sorted({_inflight.object_hash(item.key) for item in found.unmarked})
        for portion in batches(hashes, _MARK_SIZE):
            key = f"{_census.MARKS}{_layout.new_snapshot_id(self._clock.now(), None)}.json"
            result = yield from write_new_task(self._store, key, _census.encode_mark(portion))
            written = result.server_time or self._clock.now()
            # One second more: times of listings are rounded.
            found.until = written + _inflight.grace() + timedelta(seconds=1)
            keys.append(key)
        return keys

    # -- what else is left -----------------------------------------------------------------

    def _abort_uploads(self) -> Task[None]:
        try:
            yield from self._sweeper.abort_uploads()
        except S3Error as error:
            self._warnings.append(
                f"unfinished multipart uploads could not be looked after ({error}): allow it "
                "(s3:ListBucketMultipartUploads, s3:AbortMultipartUpload), or give the bucket a "
                "lifecycle rule that aborts them"
            )

    def _forget_damage(self, notices: list[str]) -> Task[None]:
        """Takes back notices of what is gone.

        They were listed before the manifests: who named what they tell of, has been read.
        """
        seen = yield from _notices.read_task(self._store, notices)
        unneeded = sorted(seen.damaged.keys() - self._census.live())
        there = yield Gather((self._store.has(key) for key in unneeded), _HEADS)
        tool = f"kumo_crt {_core.build_info()['version']}"
        gone = {key for key, is_there in zip(unneeded, there, strict=True) if not is_there}
        yield from _notices.withdraw_task(self._store, seen, gone, tool)

    def _versioning(self) -> Task[str | None]:
        """Enabled, Suspended, or nothing where the bucket never kept versions; None: not known."""
        try:
            status = yield from get_versioning_task(self._store.context, self._store.bucket)
        except S3Error:
            return None  # not allowed, or not known to the service
        return status or ""

    def _report(
        self, found: Unreferenced, status: str | None, would_delete: Iterable[ObjectInfo] = ()
    ) -> PruneReport:
        sweeper = self._sweeper
        sizes = [item.size for item in would_delete]
        kept: Mapping[str, tuple[str, ...]] = dict(sorted(self._reasons.items()))
        return PruneReport(
            dry_run=self._plan.dry_run,
            kept=kept,
            removed=tuple(self._removed),
            deleted_objects=sweeper.deleted_objects + len(sizes),
            deleted_bytes=sweeper.deleted_bytes + sum(sizes),
            pending_objects=len(found.pending),
            pending_bytes=sum(item.size for item in found.pending),
            pending_until=found.until if found.pending else None,
            protected_objects=found.protected_objects + sweeper.protected_objects,
            protected_bytes=found.protected_bytes + sweeper.protected_bytes,
            wasted_bytes=found.wasted_bytes,
            aborted_uploads=sweeper.aborted_uploads,
            versioned=None if status is None else bool(status),
            deleted_versions=sweeper.deleted_versions,
            deleted_version_bytes=sweeper.deleted_version_bytes,
            locked=sweeper.locked,
            warnings=tuple(self._warnings),
            seconds=time.monotonic() - self._started,
        )
