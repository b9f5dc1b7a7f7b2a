"""Restoring some of the column families: which files they need, and what has to be rewritten.

RocksDB keeps what belongs to which column family in its MANIFEST alone. A restore of some of them
brings only their table and blob files, and a MANIFEST with further records that drop the others, as
RocksDB itself would have written them. The write-ahead logs are common to all column families and
come whole: RocksDB's recovery leaves out what belongs to those that are gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt._engine import Meter, Task
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._store._fetch import DamagedError, fetch_task
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import IntegrityError, RepositoryError

_SECTION = re.compile(r'\[(?:CFOptions|TableOptions/\w+) "(.*)"\]')


class Selection(NamedTuple):
    """What a restore of some column families is made of.

    Attributes:
        files: Files that it needs; MANIFEST and OPTIONS are among them.
        names: The column families, with ``default``, which every database has.
        keep: Ids of those that were asked for.
        state: The whole MANIFEST.
    """

    files: tuple[SnapshotFile, ...]
    names: frozenset[str]
    keep: frozenset[int]
    state: _core.ManifestState


def select_task(
    store: Store, snapshot: Snapshot, wanted: Sequence[str], manifest_path: Path
) -> Task[Selection]:
    """Finds out what the wanted column families need; leaves the whole MANIFEST at a path.

    Raises:
        RepositoryError: The snapshot has no such column family.
        IntegrityError: Its MANIFEST is damaged.
        DamagedError: Its MANIFEST is damaged in the repository.
    """
    manifest = manifest_of(snapshot)
    try:
        yield from materialise_task(store, manifest, manifest_path, None)
    except DamagedError as damage:
        raise DamagedError(damage.kind, f"{manifest.path}: {damage}") from damage
    try:
        state = _core.read_manifest(manifest_path)
    except _core.RocksDBFormatError as error:
        raise IntegrityError(f"snapshot {snapshot.id}: its MANIFEST is damaged: {error}") from error
    ids = {family.name: family.id for family in state.column_families}
    unknown = sorted(set(wanted) - set(ids))
    if unknown or not wanted:
        lacking = f"has no column family {', '.join(map(repr, unknown))}"
        raise RepositoryError(
            f"snapshot {snapshot.id}: {lacking if unknown else 'no column family was named'}: it "
            f"has {', '.join(map(repr, sorted(ids)))}"
        )
    keep = frozenset(ids[name] for name in wanted)
    numbers = {file.number for file in state.sst_files if file.column_family_id in keep}
    numbers |= {file.number for file in state.blob_files if file.column_family_id in keep}
    files = tuple(
        file
        for file in snapshot.files
        if file.kind not in ("sst", "blob") or number_of(file) in numbers
    )
    return Selection(files, frozenset({*wanted, "default"}), keep, state)


def manifest_of(snapshot: Snapshot) -> SnapshotFile:
    """The snapshot's MANIFEST; the reader made sure that there is one."""
    return next(file for file in snapshot.files if file.kind == "manifest")


def number_of(file: SnapshotFile) -> int | None:
    """RocksDB's number of a file."""
    return _core.classify_file(file.path)[1]


def materialise_task(
    store: Store, file: SnapshotFile, path: Path, meter: Meter | None, span: int | None = None
) -> Task[None]:
    """Writes a file of a snapshot, from the repository or from the manifest, to a path."""
    if file.inline is None:
        yield from fetch_task(store, file, path, meter, span)
        return
    path.write_bytes(file.inline)
    if meter is not None:
        meter.add(file.size)


def write_manifest(selection: Selection, whole: Path, target: Path) -> None:
    """Writes the MANIFEST that has only the selected column families.

    Raises:
        IntegrityError: It would not be what was meant.
    """
    logs = [number_of(file) or 0 for file in selection.files if file.kind == "wal"]
    state = _core.keep_column_families(
        whole, target, keep=set(selection.keep), newest_wal=max(logs, default=0)
    )
    there = {number_of(file) for file in selection.files if file.kind in ("sst", "blob")}
    needed = {file.number for file in state.sst_files} | {f.number for f in state.blob_files}
    names = {family.name for family in state.column_families}
    if names != selection.names or not needed <= there:
        raise IntegrityError(f"{target}: the rewritten MANIFEST is not the one that was meant")


def rewrite_options(path: Path, names: frozenset[str]) -> None:
    """Takes other column families out of an OPTIONS file: bindings open what they find there."""
    from kumo_crt.backup._capture._options import unescaped  # of few restores

    kept: list[str] = []
    keeping = True
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line in file:
            section = _SECTION.match(line.strip())
            if section is not None:
                keeping = unescaped(section[1]) in names
            elif line.startswith("["):
                keeping = True
            if keeping:
                kept.append(line)
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(kept)
