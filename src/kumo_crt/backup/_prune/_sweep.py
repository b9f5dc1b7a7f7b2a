"""Deletes: data that nothing names, uploads that nobody finishes, versions that are left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._coordination import _inflight, _spares
from kumo_crt.backup._coordination._census import Census
from kumo_crt.backup._coordination._clock import ServiceClock
from kumo_crt.backup._coordination._inflight import Protection
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._format import _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import AccessDeniedError, NotFoundError
from kumo_crt.s3 import _listings
from kumo_crt.s3._deletions import DELETE_BATCH, DeleteFailure, delete_batch_task, delete_error
from kumo_crt.s3._head import head_task
from kumo_crt.s3._listings import UploadInfo, VersionInfo
from kumo_crt.s3._results import ObjectInfo

T = TypeVar("T")
# Objects of one sweep: they are rescanned for just before they are deleted.
PORTION = 20_000
_DELETERS = 4
_HEADS = 8
_NO_ID = "null"


@dataclass(slots=True)
class Sweeper:
    """What deletes for a prune, and counts what it did."""

    store: Store
    lease: Lease
    census: Census
    clock: ServiceClock
    meter: Meter
    deleted_objects: int = 0
    deleted_bytes: int = 0
    protected_objects: int = 0
    protected_bytes: int = 0
    aborted_uploads: int = 0
    deleted_versions: int = 0
    deleted_version_bytes: int = 0
    locked: int = 0

    # -- data ------------------------------------------------------------------------------

    def sweep(self, due: Sequence[ObjectInfo]) -> Task[None]:
        """Deletes data objects that are still unreferenced when each portion's turn has come."""
        self.meter.total += len(due)
        live = self.census.live()
        for portion in batches(due, PORTION):
            hashes = sorted({_inflight.object_hash(item.key) for item in portion})
            yield from self.lease.sweeping(self._sweep_portion(portion, live), objects=hashes)

    def _sweep_portion(self, portion: list[ObjectInfo], live: set[str]) -> Task[None]:
        # In this order: a backup that ends in between has written its manifest before its pin goes.
        protection = yield from self.protection()
        witnesses: _spares.Witnesses = yield from _spares.witnesses_task(self.store)
        for entry in (yield from self.census.read_new()):
            live.update(entry.keys)
        # Of snapshots that have come, and whose manifests have been lost, since it began.
        witnesses = witnesses.without_new_pins(self.clock.now())
        lost = yield from _spares.lost_task(self.store, witnesses, self.census.entries.keys())
        if lost:
            raise _spares.refusal(self.store, lost)
        start = len(self.store.location.prefix)
        doomed = []
        for item in portion:
            if item.key[start:] in live:
                self.meter.add(1)
            elif protection.covers(item.key, item.last_modified):
                self.protected_objects += 1
                self.protected_bytes += item.size
                self.meter.add(1)
            else:
                doomed.append(item)
        yield Gather((self._delete(batch) for batch in batches(doomed, DELETE_BATCH)), _DELETERS)

    def protection(self) -> Task[Protection]:
        """What running backups need, as of now.

        Raises:
            LeaseExpiredError: Somebody took this prune for dead.
        """
        leases = yield from _inflight.list_leases(self.store)
        if not self.lease.is_listed(leases):
            raise self.lease.expired("it has been removed by another prune, or by somebody")
        return (yield from _inflight.read_protection(self.store, leases.values(), self.clock.now()))

    def _delete(self, batch: list[ObjectInfo]) -> Task[None]:
        refused = yield from self.delete_keys([(item.key, None) for item in batch])
        gone = [item for item in batch if (item.key, None) not in refused]
        self.deleted_objects += len(gone)
        self.deleted_bytes += sum(item.size for item in gone)
        self.meter.add(len(batch))

    def delete_keys(
        self, objects: Sequence[tuple[str, str | None]]
    ) -> Task[set[tuple[str, str | None]]]:
        """Deletes full keys, or versions of them; returns those that Object Lock retains.

        Raises:
            S3Error: Some were refused for another reason.
        """
        self.lease.check()
        store = self.store
        failed = yield from delete_batch_task(store.context, store.bucket, objects)
        denied = [item for item in failed if item.code == "AccessDenied"]
        is_locked: list[bool] = yield Gather((self._is_locked(item) for item in denied), _HEADS)
        locked = {
            (item.key, item.version_id)
            for item, is_it in zip(denied, is_locked, strict=True)
            if is_it
        }
        self.locked += len(locked)
        others = [item for item in failed if (item.key, item.version_id) not in locked]
        if others:
            raise delete_error(store.bucket, others, len(objects))
        return locked

    def _is_locked(self, failure: DeleteFailure) -> Task[bool]:
        store = self.store
        try:
            found = yield from head_task(
                store.context, store.bucket, failure.key, failure.version_id
            )
        except (NotFoundError, AccessDeniedError):
            return False
        now = self.clock.now()
        return found.legal_hold or (found.retain_until is not None and found.retain_until > now)

    # -- uploads ---------------------------------------------------------------------------

    def abort_uploads(self) -> Task[None]:
        """Aborts multipart uploads that were left behind."""
        context, bucket = self.store.context, self.store.bucket
        listed: list[UploadInfo] = []
        for below in (_layout.DATA, _layout.SNAPSHOTS, _layout.SPARES):
            prefix = self.store.location.key(below)
            listed += yield from _listings.list_uploads_task(context, bucket, prefix)
        oldest = self.clock.now() - _inflight.grace()
        stale = [
            item
            for item in listed
            if self._is_ours(item.key) and item.initiated is not None and item.initiated < oldest
        ]
        if not stale:
            return

        def work() -> Task[None]:
            protection = yield from self.protection()
            for item in stale:
                if not protection.covers(item.key, item.initiated):
                    self.lease.check()
                    yield from _listings.abort_upload_task(
                        context, bucket, item.key, item.upload_id
                    )
                    self.aborted_uploads += 1

        hashes = sorted({_inflight.object_hash(item.key) for item in stale})
        yield from self.lease.sweeping(work(), objects=hashes)

    def _is_ours(self, full_key: str) -> bool:
        """Whether a key is one of this repository's: there may be others below its prefix."""
        key = full_key[len(self.store.location.prefix) :]
        folder, _, name = key.partition("/")
        if folder + "/" == _layout.DATA:
            return _layout.is_data_key(key)
        if folder + "/" == _inflight.INFLIGHT:
            return _inflight.is_ours(key)
        if folder + "/" == _layout.SPARES:
            name = name.removeprefix("pins/")
        return _layout.is_snapshot_id(name.removesuffix(".json"))

    # -- versions --------------------------------------------------------------------------

    def delete_versions(
        self, prefixes: Iterable[str], without_id: bool, doomed: Set[str] | None = None
    ) -> Task[None]:
        """Deletes for good what has been deleted: versions behind a delete marker, then that.

        Args:
            prefixes: Where to look, relative to the repository.
            without_id: Also those that have no id of their own, but ``null``. Not while the bucket
                makes such versions: what is stored anew takes the place of one, and its id.
            doomed: Only count the versions, also those of these keys, which are still there.
        """
        for relative in prefixes:
            marker: _listings.Marker | None = None
            carried: list[VersionInfo] = []
            while True:
                page, marker = yield from _listings.list_versions_page_task(
                    self.store.context,
                    self.store.bucket,
                    self.store.location.key(relative),
                    marker,
                )
                carried += (v for v in page if self._is_ours(v.key))
                carried.sort(key=lambda version: version.key)
                # The last key may go on with the next page.
                edge = carried[-1].key if marker is not None and carried else None
                whole = [item for item in carried if item.key != edge]
                behind = _behind(whole, doomed or frozenset())
                behind = [v for v in behind if without_id or v.version_id != _NO_ID]
                carried = [item for item in carried if item.key == edge]
                if doomed is None:
                    yield from self._delete_versions(behind)
                else:
                    self._count([v for v in behind if not v.is_delete_marker])
                if marker is None:
                    break

    def _count(self, gone: list[VersionInfo]) -> None:
        self.deleted_versions += len(gone)
        self.deleted_version_bytes += sum(v.size for v in gone)

    def _delete_versions(self, behind: list[VersionInfo]) -> Task[None]:
        retained: set[str] = set()
        for batch in batches([v for v in behind if not v.is_delete_marker], DELETE_BATCH):
            locked = yield from self.delete_keys([(v.key, v.version_id) for v in batch])
            self._count([v for v in batch if (v.key, v.version_id) not in locked])
            retained |= {key for key, _ in locked}
        # Without its marker, a version that is locked would be there again.
        markers = [v for v in behind if v.is_delete_marker and v.key not in retained]
        for batch in batches(markers, DELETE_BATCH):
            yield from self.delete_keys([(v.key, v.version_id) for v in batch])


def _behind(versions: list[VersionInfo], doomed: Set[str]) -> list[VersionInfo]:
    """Versions, and markers, of what has been deleted or is to be."""
    deleted = {v.key for v in versions if v.is_latest and v.is_delete_marker} | doomed
    return [v for v in versions if v.key in deleted]


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, so many at a time."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
