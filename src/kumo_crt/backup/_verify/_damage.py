"""Tells what a damaged object means: which snapshots, which file, which keys."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kumo_crt import _core
from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._reports import Problem
from kumo_crt.backup._store._families import manifest_of, materialise_task, number_of
from kumo_crt.backup._store._fetch import DamagedError
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._verify._job import Outcome
from kumo_crt.exceptions import FormatError, KumoError, NotFoundError

_CONCURRENCY = 8
_log = logging.getLogger("kumo_crt.backup")


@dataclass(frozen=True, slots=True)
class _Range:
    """What of a database a file holds."""

    column_family: str
    smallest: bytes
    largest: bytes


def explain_task(
    store: Store, damaged: Mapping[DataObject, Outcome], known: Iterable[Snapshot]
) -> Task[list[Problem]]:
    """Makes problems of damaged objects; reads every manifest for it, and some MANIFESTs."""
    snapshots = {snapshot.id: snapshot for snapshot in known}
    ids = yield from store.snapshot_ids()
    others = yield Gather(
        (_readable(store, name) for name in ids if name not in snapshots), _CONCURRENCY
    )
    snapshots |= {snapshot.id: snapshot for snapshot in others if snapshot is not None}
    users = _users({item.key for item in damaged}, snapshots)
    ranges: dict[str, Mapping[int, _Range]] = {}
    problems = []
    for item, outcome in damaged.items():
        places = users.get(item.key, {})
        for place in places if outcome.files is None else (f.offset for f in outcome.files):
            # The newest that names it: its MANIFEST is the one that is most likely to be there.
            newest, file = places[place][-1]
            if newest.id not in ranges and file.kind in ("sst", "blob"):
                ranges[newest.id] = yield from _ranges(store, newest)
            found = ranges.get(newest.id, {}).get(number_of(file) or 0)
            names = tuple(snapshot.id for snapshot, _ in places[place])
            problems.append(_problem(item, outcome, file.path, names, found))
        if not places or outcome.files == ():
            # No file is affected, or no snapshot is there any more.
            path = item.files[0].path if outcome.files is None else ""
            names = tuple(sorted({s.id for found in places.values() for s, _ in found}))
            problems.append(_problem(item, outcome, path, names, None))
    return problems


def _users(
    keys: set[str], snapshots: Mapping[str, Snapshot]
) -> dict[str, dict[int | None, list[tuple[Snapshot, SnapshotFile]]]]:
    """Which snapshots name what is at a place of an object, oldest first."""
    users: dict[str, dict[int | None, list[tuple[Snapshot, SnapshotFile]]]] = {}
    for _, snapshot in sorted(snapshots.items()):
        for file in snapshot.files:
            if file.key in keys:
                found = users.setdefault(file.key, {}).setdefault(file.offset, [])
                if not found or found[-1][0] is not snapshot:
                    found.append((snapshot, file))
    return users


def _problem(
    item: DataObject,
    outcome: Outcome,
    path: str,
    snapshots: tuple[str, ...],
    found: _Range | None,
) -> Problem:
    return Problem(
        snapshot=snapshots[-1] if snapshots else "",
        path=path,
        key=item.key,
        kind=outcome.kind or "",
        message=outcome.message,
        snapshots=snapshots,
        column_family=found.column_family if found is not None else None,
        smallest_key=found.smallest if found is not None else None,
        largest_key=found.largest if found is not None else None,
    )


def _readable(store: Store, snapshot_id: str) -> Task[Snapshot | None]:
    try:
        return (yield from store.snapshot(snapshot_id))
    except (FormatError, NotFoundError):
        return None


def _ranges(store: Store, snapshot: Snapshot) -> Task[Mapping[int, _Range]]:
    """Key ranges by file number, as the snapshot's MANIFEST has them; nothing if it is damaged."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "MANIFEST"
        if manifest_of(snapshot).sealed is not None and store.key is None:
            _log.warning(
                "snapshot %s: the key ranges of its files can only be told with the repository's "
                "encryption key",
                snapshot.id,
            )
            return {}
        try:
            yield from materialise_task(store, manifest_of(snapshot), path, None)
            state = _core.read_manifest(path)
        except (DamagedError, KumoError, _core.RocksDBFormatError) as error:
            _log.warning(
                "snapshot %s: the key ranges of its files are not known: %s", snapshot.id, error
            )
            return {}
    return ranges_of(state)


def ranges_of(state: _core.ManifestState) -> Mapping[int, _Range]:
    """Key ranges by file number.

    Of a blob file it is that of all tables that may refer to it: of its column family, with an
    oldest blob file that is not newer.
    """
    names = {family.id: family.name for family in state.column_families}
    found = {
        sst.number: _Range(names[sst.column_family_id], sst.smallest_key, sst.largest_key)
        for sst in state.sst_files
    }
    for blob in state.blob_files:
        tables = [
            sst
            for sst in state.sst_files
            if sst.column_family_id == blob.column_family_id
            and 0 < sst.oldest_blob_file_number <= blob.number
        ]
        if tables:
            found[blob.number] = _Range(
                names[blob.column_family_id],
                min(sst.smallest_key for sst in tables),
                max(sst.largest_key for sst in tables),
            )
    return found
