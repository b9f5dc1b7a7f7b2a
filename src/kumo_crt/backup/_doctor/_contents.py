"""What a repository holds, and what was left in it, seen with the eyes of a doctor."""

from __future__ import annotations

from datetime import datetime, timedelta

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _census, _ledger, _spares
from kumo_crt.backup._doctor import _documents
from kumo_crt.backup._doctor._findings import ERROR, INFO, WARNING, Findings
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import FormatError
from kumo_crt.s3._listings import list_uploads_task

_UPLOAD_AGE = timedelta(days=1)
_VERIFIED_WARNING = timedelta(days=92)
_MANY_FAMILIES = 200
_MANY_FILES = 10_000
_SMALL_FILE = 1 << 20
_READ = "s3:ListBucket and s3:GetObject"


def contents_task(store: Store, findings: Findings, now: datetime) -> Task[None]:
    """Looks at snapshots and their health, unfinished uploads, leases and other documents."""
    yield from findings.tried("snapshots", _snapshots(store, findings, now), permission=_READ)
    yield from findings.tried(
        "uploads",
        _uploads(store, findings, now),
        permission="s3:ListBucketMultipartUploads",
        severity=INFO,
    )
    yield from _documents.documents_task(store, findings, now)


def _snapshots(store: Store, findings: Findings, now: datetime) -> Task[None]:
    strangers = yield from _census.list_strangers(store)
    if strangers:
        more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        findings.add(
            ERROR,
            "snapshots",
            f"s3://{store.bucket}/{strangers[0]}{more}: no manifest that this kumo_crt knows",
            "use a newer kumo_crt, or move elsewhere what does not belong there: prune deletes "
            "nothing before that",
        )
    witnesses = yield from _spares.witnesses_task(store)
    ids = yield from store.snapshot_ids()
    for lost in (yield from _spares.lost_task(store, witnesses, ids)):
        findings.add(ERROR, "snapshots", lost.message(store), lost.fix)
    yield from _bare(store, findings, set(ids) - witnesses.spares.keys())
    if not ids:
        findings.add(WARNING, "snapshots", "there are none", "make a backup")
        return
    snapshots: list[Snapshot] = []
    for snapshot_id in ids:
        try:
            snapshot = yield from store.listed_snapshot(snapshot_id)
        except FormatError as error:
            findings.add(
                ERROR,
                "snapshots",
                str(error),
                f"{_spares.MEND}, if its spare is sound; else bring it back from a version or a "
                "copy; prune deletes nothing before that, or before it is deleted",
            )
            continue
        if snapshot is not None:
            snapshots.append(snapshot)
    if not snapshots:
        return
    newest = snapshots[-1]
    age = now - newest.created_at
    findings.ok(
        "snapshots",
        f"{len(snapshots)}, the newest {age.total_seconds() / 3600:.1f} h old with "
        f"{len(newest.files)} files, {newest.total_bytes / 1e6:.0f} MB, "
        f"{len(newest.column_families)} column families",
    )
    _shape(newest, findings)
    ledger = yield from _ledger.read_task(store)
    damage = ledger.known_damage()
    keys = {file.key for snapshot in snapshots for file in snapshot.files if file.key is not None}
    damaged = sorted(keys & set(damage))
    if damaged:
        findings.add(
            ERROR,
            "damage",
            f"{len(damaged)} object{'s were' if len(damaged) > 1 else ' was'} found damaged and "
            "not read since; the first is "
            f"{damaged[0]} ({damage[damaged[0]].kind})",
            "back up the database: it sends again what it still has; then kumo-crt repair, from "
            "copies that have the rest",
        )
    failed = [item for s in snapshots if (item := ledger.failed_drill(s.id)) is not None]
    if failed:
        findings.add(
            ERROR,
            "drill",
            f"the last drill of {len(failed)} snapshot{'s' if len(failed) > 1 else ''} failed, and "
            f"not at damaged objects ({', '.join(sorted({item.kind for item in failed}))})",
            "run kumo-crt drill --snapshot with each that kumo-crt snapshots names: it tells why",
        )
    oldest = ledger.oldest_read(file.key for file in newest.files if file.key is not None)
    if oldest is None or now - oldest > _VERIFIED_WARNING:
        since = f"since {oldest:%F}" if oldest is not None else "yet"
        findings.add(
            WARNING,
            "verified",
            f"not every byte of the newest snapshot has been read {since}",
            "run kumo-crt verify --snapshot all --level full --subset oldest/7 every night, or "
            "kumo-crt drill",
        )
    else:
        findings.ok("verified", f"every byte of the newest snapshot since {oldest:%F}")


def _bare(store: Store, findings: Findings, suspects: set[str]) -> Task[None]:
    """Tells manifests that have no spare."""
    bare = []
    for snapshot_id in sorted(suspects):
        key = _layout.spare_key(snapshot_id)
        if not (yield from store.has(key)):  # it may have come since
            bare.append(key)
    if bare:
        more = f", and {len(bare) - 1} more" if len(bare) > 1 else ""
        findings.add(
            WARNING,
            "missing spares",
            f"{store.url(bare[0])}{more}: is missing; that its manifest is lost would not be seen",
            "run kumo-crt prune or kumo-crt repair, which write it; after a backup that was "
            "killed, half an hour later",
        )


def _shape(newest: Snapshot, findings: Findings) -> None:
    """What makes backups slow and dear."""
    if len(newest.column_families) > _MANY_FAMILIES:
        findings.add(
            WARNING,
            "column families",
            f"{len(newest.column_families)}: each has files of its own, that every backup looks at",
            "keep tenants apart by key prefixes instead of column families, where that is possible",
        )
    tables = [file for file in newest.files if file.kind == "sst"]
    size = sum(file.size for file in tables)
    if len(tables) > _MANY_FILES and size / len(tables) < _SMALL_FILE:
        findings.add(
            WARNING,
            "files",
            f"{len(tables)} table files of {size / len(tables) / 1e3:.0f} kB on average: requests "
            "cost more than bytes",
            "compact before backups, or raise target_file_size_base",
        )


def _uploads(store: Store, findings: Findings, now: datetime) -> Task[None]:
    found = yield from list_uploads_task(store.context, store.bucket, store.location.key(""))
    old = [
        item for item in found if item.initiated is not None and now - item.initiated > _UPLOAD_AGE
    ]
    if old:
        findings.add(
            WARNING,
            "uploads",
            f"{len(old)} uploads were begun more than a day ago and never finished",
            "run kumo-crt prune, and have a lifecycle rule for it",
        )
    else:
        findings.ok("uploads", f"{len(found)} unfinished, none older than a day")
