"""Finds snapshots, also those whose manifests are lost: one, the newest, all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._store import _known
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import AccessDeniedError, FormatError, NotFoundError

# What is told of a manifest that cannot be read: the snapshot's id, and why.
OnDamage = Callable[[str, FormatError], object]
_AT_ONCE = 8


def find_task(store: Store, snapshot_id: str) -> Task[tuple[Snapshot, str | None]]:
    """Reads a snapshot's manifest or, if that is lost or damaged, its spare.

    Returns:
        The snapshot, and what to tell of its manifest, if it was the spare.

    Raises:
        SnapshotNotFoundError: There is no such snapshot.
        FormatError: Neither of them can be read.
    """
    try:
        return (yield from store.snapshot(snapshot_id)), None
    except (NotFoundError, FormatError) as error:
        from kumo_crt.backup._coordination import _spares  # rarely needed

        try:
            return (yield from _spares.instead_task(store, snapshot_id, error))
        except NotFoundError:
            raise _layout.no_snapshot(store.location, snapshot_id) from None


def newest_task(store: Store) -> Task[str]:
    """Id of the newest snapshot, be its manifest there or lost.

    Raises:
        SnapshotNotFoundError: There is none.
    """
    # This machine's clock is good enough: it decides only where the listing begins.
    newest = yield from _known.latest_id(store, datetime.now(UTC))
    later = yield from _newest_spare(store, newest)
    if later is not None:
        return later
    if newest is None:
        raise _layout.no_snapshot_yet(store.location)
    return newest


def _newest_spare(store: Store, newest: str | None) -> Task[str | None]:
    """Id of the newest snapshot after the newest manifest, by its spare."""
    after = None if newest is None else _layout.spare_key(newest)
    try:
        page, token = yield from store.list_page(_layout.SPARES, after)
    except AccessDeniedError:
        return None  # whoever may only read what snapshots need may restore
    if not page:
        return None
    from kumo_crt.backup._coordination import _spares  # rarely needed

    while token is not None:
        more, token = yield from store.list_page(_layout.SPARES, None, token)
        page += more
    for snapshot_id in sorted(_spares.by_id(store, page), reverse=True):
        if (yield from store.has_snapshot(snapshot_id)):
            return snapshot_id
    return None


def all_task(store: Store, on_damage: OnDamage | None) -> Task[list[Snapshot]]:
    """Reads all manifests, oldest first; what is lost or damaged, is told.

    Raises:
        FormatError: A manifest is, and there is nobody to tell.
    """
    from kumo_crt.backup._coordination import _spares  # restores do not need it

    def damaged(snapshot_id: str, error: FormatError) -> None:
        if on_damage is None:
            raise error
        on_damage(snapshot_id, error)

    def read(snapshot_id: str) -> Task[Snapshot | None]:
        try:
            return (yield from store.listed_snapshot(snapshot_id))
        except FormatError as error:
            damaged(snapshot_id, error)
            return None

    witnesses = yield from _spares.witnesses_task(store)
    ids = yield from store.snapshot_ids()
    for lost in (yield from _spares.lost_task(store, witnesses, ids)):
        damaged(lost.snapshot_id, FormatError(f"{lost.message(store)}. {lost.remedy}"))
    found: list[Snapshot | None] = yield Gather(map(read, ids), _AT_ONCE)
    there = (item for item in found if item is not None)
    return [replace(item, pinned=item.id in witnesses.pins) for item in there]
