"""Backs up a captured state: sends what the repository does not have, then the manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._coordination import _commit, _inflight, _notices
from kumo_crt.backup._coordination._clock import boottime
from kumo_crt.backup._coordination._commit import Committed, Reused
from kumo_crt.backup._coordination._inflight import LeaseState
from kumo_crt.backup._coordination._lease import Lease
from kumo_crt.backup._format import _layout, _names, _sealing
from kumo_crt.backup._format._results import Sealed, Snapshot, SnapshotFile, StoredObject
from kumo_crt.backup._local._reading import may_be_read
from kumo_crt.backup._packing import _packing
from kumo_crt.backup._packing._archive import Archive
from kumo_crt.backup._packing._packing import Bundle, Packing
from kumo_crt.backup._send import _single, _unfinished
from kumo_crt.backup._send._plan import BackupPlan
from kumo_crt.backup._send._sending import Sender, Sent, changed, send_bundle_task, send_file_task
from kumo_crt.backup._store import _known
from kumo_crt.exceptions import LeaseExpiredError, RepositoryError

_log = logging.getLogger("kumo_crt.backup")
# How often it is looked up what is there, if snapshots are removed meanwhile.
_LOOK_UPS = 5
# For so many seconds a look at what others do holds, if nothing was sent since.
_FRESH = 10.0


def backup_task(plan: BackupPlan) -> Task[Snapshot]:
    """Runs a plan; the snapshot exists when this has returned, and not before."""
    with may_be_read():
        _examine(plan)
    if plan.dry_run:
        # Whether it can be put right is not tried.
        plan.notices = yield from _notices.read_all_task(plan.store)
        plan.shunned.update(plan.notices.damaged)
    yield from _look_up(plan)
    if plan.dry_run:
        return (yield from _dry_run(plan))
    lease = Lease(
        plan.store,
        _inflight.BACKUP,
        "the backup",
        "A prune may have deleted what it relies on, so nothing was committed: run it again, and "
        "what was sent already is found",
    )
    return (yield from lease.during(_pinned(plan, lease)))


def _examine(plan: BackupPlan) -> None:
    for file in plan.capture.files:
        if plan.single_object or not _is_inline(file):
            plan.names[file.path], entries = _names.examine(
                file, plan.capture.db_id, plan.store.key
            )
            if file.kind == "sst":
                plan.entries.append(entries)


def _look_up(plan: BackupPlan) -> Task[None]:
    """Finds out what the repository has, and decides what becomes of each file."""
    plan.known = yield from _known.find_known(plan.store, plan.capture.db_id, plan.created_at)
    plan.snapshot_id = _new_id(plan)
    if plan.single_object:
        archive = _single.archive_of(plan.capture, plan.names, plan.store.key)
        plan.packing = Packing(archive=archive)
        return
    plan.packing = _packing.pack(
        [file for file in plan.capture.files if not _is_inline(file)],
        plan.names,
        plan.known,
        plan.condemned,
        plan.limits,
        plan.store.key is not None,
        plan.shunned,
    )
    _log.info(
        "%s: at sequence number %d; of %d files %d are stored, by %s; %d go alone, %d bundles",
        plan.capture.db_id,
        plan.capture.sequence_number,
        len(plan.capture.files),
        len(plan.packing.reused),
        " and ".join(plan.packing.sources()) or "no snapshot",
        len(plan.packing.alone),
        len(plan.packing.bundles),
    )


def _dry_run(plan: BackupPlan) -> Task[Snapshot]:
    reused = plan.packing.reused
    key = plan.store.key
    files = [
        reused[file.path].file
        if file.path in reused
        else SnapshotFile(
            file.path,
            file.kind,
            file.size,
            0,
            key=_layout.data_key(plan.names[file.path]),
            sealed=None if key is None else Sealed(_core.sealed_size(file.size), 0, bytes(16)),
        )
        if not _is_inline(file)
        else _inline(plan, file)
        for file in plan.capture.files
    ]
    plan.reused = sum(item.file.stored_size for item in reused.values())
    plan.uploaded = sum(
        file.stored_size for file in files if file.path not in reused and file.inline is None
    )
    archive = plan.packing.archive
    if archive is not None:
        stored = StoredObject(_layout.data_key(archive.name), archive.size, 0)
        files = _single.files_of(archive, plan.names, _inline_too(plan), stored, archive.blank())
        is_there = stored.key in plan.known.archives and stored.key not in plan.shunned
        plan.reused, plan.uploaded = (archive.size, 0) if is_there else (0, archive.size)
    snapshot = _snapshot_of(plan, files)
    _commit.encode(plan.store, snapshot, plan.config, plan.tool)
    meter = Meter(plan.progress, snapshot.total_bytes)
    meter.add(snapshot.total_bytes)
    meter.flush()
    yield from ()
    return snapshot


def _pinned(plan: BackupPlan, lease: Lease) -> Task[Snapshot]:
    yield from lease.acquire(sorted(plan.packing.hashes(plan.names)), [plan.snapshot_id])
    try:
        committed: Committed = yield from lease.keep(_send_all(plan, lease))
    except LeaseExpiredError:
        yield from _commit.take_back_tried(plan.store, plan.tried)
        raise
    warning = yield from _commit.write_spare_task(plan.store, lease, committed)
    if warning is None:
        return committed.snapshot
    _log.warning("%s", warning)
    return replace(committed.snapshot, warnings=(*committed.snapshot.warnings, warning))


def _settle(plan: BackupPlan, lease: Lease) -> Task[dict[str, LeaseState]]:
    """Makes sure that what was decided before the pin was written still holds."""
    attempt = 1
    while True:
        # After the pin was written: a prune that does not see the pin is seen here.
        now = boottime()
        listed: _inflight.Listed = yield from _inflight.look(plan.store)
        leases = listed.leases
        plan.looked_at = now if lease.is_listed(leases) else None
        plan.sweeps = frozenset(p.key for p in _inflight.parts_of(leases.values(), _inflight.SWEEP))
        plan.condemned, _ = yield from _inflight.read_sweeps(plan.store, leases.values())
        if listed.notices:
            plan.notices = yield from _notices.read_task(plan.store, listed.notices)
            yield from _distrust(plan)
        reused = {item.file.key or "" for item in plan.packing.reused.values()}
        gone = yield from _commit.gone_snapshots(plan.store, plan.packing.sources())
        if not gone and not any(
            key in plan.shunned or _inflight.object_hash(key) in plan.condemned for key in reused
        ):
            return leases
        if attempt == _LOOK_UPS:
            raise RepositoryError(
                f"{plan.store.location}: snapshots are being removed so fast that none could be "
                "built on: run the backup again"
            )
        attempt += 1
        yield from _look_up(plan)
        hashes = sorted(plan.packing.hashes(plan.names))
        yield from lease.write(_inflight.BACKUP, hashes, [plan.snapshot_id])


def _distrust(plan: BackupPlan) -> Task[None]:
    """Puts right what is known to be damaged and may be relied on, or decides not to."""
    reused = {item.file.key for item in plan.packing.reused.values()}
    sent = replace(plan.packing, reused={}).hashes(plan.names)
    done = plan.sound | plan.shunned
    suspects = [
        key
        for key in plan.notices.damaged
        if key not in done
        and (hashed := _inflight.object_hash(key)) not in plan.condemned
        and (key in reused or hashed in sent)
    ]
    if suspects:
        from kumo_crt.backup._send import _heal  # rarely needed

        yield from _heal.heal_task(plan, suspects)


def _send_all(plan: BackupPlan, lease: Lease) -> Task[Committed]:
    leases = yield from _settle(plan, lease)
    unfinished: Mapping[str, tuple[str, ...]] = {}
    if _any_in_parts(plan):
        others = [found for found in leases.values() if found.id != lease.id]
        unfinished = yield from _unfinished.find_task(plan.store, others, plan.created_at)
    archive = plan.packing.archive
    key = plan.store.key
    total = sum(_sealing.sealed_size(key, file.size) for file in plan.capture.files)
    meter = Meter(plan.progress, total if archive is None else archive.size)
    sender = Sender(plan.store, meter, plan.throttle, unfinished, plan.known.archives)
    with may_be_read():
        if archive is None:
            files = yield from _send_files(plan, sender)
        else:
            files = yield from _send_archive(plan, sender, archive)
    proven = {item.file.key for item in plan.relied_on if item.source is not None}
    sent = [file for file in files if file.key not in proven]
    yield from _commit.check_sent(plan.store, plan.kept, sent)
    is_new = any(file.key is not None for file in sent)
    if is_new or plan.looked_at is None or boottime() - plan.looked_at > _FRESH:
        yield from _commit.check_relied_on(
            plan.store, lease, plan.relied_on, plan.sweeps, plan.notices, plan.sound
        )
    committed = yield from _commit.commit(
        plan.store, lease, lambda: _draw(plan, files), plan.config, plan.tool, plan.tried
    )
    yield from _commit.check_after(
        plan.store, lease, committed, plan.relied_on, plan.sweeps, plan.kept, sent
    )
    meter.flush()
    return committed


def _new_id(plan: BackupPlan) -> str:
    return _layout.new_snapshot_id(plan.created_at, plan.known.newest, plan.capture.db_id)


def _draw(plan: BackupPlan, files: list[SnapshotFile]) -> Snapshot:
    """The snapshot, under the id that the pin names; each further time under a new one."""
    snapshot = _snapshot_of(plan, files)
    plan.snapshot_id = _new_id(plan)
    return snapshot


def _send_files(plan: BackupPlan, sender: Sender) -> Task[list[SnapshotFile]]:
    """Sends what is not there, each file by itself or in a bundle."""
    done: dict[str, SnapshotFile] = {}
    alone = set(map(id, plan.packing.alone))
    for file in plan.capture.files:
        if id(file) in alone:
            continue
        if _is_inline(file):
            done[file.path] = _inline(plan, file)
        elif (there := plan.packing.reused.get(file.path)) is not None:
            done[file.path] = there.file
            if there.file.key in plan.sent_again:
                plan.uploaded += there.file.stored_size
            else:
                plan.reused += there.file.stored_size
            plan.relied_on.append(there)
        else:
            continue
        sender.meter.add(_sealing.sealed_size(plan.store.key, file.size))
        file.release()
    tasks = [_send_bundle(plan, sender, bundle) for bundle in plan.packing.bundles]
    tasks += [_send_file(plan, sender, file) for file in plan.packing.alone]
    for files in (yield Gather(tasks, plan.concurrency)):
        done.update((file.path, file) for file in files)
    return [done[file.path] for file in plan.capture.files]


def _any_in_parts(plan: BackupPlan) -> bool:
    """Whether an object is to be sent that takes several requests."""
    least = plan.store.context.settings.multipart_threshold
    packing = plan.packing
    if packing.archive is not None:
        return packing.archive.size > least
    return any(item.size > least for items in (packing.alone, packing.bundles) for item in items)


def _snapshot_of(plan: BackupPlan, files: list[SnapshotFile]) -> Snapshot:
    return Snapshot(
        id=plan.snapshot_id,
        created_at=plan.created_at,
        db_id=plan.capture.db_id,
        files=tuple(files),
        total_bytes=sum(file.size for file in files),
        uploaded_bytes=plan.uploaded,
        resumed_bytes=plan.resumed,
        reused_bytes=plan.reused,
        sequence_number=plan.capture.sequence_number,
        column_families=plan.capture.column_families,
        tags=plan.tags,
        table_entries=None if None in plan.entries else sum(n or 0 for n in plan.entries),
        warnings=(*plan.capture.warnings, *plan.warnings),
    )


def _is_inline(file: CapturedFile) -> bool:
    return file.size <= _layout.INLINE_LIMIT and file.kind not in ("sst", "blob")


def _inline(plan: BackupPlan, file: CapturedFile) -> SnapshotFile:
    content = file.source.read_bytes()
    if len(content) != file.size:
        raise changed(file.shown, len(content), file.size)
    crc = _core.crc32c(content)
    key = plan.store.key
    sealed = None if key is None else _sealing.seal_memory(key, content)[1]
    return SnapshotFile(file.path, file.kind, len(content), crc, inline=content, sealed=sealed)


def _free_name(plan: BackupPlan, name: str) -> str:
    """The name, or, while it is being deleted or has something damaged, another."""
    damaged = map(_inflight.object_hash, plan.shunned)
    if _inflight.object_hash(_layout.data_key(name)) not in plan.condemned.union(damaged):
        return name
    # Whatever the prune may still send cannot hit a name that is drawn now.
    return f"{name}.{os.urandom(4).hex()}"


def _send_file(plan: BackupPlan, sender: Sender, file: CapturedFile) -> Task[list[SnapshotFile]]:
    name = _free_name(plan, plan.names[file.path])
    sent, result = yield from send_file_task(sender, file, name)
    _count(plan, sent, [result])
    file.release()
    return [result]


def _send_bundle(plan: BackupPlan, sender: Sender, bundle: Bundle) -> Task[list[SnapshotFile]]:
    sent, files = yield from send_bundle_task(sender, bundle, _free_name(plan, bundle.name))
    _count(plan, sent, files)
    return files


def _inline_too(plan: BackupPlan) -> dict[str, SnapshotFile]:
    """What of an archive is in the manifest too: readers ask for the one, `repair` for both."""
    kinds = ("current", "config")
    files = (file for file in plan.capture.files if file.kind in kinds and _is_inline(file))
    return {file.path: _inline(plan, file) for file in files}


def _send_archive(plan: BackupPlan, sender: Sender, archive: Archive) -> Task[list[SnapshotFile]]:
    inline = _inline_too(plan)  # as long as they are there
    sent = yield from _single.send_archive_task(sender, archive, _free_name(plan, archive.name))
    files = _single.files_of(archive, plan.names, inline, sent.stored, archive.known())
    _count(plan, sent, [file for file in files if file.key is not None])
    return files


def _count(plan: BackupPlan, sent: Sent, files: Iterable[SnapshotFile]) -> None:
    """Notes whether something was sent, or had been by a backup that was interrupted."""
    plan.kept.heard(sent.stored.key, sent.confirmed)
    if sent.was_there:
        plan.reused += sent.stored.size
        plan.relied_on += (Reused(file, None) for file in files)
    else:
        plan.uploaded += sent.stored.size
        plan.resumed += sent.resumed
