"""Finds the newest snapshots, and which data objects they prove to be there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kumo_crt._engine import Task
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import FormatError
from kumo_crt.s3._results import ObjectInfo

_log = logging.getLogger("kumo_crt.backup")

# Newest manifests in which files are looked for; more would only find what has been long gone.
_MANIFESTS_TO_SEARCH = 4
# A listing begins at a time: these ages are tried, so that old snapshots are listed only where
# there are no newer ones. The first fits daily backups.
_WINDOWS = (timedelta(days=4), timedelta(days=64), None)
_NARROWEST = timedelta(minutes=1)
_ENOUGH = 1000


@dataclass(slots=True, eq=False, repr=False)
class Known:
    """Data objects that manifests name.

    Attributes:
        newest: Id of the newest snapshot.
        files: By the names that files have by themselves.
        sources: Id of the snapshot that named each of them.
        archives: Keys of archives; nothing relies on them, but they are likely to be there.
        read: Ids of snapshots whose manifests have been read.
    """

    newest: str | None = None
    files: dict[str, SnapshotFile] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    archives: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    def add(self, snapshot: Snapshot, same_database: bool) -> None:
        """Takes in a manifest; those before it are newer and stay."""
        for file in snapshot.files:
            if file.key is None:
                continue
            if _layout.is_archive(file.key):
                # It belongs to its own snapshots alone, and goes with them.
                self.archives.add(file.key)
                continue
            object_name = file.key.rpartition("/")[2]
            name = _layout.plain_name(file.key)
            if name != object_name and not same_database:
                # A variant holds this database's file; another's may be another file of that name.
                continue
            name = file.name or name
            if name not in self.files:
                self.files[name] = file
                self.sources[name] = snapshot.id


def find_known(store: Store, db_id: str, now: datetime) -> Task[Known]:
    """Reads the newest manifest of this database; if there is none, some of others."""
    known = Known()
    others: list[str] = []
    for window in _WINDOWS:
        ids = yield from _ids_within(store, now, window)
        if ids and known.newest is None:
            known.newest = ids[-1]
        likely = [i for i in reversed(ids) if _layout.may_be_of(i, db_id)]
        if (yield from _read(store, likely, known, db_id)):
            return known
        others.extend(sorted(set(ids).difference(likely, others), reverse=True))
        if len(others) >= _MANIFESTS_TO_SEARCH and window != _WINDOWS[0]:
            break
    yield from _read(store, others, known, db_id)
    return known


def _read(store: Store, ids: Sequence[str], known: Known, db_id: str) -> Task[bool]:
    """Takes in some manifests; true if no more are to be read."""
    for snapshot_id in ids:
        if snapshot_id in known.read:
            continue
        if len(known.read) == _MANIFESTS_TO_SEARCH:
            return True
        known.read.add(snapshot_id)
        try:
            snapshot = yield from store.listed_snapshot(snapshot_id)
        except FormatError as error:
            # Damage of old snapshots must not keep a new one from being made; verify tells.
            _log.warning("not looking for known files in a damaged manifest: %s", error)
            continue
        if snapshot is None:
            continue
        known.add(snapshot, snapshot.db_id == db_id)
        if snapshot.db_id == db_id and snapshot.single_object is None:
            return True
    return False


def latest_id(store: Store, now: datetime) -> Task[str | None]:
    """Id of the newest snapshot."""
    for window in _WINDOWS:
        ids = yield from _ids_within(store, now, window)
        if ids:
            return ids[-1]
    return None


def _ids_within(store: Store, now: datetime, window: timedelta | None) -> Task[list[str]]:
    """Ids of a window's newest snapshots, in order; where it has very many, not of all."""
    page, token = yield from store.list_page(_layout.SNAPSHOTS, _start(now, window))
    while token is not None and window is not None and window > _NARROWEST:
        window /= 8
        narrower, following = yield from store.list_page(_layout.SNAPSHOTS, _start(now, window))
        if not any(_ids(store, narrower)):
            break
        page, token = narrower, following
    found = list(_ids(store, page))
    while token is not None:
        page, token = yield from store.list_page(_layout.SNAPSHOTS, None, token)
        found = (found + list(_ids(store, page)))[-_ENOUGH:]
    return sorted(found)


def _start(now: datetime, window: timedelta | None) -> str | None:
    """What ids of the window sort after."""
    if window is None:
        return None
    return f"{_layout.SNAPSHOTS}{(now - window).astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _ids(store: Store, page: list[ObjectInfo]) -> Iterator[str]:
    start = len(store.location.key(_layout.SNAPSHOTS))
    names = (item.key[start:].removesuffix(".json") for item in page)
    return (name for name in names if _layout.is_snapshot_id(name))
