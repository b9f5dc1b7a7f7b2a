"""The last steps of a backup: a look at what it relies on, then the manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _inflight, _notices
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._coordination._notices import Notices
from kumo_crt.backup._format import _configuration, _layout, _manifest
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._store._kept import Kept, missing_task
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import (
    AccessDeniedError,
    IntegrityError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._deletions import delete_task

_log = logging.getLogger("kumo_crt.backup")
_COMMIT_ATTEMPTS = 3


class FoundDamagedError(IntegrityError):
    """What a backup needs was found damaged or lost while it ran: another attempt sends it."""


class Reused(NamedTuple):
    """A data object that was there before.

    Attributes:
        file: The file it holds.
        source: Id of the snapshot that proved it to be there; None: it was asked for.
    """

    file: SnapshotFile
    source: str | None


def check_relied_on(
    store: Store,
    lease: Lease,
    reused: list[Reused],
    sweeps: frozenset[str],
    notices: Notices,
    sound: Collection[str],
) -> Task[None]:
    """Makes sure that nothing that was reused has been, or is about to be, deleted.

    The pin makes sure of it already; this is what tells when the pin itself went wrong. And that
    nobody has found any of it damaged meanwhile.

    Args:
        store: The repository.
        lease: The pin.
        reused: What the snapshot will name, and was not sent.
        sweeps: Keys of deletions that were under way when the backup began: it keeps off them.
        notices: Of damage, that it knew when it began.
        sound: Objects that it has looked at itself.

    Raises:
        LeaseExpiredError: The pin lapsed.
        FoundDamagedError: An object was found damaged.
        IntegrityError: An object is gone.
    """
    lease.check()
    listed: _inflight.Listed = yield from _inflight.look(store)
    leases = listed.leases
    if not lease.is_listed(leases):
        raise lease.expired("it has been removed by a prune, or by somebody")
    doubtful: set[str] = set()
    condemned, _ = yield from _inflight.read_sweeps(store, leases.values(), sweeps)
    if condemned:
        keys = (item.file.key or "" for item in reused)
        doubtful.update(key for key in keys if _inflight.object_hash(key) in condemned)
    sources = sorted({item.source for item in reused if item.source is not None})
    gone = yield from gone_snapshots(store, sources)
    doubtful.update(item.file.key or "" for item in reused if item.source in gone)
    unheard = [key for key in listed.notices if key not in notices.parts]
    if unheard:
        found = yield from _notices.read_task(store, unheard)
        relied_on = {item.file.key or "" for item in reused}
        damaged = sorted(relied_on.intersection(found.damaged).difference(sound))
        if damaged:
            raise FoundDamagedError(
                f"{store.url(damaged[0])}: was found damaged while the backup ran ({len(damaged)} "
                "such objects). Nothing was committed: run it again, and they are sent"
            )
    missing = yield from missing_task(
        store, (item.file.stored for item in reused if item.file.key in doubtful)
    )
    if missing:
        raise IntegrityError(
            f"{store.url(missing[0])}: was deleted while the backup ran ({len(missing)} such "
            "objects). Nothing was committed: run it again, and they are sent"
        )


def check_sent(store: Store, kept: Kept, files: Iterable[SnapshotFile]) -> Task[None]:
    """Makes sure that what was sent is there, as far as its answers do not.

    Raises:
        FoundDamagedError: Something is not.
    """
    lost = yield from kept.lost(file.stored for file in files if file.key is not None)
    if lost:
        raise FoundDamagedError(
            f"{store.url(lost[0])}: the service said that it had stored it, and does not have it "
            f"({len(lost)} such objects). Nothing was committed: run it again, and they are sent"
        )


def encode(store: Store, snapshot: Snapshot, config: _configuration.Config, tool: str) -> bytes:
    """A snapshot's manifest, read back as a reader would.

    A manifest that cannot be restored must never be committed.
    """
    document = _manifest.encode_snapshot(
        snapshot, config.repository_id, tool, store.key, _configuration.terms_of(config)
    )
    key = _layout.snapshot_key(snapshot.id)
    _manifest.decode_snapshot(document, store.url(key), snapshot.id, store.key)
    return document


class Committed(NamedTuple):
    """A snapshot that exists, its manifest, and the service's time of that."""

    snapshot: Snapshot
    document: bytes
    at: datetime | None


def commit(
    store: Store,
    lease: Lease,
    draw: Callable[[], Snapshot],
    config: _configuration.Config,
    tool: str,
    tried: list[tuple[str, bytes]],
) -> Task[Committed]:
    """Writes the manifest, under an id that nobody else has; ``draw`` makes one.

    The first of them is in the pin already. What is ``tried`` is noted before: for
    `take_back_tried`.

    Raises:
        IntegrityError: The service says each time that it has it, and does not list it.
        LeaseExpiredError: The pin lapsed.
        PreconditionFailedError: Every id that was drawn was taken.
    """
    for attempt in range(1, _COMMIT_ATTEMPTS + 1):
        snapshot = draw()
        document = encode(store, snapshot, config, tool)
        key = _layout.snapshot_key(snapshot.id)
        if attempt > 1:
            yield from lease.write(_inflight.BACKUP, (), [snapshot.id])
        lease.check()
        tried.append((snapshot.id, document))
        outages = store.context.retries.outages
        try:
            kept = Kept(store)
            result = yield from write_new_task(store, key, document)
            kept.heard(key, result.confirmed)
            visible = kept.is_certain(key) or (yield from store.is_listed(key))
            if not visible:
                # As after the crash of a server that had written the object, and not yet its
                # directory.
                yield from delete_task(store.context, store.bucket, store.location.key(key))
        except PreconditionFailedError:
            # Two backups of the same second drew the same number: nothing of the other's is lost.
            if attempt == _COMMIT_ATTEMPTS:
                raise
            continue
        except BaseException:
            # The manifest may still arrive: until it cannot any more, its data has to be there.
            lease.leave()
            raise
        finally:
            if store.context.retries.outages != outages:
                lease.leave()  # so may one that was sent again as no answer came
        if visible:
            return Committed(snapshot, document, result.server_time)
    raise IntegrityError(
        f"{store.url(key)}: the service said that it had stored it, and does not list it. There is "
        "no snapshot: look at what answers at the endpoint, and run it again"
    )


