"""Snapshots that are pinned, and the deletion of one snapshot."""

from __future__ import annotations

from datetime import datetime

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._coordination._clock import ServiceClock
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._format import _documents, _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import (
    FormatError,
    PreconditionFailedError,
    RepositoryError,
    RepositoryLockedError,
)
from kumo_crt.s3._deletions import delete_task
from kumo_crt.s3._results import ObjectInfo

PINS = "pins/"
# A pin is stored twice, and either counts: one that is lost must not unpin its snapshot.
SPARE_PINS = f"{_layout.SPARES}{PINS}"
_FOLDERS = (PINS, SPARE_PINS)


def pin_keys(snapshot_id: str) -> tuple[str, ...]:
    """Keys of a snapshot's pin, below the repository's prefix."""
    return tuple(f"{folder}{snapshot_id}.json" for folder in _FOLDERS)


def list_pins(store: Store) -> Task[dict[str, ObjectInfo]]:
    """Pins by the ids of their snapshots, which need not exist."""
    pins, spares = yield from _list_both(store)
    return spares | pins


def list_halves(store: Store) -> Task[list[str]]:
    """Keys of what is missing of pins that are stored but once."""
    pins, spares = yield from _list_both(store)
    lost = (pin_keys(snapshot_id)[snapshot_id in pins] for snapshot_id in pins.keys() ^ spares)
    return sorted(lost)


def _list_both(store: Store) -> Task[list[dict[str, ObjectInfo]]]:
    found: list[dict[str, ObjectInfo]] = []
    for folder in _FOLDERS:
        start = len(store.location.key(folder))
        listed = yield from store.list_all(folder)
        named = {item.key[start:].removesuffix(".json"): item for item in listed}
        found.append({name: item for name, item in named.items() if _layout.is_snapshot_id(name)})
    return found


def decode_pin(document: bytes | memoryview, where: str) -> str:
    """Reads a pin: the id of its snapshot. What counts is its name: nothing else reads it.

    Raises:
        FormatError: It is malformed.
    """
    reader = _documents.Reader(document, where, "kumo-pin")
    snapshot_id = reader.text("snapshot")
    if not where.endswith("/" + pin_keys(snapshot_id)[0]):
        raise reader.error("snapshot", "expected the one that its name tells")
    reader.time("created_at")
    reader.check_crc()
    return snapshot_id


def is_pinned(store: Store, snapshot_id: str) -> Task[bool]:
    """Whether a snapshot is pinned."""
    for key in pin_keys(snapshot_id):
        if (yield from store.has(key)):
            return True
    return False


def pin_task(store: Store, snapshot_id: str, now: datetime, *, dry_run: bool = False) -> Task[None]:
    """Pins a snapshot.

    Raises:
        SnapshotNotFoundError: There is none of this id.
        RepositoryLockedError: It is being deleted.
    """
    # Before it is written: killed after that, the pin of what never was would stop all prunes.
    if not (yield from store.has_snapshot(snapshot_id)):
        raise _layout.no_snapshot(store.location, snapshot_id)
    if dry_run:
        return
    document = {
        "format": "kumo-pin",
        "version": _documents.VERSION,
        "snapshot": snapshot_id,
        "created_at": _documents.time_text(now),
    }
    content = _documents.encode(document)
    ours = []
    for key in pin_keys(snapshot_id):
        try:
            yield from write_new_task(store, key, content)
            ours.append(key)
        except PreconditionFailedError:
            pass  # it is pinned already, or somebody was killed who tried to pin it
    # After the pin was written: a deletion that does not see it is seen here.
    leases = yield from _inflight.list_leases(store)
    _, condemned = yield from _inflight.read_sweeps(store, leases.values())
    is_there = yield from store.has_snapshot(snapshot_id)
    if is_there and snapshot_id not in condemned:
        return
    for key in ours:
        yield from _delete(store, key)
    if not is_there:
        raise _layout.no_snapshot(store.location, snapshot_id)
    raise RepositoryLockedError(
        f"{store.location}: snapshot {snapshot_id} is being deleted, or a prune that was to delete "
        "it was killed: look whether it is still there, and prune once more before you pin it"
    )


def unpin_task(store: Store, snapshot_id: str, *, dry_run: bool = False) -> Task[None]:
    """Takes a snapshot's pin away; succeeds if there is none.

    Raises:
        SnapshotNotFoundError: There is none of this id, nor a pin that one has left.
    """
    if not (yield from is_pinned(store, snapshot_id)):
        if not (yield from store.has_snapshot(snapshot_id)):
            raise _layout.no_snapshot(store.location, snapshot_id)
    elif not dry_run:
        for key in pin_keys(snapshot_id):
            yield from _delete(store, key)


def delete_snapshot_task(
    store: Store, snapshot_id: str, now: datetime, *, dry_run: bool = False
) -> Task[None]:
    """Deletes a snapshot's spare and manifest; its data is left to the next prune.

    Raises:
        SnapshotNotFoundError: There is none of this id.
        RepositoryError: It is pinned.
        RepositoryLockedError: Its backup is still running, or has been killed just now.
        FormatError: What is running cannot be read.
    """
    # In this order: a spare without a manifest tells that the manifest was lost.
    keys = (_layout.spare_key(snapshot_id), _layout.snapshot_key(snapshot_id))
    if not (yield from store.has_snapshot(snapshot_id)):
        raise _layout.no_snapshot(store.location, snapshot_id)
    clock = ServiceClock(now)
    lease = Lease(store, _inflight.SWEEP, "the deletion", "Run it again")

    def work() -> Task[RepositoryError | None]:
        # After the sweep was written: whoever pins the snapshot from now on sees that.
        refusal = yield from _refusal(store, snapshot_id, clock)
        if refusal is not None:
            return refusal  # not raised: nothing was deleted, so the sweep need not stay
        for key in keys:
            lease.check()
            yield from _delete(store, key)
        return None

    if dry_run:
        refusal = yield from _refusal(store, snapshot_id, clock)
    else:
        refusal = yield from lease.sweeping(work(), snapshots=[snapshot_id])
    if refusal is not None:
        raise refusal


def _refusal(store: Store, snapshot_id: str, clock: ServiceClock) -> Task[RepositoryError | None]:
    """Why a snapshot may not be deleted, or why that is not known."""
    if (yield from is_pinned(store, snapshot_id)):
        return RepositoryError(
            f"{store.location}: snapshot {snapshot_id} is pinned: unpin it first, if it is to go"
        )
    leases = yield from _inflight.list_leases(store)
    try:
        unfinished = yield from _inflight.read_unfinished(store, leases.values(), clock.now())
    except FormatError as error:
        return error
    if snapshot_id in unfinished:
        return RepositoryLockedError(
            f"{store.location}: snapshot {snapshot_id}: who makes it has not finished, or was "
            f"killed less than {_inflight.grace().total_seconds() / 60:.0f} minutes ago: delete it "
            "after that"
        )
    return None


def _delete(store: Store, key: str) -> Task[None]:
    yield from delete_task(store.context, store.bucket, store.location.key(key))
