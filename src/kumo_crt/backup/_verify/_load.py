"""Reads the manifests that a verification is about, and their spares."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _spares
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._reports import Problem
from kumo_crt.backup._store._objects import DataObject, objects_of
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import FormatError, NotFoundError

_AT_ONCE = 8
_BRING_BACK = "Bring it back from a version or a copy, or forget the snapshot"


@dataclass(slots=True)
class Known:
    """What is to be checked."""

    snapshots: list[Snapshot] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def objects(self) -> list[DataObject]:
        """Every data object once, newest snapshots first."""
        return objects_of(file for item in reversed(self.snapshots) for file in item.files)


class _Loaded(NamedTuple):
    """A snapshot, if its manifest or its spare can be read, and what is wrong with them."""

    snapshot: Snapshot | None = None
    problem: Problem | None = None
    is_bare: bool = False


def load_task(store: Store, wanted: str | None, *, compare: bool) -> Task[Known]:
    """Reads manifests; one that is damaged or lost is a problem, not the end.

    Args:
        store: The repository.
        wanted: Id of a snapshot; None: all of them.
        compare: Read their spares, too.

    Raises:
        SnapshotNotFoundError: There is no such snapshot, or none at all.
    """
    known = Known()
    ids = [] if wanted is None else [wanted]
    listed: frozenset[str] = frozenset()
    if wanted is None:
        witnesses: _spares.Witnesses = yield from _spares.witnesses_task(store)
        listed = frozenset(witnesses.spares)
        ids = yield from store.snapshot_ids()
        for lost in (yield from _spares.lost_task(store, witnesses, ids)):
            if lost.has_spare:
                ids.append(lost.snapshot_id)
            else:
                problem = f"{lost.message(store)}. {lost.remedy}"
                known.problems.append(_problem(lost.snapshot_id, problem))
    tasks = (_load(store, i, listed, compare=compare, wanted=wanted) for i in sorted(ids))
    found: list[_Loaded] = yield Gather(tasks, _AT_ONCE)
    known.problems += (item.problem for item in found if item.problem is not None)
    known.snapshots += (item.snapshot for item in found if item.snapshot is not None)
    bare = [item.snapshot.id for item in found if item.snapshot is not None and item.is_bare]
    if bare:
        known.warnings.append(
            f"{store.url(_layout.spare_key(bare[0]))}: the spare of a manifest is missing "
            f"({len(bare)} such): it was lost, or its backup was killed before it wrote it. The "
            "next prune writes it, and so does kumo-crt repair: after a backup that was killed, "
            "from half an hour later on"
        )
    if not known.snapshots and not known.problems:
        raise _layout.no_snapshot_yet(store.location)
    return known


def _problem(snapshot_id: str, message: str, key: str | None = None) -> Problem:
    key = key or _layout.snapshot_key(snapshot_id)
    return Problem(snapshot_id, "", key, "manifest", message, snapshots=(snapshot_id,))


def _load(
    store: Store, snapshot_id: str, listed: Set[str], *, compare: bool, wanted: str | None
) -> Task[_Loaded]:
    trouble: str | None = None
    try:
        snapshot = yield from store.listed_snapshot(snapshot_id)
    except FormatError as error:
        snapshot, trouble = None, str(error)
    if snapshot is not None:
        if compare:
            return (yield from _compared(store, snapshot))
        is_there = snapshot_id in listed or (
            yield from store.is_listed(_layout.spare_key(snapshot_id))
        )
        return _Loaded(snapshot, is_bare=not is_there)
    spare = _layout.spare_key(snapshot_id)
    lost = f"{store.url(_layout.snapshot_key(snapshot_id))}: the manifest is lost"
    try:
        _, snapshot = yield from _spares.read_task(store, snapshot_id, spare)
    except NotFoundError:
        if trouble is None:  # there is neither: it has been deleted
            if wanted is not None:
                raise _layout.no_snapshot(store.location, snapshot_id) from None
            return _Loaded()
        return _Loaded(None, _problem(snapshot_id, f"{trouble}; there is no spare. {_BRING_BACK}"))
    except FormatError as error:
        message = f"{trouble or lost}. Its spare is of no use, either: {error}. {_BRING_BACK}"
        return _Loaded(None, _problem(snapshot_id, message))
    message = f"{trouble or lost}. Its spare is sound: {_spares.MEND}"
    return _Loaded(snapshot, _problem(snapshot_id, message))


def _compared(store: Store, snapshot: Snapshot) -> Task[_Loaded]:
    """A snapshot whose manifest is sound, with what is wrong with its spare."""
    key = _layout.spare_key(snapshot.id)
    try:
        _, spare = yield from _spares.read_task(store, snapshot.id, key)
    except NotFoundError:
        return _Loaded(snapshot, is_bare=True)
    except FormatError as error:
        message = f"{error}: the spare manifest is of no use; {_spares.MEND}"
        return _Loaded(snapshot, _problem(snapshot.id, message, key))
    if spare == snapshot:
        return _Loaded(snapshot)
    message = (
        f"{store.url(key)}: the spare says something else than the manifest, and both look sound: "
        "somebody has replaced one of them. Look which it was, and delete that"
    )
    return _Loaded(snapshot, _problem(snapshot.id, message, key))