def check_after(
    store: Store,
    lease: Lease,
    committed: Committed,
    reused: list[Reused],
    sweeps: frozenset[str],
    kept: Kept,
    sent: Iterable[SnapshotFile],
) -> Task[None]:
    """Takes a snapshot back whose data may be gone, if it is, or about to go.

    The service may have been away since it was looked for what was sent. Or the manifest was
    written late: the process may have stood still between its last look at the clock and the write.

    Raises:
        FoundDamagedError: It was taken back: what was sent is not there.
        LeaseExpiredError: It was taken back: what it relied on is not there.
    """
    try:
        yield from check_sent(store, kept, sent)
    except FoundDamagedError:
        yield from _take_back(store, committed.snapshot.id)
        raise
    if not lease.outlived(committed.at):
        return
    # A sweep that is over by now has done what it does; one to come sees the manifest.
    leases = yield from _inflight.list_leases(store)
    condemned, _ = yield from _inflight.read_sweeps(store, leases.values(), sweeps)
    objects = {item.file.stored for item in reused}
    objects.update(file.stored for file in sent if file.key is not None)
    lost = [item.key for item in objects if _inflight.object_hash(item.key) in condemned]
    lost += yield from missing_task(store, objects)
    if lost:
        yield from _take_back(store, committed.snapshot.id)
        raise lease.expired(f"{store.url(min(lost))} has been deleted by a prune")
    _log.warning("the backup committed after its lease was over: nothing it needs was deleted")


def write_spare_task(store: Store, lease: Lease, committed: Committed) -> Task[str | None]:
    """Writes the spare of the manifest, once nobody takes that back any more.

    Returns:
        What to tell if it could not be written: the snapshot exists all the same.
    """
    outages = store.context.retries.outages
    is_settled = False
    try:
        # Without the lease, the snapshot may be deleted before: it would look as if it was lost.
        lease.check()
        yield from lease.keep(_write_spare(store, lease, committed))
        is_settled = True
    except PreconditionFailedError:
        is_settled = True  # somebody was faster
    except KumoError as error:
        is_settled = isinstance(error, AccessDeniedError)
        where = store.url(_layout.spare_key(committed.snapshot.id))
        return (
            f"{where}: the spare of the manifest was not written, and the loss of the manifest "
            f"would not be noticed ({error}). The snapshot is complete; a later prune writes its "
            "spare"
        )
    finally:
        if not is_settled or store.context.retries.outages != outages:
            # It may still arrive, or what was sent before it: until then the manifest has to stay.
            lease.leave()
    return None


def _write_spare(store: Store, lease: Lease, committed: Committed) -> Task[None]:
    key = _layout.spare_key(committed.snapshot.id)
    result = yield from write_new_task(store, key, committed.document)
    # Written late, as the machine stood still: what nobody protected may have been deleted.
    manifest = _layout.snapshot_key(committed.snapshot.id)
    if lease.outlived(result.server_time) and not (yield from store.has(manifest)):
        yield from delete_task(store.context, store.bucket, store.location.key(key))


def take_back_tried(store: Store, tried: Iterable[tuple[str, bytes]]) -> Task[None]:
    """Deletes manifests that were stored while the lease ran out, and nobody knew."""
    for snapshot_id, document in tried:
        key = _layout.snapshot_key(snapshot_id)
        try:
            found, _ = yield from store.read(key)
            if bytes(found) == document:  # and not that of another backup of the same id
                yield from _take_back(store, snapshot_id)
        except NotFoundError:
            continue
        except KumoError as error:
            where = store.url(key)
            _log.warning("%s: may be there, and lack data: verify it (%s)", where, error)


def _take_back(store: Store, snapshot_id: str) -> Task[None]:
    """Deletes a manifest, and the spare that a prune may have written once the lease had lapsed."""
    spare = _layout.spare_key(snapshot_id)
    # Twice: a prune that had read the manifest before may write it in between.
    for key in (spare, _layout.snapshot_key(snapshot_id), spare):
        yield from delete_task(store.context, store.bucket, store.location.key(key))


def gone_snapshots(store: Store, ids: Sequence[str]) -> Task[set[str]]:
    """Those of some snapshots that do not exist any more."""
    there = yield Gather((store.has(_layout.snapshot_key(s)) for s in ids), 4)
    return {item for item, is_there in zip(ids, there, strict=True) if not is_there}
