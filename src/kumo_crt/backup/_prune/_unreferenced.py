"""Finds the data objects that no snapshot needs, and says which of them may go by now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _census, _inflight
from kumo_crt.backup._coordination._census import Census, Mark
from kumo_crt.backup._coordination._clock import ServiceClock
from kumo_crt.backup._store._store import Store
from kumo_crt.s3._results import ObjectInfo


@dataclass(slots=True)
class Unreferenced:
    """Data objects that no snapshot names, nor a running backup."""

    due: list[ObjectInfo] = field(default_factory=list)
    pending: list[ObjectInfo] = field(default_factory=list)
    # Those of `pending` that no mark has.
    unmarked: list[ObjectInfo] = field(default_factory=list)
    protected_objects: int = 0
    protected_bytes: int = 0
    # Bytes of bundles that are needed, and that are not needed themselves.
    wasted_bytes: int = 0
    # When the last of `pending` becomes due.
    until: datetime | None = None


def find_task(
    store: Store,
    census: Census,
    removed: Iterable[str],
    protection: _inflight.Protection,
    marks: list[Mark],
    clock: ServiceClock,
) -> Task[Unreferenced]:
    """Lists all data objects, and sorts out those that nobody names.

    Args:
        store: The repository.
        census: The snapshots that exist.
        removed: Those of them that are to go.
        protection: What running backups may come to name.
        marks: What earlier prunes have found.
        clock: The service's time.
    """
    found = Unreferenced()
    oldest: dict[str, datetime] = {}
    for mark in sorted(marks, key=lambda mark: mark.written, reverse=True):
        oldest.update(dict.fromkeys(mark.objects, mark.written))
    pages = yield from _census.list_data(store)
    live = census.live(removed)
    used = census.used_parts(removed)
    start = len(store.location.prefix)
    grace = _inflight.grace()
    now = clock.now()
    for item in _census.data_objects(store, pages):
        if item.key[start:] in live:
            if (parts := used.get(item.key[start:])) is not None:
                found.wasted_bytes += max(0, item.size - parts)
            continue
        if protection.covers(item.key, item.last_modified):
            found.protected_objects += 1
            found.protected_bytes += item.size
            continue
        marked = oldest.get(_inflight.object_hash(item.key))
        # An object that is newer than its mark is another one.
        if marked is None or item.last_modified is None or item.last_modified > marked:
            found.pending.append(item)
            found.unmarked.append(item)
        elif now - marked > grace:
            found.due.append(item)
        else:
            found.pending.append(item)
            found.until = max(found.until or now, marked + grace)
    if found.unmarked:
        found.until = now + grace
    return found
