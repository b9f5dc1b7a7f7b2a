"""Objects in archive tiers: which are, and asking for copies that can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format._results import Snapshot, SnapshotFile, StoredObject
from kumo_crt.backup._reports import ThawReport
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import ArchivedError, NotFoundError
from kumo_crt.s3._bucket import restore_object_task
from kumo_crt.s3._head import HeadResult, head_task

TIERS = ("Standard", "Bulk", "Expedited")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_CONCURRENCY = 16
_ONGOING = re.compile(r'ongoing-request\s*=\s*"true"')

State = Literal["online", "archived", "ongoing", "thawed", "missing"]


def state_of(found: HeadResult) -> State:
    """Whether an object can be read now."""
    if found.storage_class not in _ARCHIVES and found.archive_status is None:
        return "online"
    if found.restore is None:
        return "archived"
    return "ongoing" if _ONGOING.search(found.restore) else "thawed"


def _look(store: Store, stored: StoredObject) -> Task[tuple[StoredObject, State]]:
    where = store.location.key(stored.key)
    try:
        found = yield from head_task(store.context, store.bucket, where)
    except NotFoundError:
        return stored, "missing"
    return stored, state_of(found)


def states_task(
    store: Store, files: Iterable[SnapshotFile]
) -> Task[list[tuple[StoredObject, State]]]:
    """Looks at every data object of some files, once."""
    objects = dict.fromkeys(file.stored for file in files if file.key is not None)
    result: list[tuple[StoredObject, State]] = yield Gather(
        (_look(store, stored) for stored in objects), _CONCURRENCY
    )
    return result


def thaw_task(
    store: Store,
    name: str,
    snapshots: Iterable[Snapshot],
    days: int,
    tier: str,
    *,
    dry_run: bool = False,
) -> Task[ThawReport]:
    """Asks for copies of all archived objects of snapshots; with ``dry_run``, only counts them."""
    states = yield from states_task(store, (f for found in snapshots for f in found.files))
    archived = [stored for stored, state in states if state == "archived"]
    yield Gather(
        (
            restore_object_task(
                store.context, store.bucket, store.location.key(stored.key), days, tier
            )
            for stored in archived
            if not dry_run
        ),
        _CONCURRENCY,
    )
    counts = {
        name: sum(1 for _, state in states if state == name) for name in ("ongoing", "thawed")
    }
    return ThawReport(
        snapshot=name,
        ready=not archived and not counts["ongoing"],
        requested=len(archived),
        requested_bytes=sum(stored.size for stored in archived),
        ongoing=counts["ongoing"],
        thawed=counts["thawed"],
        objects=len(states),
        days=days,
        tier=tier,
    )


def archived_error_task(store: Store, snapshot: Snapshot) -> Task[ArchivedError]:
    """What to say when an object of a snapshot turned out to be archived."""
    states = yield from states_task(store, snapshot.files)
    archived = [stored for stored, state in states if state == "archived"]
    ongoing = sum(1 for _, state in states if state == "ongoing")
    message = (
        f"snapshot {snapshot.id}: {len(archived)} of {len(states)} objects "
        f"({sum(item.size for item in archived)} bytes) are archived, {ongoing} are being thawed. "
        "Ask for readable copies (Repository.request_thaw, --request-thaw DAYS), and run this "
        "again when they are there: minutes to hours, up to two days for the deepest archive"
    )
    return ArchivedError("InvalidObjectState", 403, message)
