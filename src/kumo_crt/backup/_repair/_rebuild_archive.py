"""Puts an archive together again: from files of databases, and what of it is good."""

from __future__ import annotations

from pathlib import Path

from kumo_crt._engine import Task
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _layout, _names
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._local._room import check_space
from kumo_crt.backup._packing._archive import Archive, Subject
from kumo_crt.backup._packing._members import Known
from kumo_crt.backup._repair._sources import Sources
from kumo_crt.backup._store._fetch import DamagedError, fetch_task
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import FormatError, KumoError, NotFoundError


def rebuild_archive_task(
    store: Store, wanted: DataObject, sources: Sources, scratch: Path
) -> Task[tuple[Archive, Path | None] | None]:
    """An archive as it was, and a file that was taken for it; None if that cannot be had.

    Args:
        store: The repository.
        wanted: The archive's object.
        sources: Where files may be.
        scratch: A directory for what is taken from the archive itself.

    Raises:
        RepositoryError: There is no room for that.
    """
    snapshot = yield from _snapshot_of(store, wanted)
    if snapshot is None:
        return None
    found = {file.path: sources.find(file) for file in snapshot.files if file.inline is None}
    lost = [file for file in snapshot.files if file.inline is None and not found[file.path]]
    check_space(
        scratch,
        sum(file.size for file in lost),
        elsewhere="name another directory for temporary files (TMPDIR)",
        name=str(scratch.parent),
    )
    for file in lost:
        try:
            yield from fetch_task(store, file, scratch / file.path, None)
        except (DamagedError, KumoError):
            return None
    files = []
    names = {}
    for file in snapshot.files:
        source = found.get(file.path) or scratch / file.path
        if file.inline is not None:
            source.write_bytes(file.inline)
        taken = CapturedFile(file.path, file.kind, 0, source, source.stat().st_size)
        files.append(taken)
        names[file.path] = file.name or _names.object_name(taken, snapshot.db_id, store.key)
    subject = Subject(snapshot.db_id, snapshot.sequence_number, snapshot.column_families)
    archive = Archive(subject, files, names, store.key)
    # Each has been compared just now.
    archive.know({file.path: Known(file.crc32c, file.sealed) for file in snapshot.files})
    as_it_was = (
        archive.name == _layout.plain_name(wanted.key)
        and archive.size == wanted.size
        and archive.crc32c() == wanted.stored.crc32c
    )
    return (archive, next(filter(None, found.values()), None)) if as_it_was else None


def _snapshot_of(store: Store, wanted: DataObject) -> Task[Snapshot | None]:
    """A snapshot that is this archive: its manifest has what the object does not tell."""
    for snapshot_id in reversed((yield from store.snapshot_ids())):
        try:
            snapshot: Snapshot = yield from store.snapshot(snapshot_id)
        except (FormatError, NotFoundError):
            continue
        if any(_is_in(file, wanted) for file in snapshot.files):
            return snapshot
    return None


def _is_in(file: SnapshotFile, wanted: DataObject) -> bool:
    return file.key is not None and file.stored == wanted.stored
