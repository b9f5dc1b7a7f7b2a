"""Backs up a captured state: sends what the repository does not have, then the manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Gather, Meter, Task, Throttle
from kumo_crt.backup import _commit, _inflight, _known, _layout, _manifest, _names, _unfinished
from kumo_crt.backup._capture import Capture, CapturedFile
from kumo_crt.backup._commit import Reused
from kumo_crt.backup._lease import Lease
from kumo_crt.backup._results import Snapshot, SnapshotFile
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ArchivedError,
    ChecksumMismatchError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._body import FileSource
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions

# Below this, sending a file that may be there already costs less than asking first.
_ASK_FIRST = 1 << 20


@dataclass(slots=True)
class BackupPlan:
    """What a backup is to do, and what it has done so far."""

    store: Store
    capture: Capture
    config: _manifest.Config
    created_at: datetime
    tags: Mapping[str, str]
    tool: str
    concurrency: int
    progress: Callable[[int, int], object] | None = None
    throttle: Throttle | None = None
    dry_run: bool = False
    uploaded: int = 0
    reused: int = 0
    # Names of the files' data objects, by path; entries of the tables, where they say so.
    names: dict[str, str] = field(default_factory=dict)
    entries: list[int | None] = field(default_factory=list)
    known: _known.Known = field(default_factory=_known.Known)
    # What a prune is deleting: its names are not used.
    condemned: frozenset[str] = frozenset()
    sweeps: frozenset[str] = frozenset()
    relied_on: list[Reused] = field(default_factory=list)
    # Uploads that killed backups have left, by key.
    unfinished: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def backup_task(plan: BackupPlan) -> Task[Snapshot]:
    """Runs a plan; the snapshot exists when this has returned, and not before."""
    # Before anything is asked of the repository: the pin has to name what may be relied on.
    for file in plan.capture.files:
        if not _is_inline(file):
            plan.names[file.path], entries = _names.examine(file, plan.capture.db_id)
            if file.kind == "sst":
                plan.entries.append(entries)
    if plan.dry_run:
        return (yield from _send_all(plan, None))
    lease = Lease(
        plan.store,
        _inflight.BACKUP,
        "the backup",
        "A prune may have deleted what it relies on, so nothing was committed: run it again, and "
        "what was sent already is found",
    )
    return (yield from lease.during(_pinned(plan, lease)))


def _pinned(plan: BackupPlan, lease: Lease) -> Task[Snapshot]:
    hashes = {_inflight.object_hash(_layout.data_key(name)) for name in plan.names.values()}
    yield from lease.acquire(sorted(hashes))
    return (yield from lease.keep(_send_all(plan, lease)))


def _send_all(plan: BackupPlan, lease: Lease | None) -> Task[Snapshot]:
    if lease is not None:
        # After the pin was written: a prune that does not see the pin is seen here.
        leases = yield from _inflight.list_leases(plan.store)
        plan.sweeps = frozenset(p.key for p in _inflight.parts_of(leases.values(), _inflight.SWEEP))
        plan.condemned, _ = yield from _inflight.read_sweeps(plan.store, leases.values())
    plan.known = yield from _known.find_known(plan.store, plan.capture.db_id, plan.created_at)
    if lease is not None and _any_in_parts(plan):
        others = [found for found in leases.values() if found.id != lease.id]
        plan.unfinished = yield from _unfinished.find_task(plan.store, others, plan.created_at)
    meter = Meter(plan.progress, sum(file.size for file in plan.capture.files))
    tasks = (_file_task(plan, file, meter) for file in plan.capture.files)
    files: list[SnapshotFile] = yield Gather(tasks, plan.concurrency)
    if lease is None:
        snapshot = _snapshot_of(plan, files)
        _commit.encode(plan.store, snapshot, plan.config, plan.tool)
    else:
        yield from _commit.check_relied_on(plan.store, lease, plan.relied_on, plan.sweeps)
        committed = yield from _commit.commit(
            plan.store, lease, lambda: _snapshot_of(plan, files), plan.config, plan.tool
        )
        yield from _commit.check_after(plan.store, lease, committed, plan.relied_on)
        snapshot = committed.snapshot
    meter.flush()
    return snapshot


def _any_in_parts(plan: BackupPlan) -> bool:
    """Whether a file is to be sent that takes several requests."""
    least = plan.store.context.settings.multipart_threshold
    return any(
        file.size > least
        and not _is_inline(file)
        and _layout.data_key(plan.names[file.path]) not in plan.known.files
        for file in plan.capture.files
    )


def _snapshot_of(plan: BackupPlan, files: list[SnapshotFile]) -> Snapshot:
    return Snapshot(
        id=_layout.new_snapshot_id(plan.created_at, plan.known.newest),
        created_at=plan.created_at,
        db_id=plan.capture.db_id,
        files=tuple(files),
        total_bytes=sum(file.size for file in files),
        uploaded_bytes=plan.uploaded,
        reused_bytes=plan.reused,
        sequence_number=plan.capture.sequence_number,
        column_families=plan.capture.column_families,
        tags=plan.tags,
        table_entries=None if None in plan.entries else sum(n or 0 for n in plan.entries),
        warnings=plan.capture.warnings,
    )


def _is_inline(file: CapturedFile) -> bool:
    return file.size <= _layout.INLINE_LIMIT and file.kind not in ("sst", "blob")


def _file_task(plan: BackupPlan, file: CapturedFile, meter: Meter) -> Task[SnapshotFile]:
    if _is_inline(file):
        result = _inline(file)
        meter.add(file.size)
    else:
        name = plan.names[file.path]
        key = _layout.data_key(name)
        known = plan.known.files.get(key)
        condemned = _inflight.object_hash(key) in plan.condemned
        # One that has not the CRC32C that RocksDB recorded is something else, or damaged.
        same = (
            known is not None and known.size == file.size and file.checksum in (None, known.crc32c)
        )
        if known is not None and same and not condemned:
            plan.reused += file.size
            meter.add(file.size)
            result = SnapshotFile(file.path, file.kind, file.size, known.crc32c, key=known.key)
            plan.relied_on.append(Reused(result, plan.known.sources[key]))
        elif plan.dry_run:
            plan.uploaded += file.size
            meter.add(file.size)
            result = SnapshotFile(file.path, file.kind, file.size, 0, key=key)
        elif condemned:
            # Whatever the prune may still send cannot hit a name that is drawn now.
            result = yield from _send(plan, file, f"{name}.{os.urandom(4).hex()}", meter)
        else:
            result = yield from _send(plan, file, name, meter)
    file.release()
    return result


def _inline(file: CapturedFile) -> SnapshotFile:
    content = file.source.read_bytes()
    return SnapshotFile(
        file.path,
        file.kind,
        len(content),
        _names.crc32c_of(file.source),
        inline=content,
    )


def _send(plan: BackupPlan, file: CapturedFile, name: str, meter: Meter) -> Task[SnapshotFile]:
    """Sends a file, unless an unfinished backup has done that already."""
    if file.size >= _ASK_FIRST:
        there = yield from _already_there(plan, file, name, meter)
        if there is not None:
            return there
    try:
        crc = yield from _put(plan, file, name, meter)
    except PreconditionFailedError:
        there = yield from _already_there(plan, file, name, meter)
        if there is not None:
            return there
        # The name is taken by something else: damage, or an identity that lied.
        name = f"{name}.{_names.crc32c_of(file.source):08x}"
        try:
            crc = yield from _put(plan, file, name, meter)
        except PreconditionFailedError:
            there = yield from _already_there(plan, file, name, meter)
            if there is not None:
                return there
            raise IntegrityError(
                f"{plan.store.url(_layout.data_key(name))}: holds something else than its name "
                "says. Look at it, delete it if it is damaged, and run the backup again"
            ) from None
    plan.uploaded += file.size
    return SnapshotFile(file.path, file.kind, file.size, crc, key=_layout.data_key(name))


def _already_there(
    plan: BackupPlan, file: CapturedFile, name: str, meter: Meter
) -> Task[SnapshotFile | None]:
    key = _layout.data_key(name)
    store = plan.store
    try:
        found = yield from head_task(store.context, store.bucket, store.location.key(key))
    except NotFoundError:
        return None
    if found.size != file.size:
        return None
    crc = _checked(file, _names.crc32c_of(file.source))
    if found.checksum_crc32c is None:
        # A service that keeps no CRC32C: only the content itself can tell.
        options = GetOptions(expected_size=file.size, expected_crc32c=crc)
        try:
            where = store.location.key(key)
            yield from get_task(store.context, store.bucket, where, Discard(), options)
        except (ArchivedError, ChecksumMismatchError, NotFoundError):
            return None
    elif found.checksum_crc32c != crc:
        return None
    plan.reused += file.size
    meter.add(file.size)
    result = SnapshotFile(file.path, file.kind, file.size, crc, key=key)
    plan.relied_on.append(Reused(result, None))
    return result


def _checked(file: CapturedFile, crc: int) -> int:
    """Compares a file's CRC32C with the one that RocksDB recorded when it wrote the file."""
    if file.checksum not in (None, crc):
        raise IntegrityError(
            f"{file.path}: has CRC32C {crc:08x}, and RocksDB recorded {file.checksum:08x} when it "
            "wrote the file: it is damaged on this disk. No snapshot was made; the last one may "
            "have the file as it was (kumo-crt restore)"
        )
    return crc


def _put(plan: BackupPlan, file: CapturedFile, name: str, meter: Meter) -> Task[int]:
    store = plan.store
    if file.checksum is not None and file.size <= store.context.settings.multipart_threshold:
        # What fits into one request is stored with it: looked at before, which costs little.
        _checked(file, _names.crc32c_of(file.source))
    options = PutOptions(
        checksum=True,
        expected_crc32c=file.checksum,
        headers=store.data_headers(file.kind),
        if_match=None,
        if_none_match="*",
        meter=meter,
        throttle=plan.throttle,
        resume=plan.unfinished.get(_layout.data_key(name), ()),
    )
    key = store.location.key(_layout.data_key(name))
    with open(file.source, "rb", buffering=0) as opened:
        source = FileSource(opened.fileno())
        if source.size != file.size:
            raise IntegrityError(
                f"{file.source}: {source.size} bytes, it had {file.size} when the backup began"
            )
        try:
            result = yield from put_task(store.context, store.bucket, key, source, options)
        except ChecksumMismatchError:
            _checked(file, _names.crc32c_of(file.source))
            raise
    return result.checksum_crc32c or 0  # never None: it was asked for
