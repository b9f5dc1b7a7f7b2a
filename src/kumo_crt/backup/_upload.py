"""Backs up a captured state: sends what the repository does not have, then the manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Gather, Meter, Task, Throttle
from kumo_crt.backup import _layout, _manifest, _names
from kumo_crt.backup._capture import Capture, CapturedFile
from kumo_crt.backup._results import Snapshot, SnapshotFile
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    FormatError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._body import FileSource
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._put import PutOptions, put_task

_log = logging.getLogger("kumo_crt.backup")

# Newest manifests in which files are looked for; more would only find what has been long gone.
_MANIFESTS_TO_SEARCH = 4
_COMMIT_ATTEMPTS = 3
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
    newest: str | None = None
    known: dict[str, SnapshotFile] = field(default_factory=dict)


def backup_task(plan: BackupPlan) -> Task[Snapshot]:
    """Runs a plan; the snapshot exists when this has returned, and not before."""
    yield from _find_known(plan)
    meter = Meter(plan.progress, sum(file.size for file in plan.capture.files))
    tasks = (_file_task(plan, file, meter) for file in plan.capture.files)
    files: list[SnapshotFile] = yield Gather(tasks, plan.concurrency)
    for attempt in range(1, _COMMIT_ATTEMPTS + 1):
        snapshot = _snapshot_of(plan, files)
        try:
            yield from _commit(plan, snapshot)
        except PreconditionFailedError:
            # Two backups of the same second drew the same number: nothing of the other's is lost.
            if attempt == _COMMIT_ATTEMPTS:
                raise
        else:
            break
    meter.flush()
    return snapshot


def _snapshot_of(plan: BackupPlan, files: list[SnapshotFile]) -> Snapshot:
    return Snapshot(
        id=_layout.new_snapshot_id(plan.created_at, plan.newest),
        created_at=plan.created_at,
        db_id=plan.capture.db_id,
        files=tuple(files),
        total_bytes=sum(file.size for file in files),
        uploaded_bytes=plan.uploaded,
        reused_bytes=plan.reused,
        sequence_number=plan.capture.sequence_number,
        column_families=plan.capture.column_families,
        tags=plan.tags,
    )


def _commit(plan: BackupPlan, snapshot: Snapshot) -> Task[None]:
    document = _manifest.encode_snapshot(snapshot, plan.config.repository_id, plan.tool)
    key = _layout.snapshot_key(snapshot.id)
    # Read back as a reader would: a manifest that cannot be restored must never be committed.
    _manifest.decode_snapshot(document, plan.store.url(key), snapshot.id)
    if not plan.dry_run:
        yield from plan.store.write_new(key, document)


def _find_known(plan: BackupPlan) -> Task[None]:
    """Looks up which data objects recent snapshots have proved to be there."""
    ids = yield from plan.store.snapshot_ids()
    plan.newest = ids[-1] if ids else None
    recent = ids[-_MANIFESTS_TO_SEARCH:]
    # The newest one is nearly always enough; older ones are read for another database's turn.
    for snapshot_id in reversed(recent):
        try:
            snapshot = yield from plan.store.snapshot(snapshot_id)
        except NotFoundError:
            continue  # deleted since it was listed
        except FormatError as error:
            # Damage of old snapshots must not keep a new one from being made; verify reports it.
            _log.warning("not looking for known files in a damaged manifest: %s", error)
            continue
        for file in snapshot.files:
            if file.key is not None:
                plan.known.setdefault(file.key, file)
        if snapshot.db_id == plan.capture.db_id:
            return


def _file_task(plan: BackupPlan, file: CapturedFile, meter: Meter) -> Task[SnapshotFile]:
    if file.size <= _layout.INLINE_LIMIT and file.kind not in ("sst", "blob"):
        result = _inline(file)
        meter.add(file.size)
    else:
        name = _names.object_name(file, plan.capture.db_id)
        key = _layout.data_key(name)
        known = plan.known.get(key)
        if known is not None and known.size == file.size:
            plan.reused += file.size
            meter.add(file.size)
            result = SnapshotFile(file.path, file.kind, file.size, known.crc32c, key=key)
        elif plan.dry_run:
            plan.uploaded += file.size
            meter.add(file.size)
            result = SnapshotFile(file.path, file.kind, file.size, 0, key=key)
        else:
            result = yield from _send(plan, file, name, meter)
    plan.capture.release(file)
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
    crc = _names.crc32c_of(file.source)
    if found.checksum_crc32c is None:
        # A service that keeps no CRC32C: only the content itself can tell.
        options = GetOptions(expected_size=file.size, expected_crc32c=crc)
        try:
            where = store.location.key(key)
            yield from get_task(store.context, store.bucket, where, Discard(), options)
        except (ChecksumMismatchError, NotFoundError):
            return None
    elif found.checksum_crc32c != crc:
        return None
    plan.reused += file.size
    meter.add(file.size)
    return SnapshotFile(file.path, file.kind, file.size, crc, key=key)


def _put(plan: BackupPlan, file: CapturedFile, name: str, meter: Meter) -> Task[int]:
    store = plan.store
    options = PutOptions(
        checksum=True,
        headers=store.data_headers(file.kind),
        if_match=None,
        if_none_match="*",
        meter=meter,
        throttle=plan.throttle,
    )
    key = store.location.key(_layout.data_key(name))
    with open(file.source, "rb", buffering=0) as opened:
        source = FileSource(opened.fileno())
        if source.size != file.size:
            raise IntegrityError(
                f"{file.source}: {source.size} bytes, it had {file.size} when the backup began"
            )
        result = yield from put_task(store.context, store.bucket, key, source, options)
    return result.checksum_crc32c or 0  # never None: it was asked for
