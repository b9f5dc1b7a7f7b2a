"""Spare manifests: what tells that a manifest was lost, and brings it back (docs/format.md)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from kumo_crt._engine import Gather, Sleep, Task
from kumo_crt.backup._coordination import _inflight, _pins
from kumo_crt.backup._format import _layout, _manifest
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    AccessDeniedError,
    ChecksumMismatchError,
    FormatError,
    NotFoundError,
)
from kumo_crt.s3._results import ObjectInfo

_AT_ONCE = 8
# Seconds that a pin takes at most that has to be taken away again.
_MOMENT = 1.0
_log = logging.getLogger("kumo_crt.backup")

MEND = "run kumo-crt repair (Repository.repair, which needs no source for it): it puts it back"
CHOOSE = (
    "Choose another snapshot (kumo-crt snapshots tells them), or bring this manifest back from a "
    "version or a copy"
)


class Witnesses(NamedTuple):
    """What is there of snapshots beside their manifests, by their ids.

    Who compares it with manifests lists it before them: it comes later, and goes first.
    """

    pins: Mapping[str, ObjectInfo]
    spares: Mapping[str, ObjectInfo]

    def without_new_pins(self, now: datetime) -> Witnesses:
        """The same without pins whose owners may be about to take them away again."""
        oldest = now - _inflight.grace()
        old = {i: p for i, p in self.pins.items() if p.last_modified and p.last_modified < oldest}
        return self._replace(pins=old)


def witnesses_task(store: Store) -> Task[Witnesses]:
    """Lists pins and spares."""
    pins = yield from _pins.list_pins(store)
    spares = by_id(store, (yield from store.list_all(_layout.SPARES)))
    return Witnesses(pins, spares)


def by_id(store: Store, found: Collection[ObjectInfo]) -> dict[str, ObjectInfo]:
    """What was listed below ``spares/``, by the ids of the snapshots."""
    start = len(store.location.key(_layout.SPARES))
    named = {item.key[start:].removesuffix(".json"): item for item in found}
    return {name: item for name, item in named.items() if _layout.is_snapshot_id(name)}


class Lost(NamedTuple):
    """A snapshot whose manifest is gone, and was not deleted by this tool."""

    snapshot_id: str
    has_spare: bool

    def message(self, store: Store) -> str:
        """What to say of it."""
        where = store.url(_layout.snapshot_key(self.snapshot_id))
        if self.has_spare:
            spare = store.url(_layout.spare_key(self.snapshot_id))
            return f"{where}: the manifest is lost; its spare is there ({spare})"
        return f"{where}: the manifest is gone, and the snapshot is pinned: it cannot be restored"

    @property
    def fix(self) -> str:
        """What to do about it."""
        if self.has_spare:
            return (
                f"{MEND}; or, if the snapshot is to go, forget it (kumo-crt forget): nothing is "
                "pruned before that"
            )
        return (
            "bring the manifest back from a version or a copy; or, if the snapshot was deleted on "
            "purpose, unpin it (kumo-crt unpin): nothing is pruned before that"
        )

    @property
    def remedy(self) -> str:
        """The same as a sentence."""
        return self.fix[0].upper() + self.fix[1:]


def refusal(store: Store, lost: Sequence[Lost]) -> FormatError:
    """Why a prune deletes nothing."""
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    return FormatError(
        f"{lost[0].message(store)}{more}. Nobody knows which data it named: nothing was deleted. "
        f"{lost[0].remedy}"
    )


def lost_task(store: Store, witnesses: Witnesses, ids: Collection[str]) -> Task[list[Lost]]:
    """Snapshots that were committed, and whose manifests are gone; listed in that order."""

    def look(snapshot_id: str) -> Task[Lost | None]:
        if (yield from store.has(_layout.snapshot_key(snapshot_id))):
            return None  # it has come since
        # Who deletes a snapshot deletes its spare before its manifest, and its pin before both.
        if (yield from store.has(_layout.spare_key(snapshot_id))):
            return Lost(snapshot_id, has_spare=True)
        if snapshot_id in witnesses.pins and (yield from _pins.is_pinned(store, snapshot_id)):
            # Who has pinned what was just being deleted takes the pin away again.
            yield Sleep(_MOMENT)
            if (yield from _pins.is_pinned(store, snapshot_id)):
                return Lost(snapshot_id, has_spare=False)
        return None

    suspects = (witnesses.pins.keys() | witnesses.spares.keys()) - set(ids)
    found: list[Lost | None] = yield Gather(map(look, sorted(suspects)), _AT_ONCE)
    return [item for item in found if item is not None]


def read_task(store: Store, snapshot_id: str, key: str) -> Task[tuple[bytes, Snapshot]]:
    """Reads a manifest or a spare, which is as good.

    Raises:
        NotFoundError: There is none.
        FormatError: It is damaged.
    """
    where = store.url(key)
    try:
        document, _ = yield from store.read(key)
    except ChecksumMismatchError as error:
        raise FormatError(f"{where}: is damaged: {error}") from error
    ours = store.terms.repository_id if store.terms is not None else None
    return bytes(document), _manifest.decode_snapshot(document, where, snapshot_id, store.key, ours)


def instead_task(
    store: Store, snapshot_id: str, error: NotFoundError | FormatError
) -> Task[tuple[Snapshot, str]]:
    """Reads a spare in the place of a manifest that could not be read.

    Returns:
        The snapshot, and what to tell of its manifest.

    Raises:
        NotFoundError: There is neither: there is no such snapshot.
        FormatError: The spare is of no use, either.
    """
    is_lost = isinstance(error, NotFoundError)
    where = store.url(_layout.snapshot_key(snapshot_id))
    trouble = f"{where}: the manifest is lost" if is_lost else str(error)
    try:
        _, snapshot = yield from read_task(store, snapshot_id, _layout.spare_key(snapshot_id))
    except NotFoundError:
        if is_lost:
            raise error from None
        raise FormatError(f"{trouble}; it has no spare. {CHOOSE}") from error
    except AccessDeniedError as second:
        # Whoever may read manifests only learns what they tell.
        if is_lost:
            _log.warning("whether a manifest was lost is not known: %s", second)
            raise error from None
        raise FormatError(f"{trouble}; its spare may not be read ({second}). {CHOOSE}") from error
    except FormatError as second:
        raise FormatError(
            f"{trouble}. Its spare is of no use, either: {second}. {CHOOSE}"
        ) from error
    warning = f"{trouble}. Its spare is sound, and was used: {MEND}"
    _log.warning("%s", warning)
    return snapshot, warning
