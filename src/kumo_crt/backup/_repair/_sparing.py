"""Writes spare manifests, and puts manifests back from them: docs/format.md, "Spares"."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _inflight, _spares
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._format import _layout
from kumo_crt.backup._repair._replacing import put_aside
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    AccessDeniedError,
    FormatError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
    RepositoryLockedError,
)
from kumo_crt.s3._body import MemorySource
from kumo_crt.s3._deletions import delete_task
from kumo_crt.s3._head import HeadResult, head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions

_READERS = 8


class _Work(NamedTuple):
    """A document to write: a manifest from its spare, or a spare from its manifest.

    Attributes:
        snapshot_id: The snapshot.
        source: Key of the one that is good.
        target: Key of the one that is to be written.
        damaged: There is one, and it is damaged; else there is none.
    """

    snapshot_id: str
    source: str
    target: str
    damaged: bool

    @property
    def is_spare(self) -> bool:
        """Whether it is a spare that is written."""
        return self.target.startswith(_layout.SPARES)


class Mended(NamedTuple):
    """What was written, or would be.

    Attributes:
        manifests: Ids of the snapshots whose manifests were put back.
        spares: Ids of those whose spares were written.
        warnings: Why some could not be.
    """

    manifests: tuple[str, ...]
    spares: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def mend_task(store: Store, wanted: str | None, now: datetime, *, dry_run: bool) -> Task[Mended]:
    """Puts back manifests that are lost or damaged, and writes spares that are.

    Args:
        store: The repository.
        wanted: Id of the only snapshot to look at; None: all of them.
        now: The service's time.
        dry_run: Only find out what could be done.

    Raises:
        RepositoryLockedError: Such a snapshot is being deleted.
    """
    witnesses = yield from _spares.witnesses_task(store)
    ids = yield from store.snapshot_ids()
    lost = yield from _spares.lost_task(store, witnesses, ids)
    candidates = [*ids, *(item.snapshot_id for item in lost if item.has_spare)]
    if wanted is not None:
        candidates = [item for item in candidates if item == wanted]
    found: list[_Work | None] = yield Gather(
        (_examine(store, item) for item in candidates), _READERS
    )
    manifests = [item for item in found if item is not None and not item.is_spare]
    spares = [item for item in found if item is not None and item.is_spare]
    warnings = []
    if not dry_run:
        manifests = yield from _write_all(store, manifests, now)
        try:
            spares = yield from _write_all(store, spares, now)
        except (AccessDeniedError, FormatError) as error:
            # Data is more urgent.
            spares = []
            warnings.append(unwritten(error))
    return Mended(
        tuple(sorted(item.snapshot_id for item in manifests)),
        tuple(item.snapshot_id for item in spares),
        tuple(warnings),
    )


def unwritten(error: KumoError) -> str:
    """What to say where spares could not be written."""
    is_denied = isinstance(error, AccessDeniedError)
    fix = f": allow s3:PutObject below {_layout.SPARES}" if is_denied else ""
    return (
        "spare manifests could not be written, without which the loss of a manifest is not "
        f"noticed ({error}){fix}"
    )


def write_spares_task(store: Store, ids: Collection[str], now: datetime) -> Task[int]:
    """Writes the spares of snapshots that have none; returns how many it wrote."""
    work = [
        _Work(item, _layout.snapshot_key(item), _layout.spare_key(item), damaged=False)
        for item in sorted(ids)
    ]
    return len((yield from _write_all(store, work, now)))


def _examine(store: Store, snapshot_id: str) -> Task[_Work | None]:
    """What is to be done about a snapshot's two documents."""
    keys = (_layout.snapshot_key(snapshot_id), _layout.spare_key(snapshot_id))
    good = []
    for key in keys:
        good.append((yield from _is_good(store, snapshot_id, key)))
    if all(good) or not any(good):
        return None  # of two that are damaged, none can help the other; verify tells them
    source, target = keys if good[0] else keys[::-1]
    return _Work(snapshot_id, source, target, damaged=False in good)


def _is_good(store: Store, snapshot_id: str, key: str) -> Task[bool | None]:
    """Whether a document can be read; None: there is none."""
    try:
        yield from _spares.read_task(store, snapshot_id, key)
    except NotFoundError:
        return None
    except FormatError:
        return False
    return True


def _write_all(store: Store, work: list[_Work], now: datetime) -> Task[list[_Work]]:
    """Does it, under a lease: who deletes one of these snapshots meanwhile waits for it."""
    if not work:
        return []
    lease = Lease(store, _inflight.SPARE, "the repair of manifests", "Run it again")

    def main() -> Task[list[_Work]]:
        yield from lease.acquire(snapshots=sorted(item.snapshot_id for item in work))
        return (yield from lease.keep(_write_each(store, lease, work, now)))

    return (yield from lease.during(main()))


def _write_each(store: Store, lease: Lease, work: list[_Work], now: datetime) -> Task[list[_Work]]:
    # After the lease was written: a deletion that does not see it is seen here.
    leases = yield from _inflight.list_leases(store)
    _, condemned = yield from _inflight.read_sweeps(store, leases.values())
    for item in work:
        if item.snapshot_id in condemned and not item.is_spare:
            raise RepositoryLockedError(
                f"{store.location}: snapshot {item.snapshot_id} is being deleted, or who was to "
                "delete it was killed. If it is to go, forget it once more (kumo-crt forget); if "
                "its manifest is to come back, run kumo-crt prune half an hour after that, and "
                "then this again"
            )
    wanted = [item for item in work if item.snapshot_id not in condemned]
    if any(item.is_spare for item in wanted):
        # Its backup may still take a snapshot back, and writes the spare itself after that.
        kinds = (_inflight.BACKUP,)
        running = yield from _inflight.read_unfinished(store, leases.values(), now, kinds)
        wanted = [item for item in wanted if item.snapshot_id not in running or not item.is_spare]
    outages = store.context.retries.outages
    try:
        done: list[bool] = yield Gather(
            (_write(store, lease, item, now) for item in wanted), _READERS
        )
    except BaseException:
        lease.leave()  # what was sent may still arrive
        raise
    if store.context.retries.outages != outages:
        lease.leave()
    return [item for item, is_done in zip(wanted, done, strict=True) if is_done]


def _write(store: Store, lease: Lease, item: _Work, now: datetime) -> Task[bool]:
    try:
        document, _ = yield from _spares.read_task(store, item.snapshot_id, item.source)
    except NotFoundError:
        return False  # the snapshot has been deleted
    there: HeadResult | None = None
    if item.damaged:
        there = yield from head_task(store.context, store.bucket, store.location.key(item.target))
        if (yield from _is_good(store, item.snapshot_id, item.target)):
            return False  # it has been put right since
        yield from put_aside(store, item.target, there, now)
    options = PutOptions(
        checksum=True,
        headers={"Content-Type": "application/json", **store.document_headers()},
        if_match=there.etag if there is not None else None,
        if_none_match="*" if there is None else None,
    )
    lease.check()
    key = store.location.key(item.target)
    try:
        result = yield from put_task(
            store.context, store.bucket, key, MemorySource(document), options
        )
    except PreconditionFailedError:
        return False  # somebody else was faster
    # Written late, as the machine stood still: what nobody protected may have been deleted.
    if lease.outlived(result.server_time) and not (yield from store.has(item.source)):
        yield from delete_task(store.context, store.bucket, key)
        return False
    return True
