"""Puts a good object in the place of a damaged or lost one.

This is the only place that replaces an object; docs/format.md says how.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kumo_crt._engine import NO_ROOM, Meter, Reservation, Reserve, Task, Throttle
from kumo_crt.backup._coordination import _ledger, _notices
from kumo_crt.backup._coordination._ledger import Ledger, object_hash
from kumo_crt.backup._coordination._notices import Notices
from kumo_crt.backup._format import _layout, _sealing
from kumo_crt.backup._repair._rebuild import rebuild_task
from kumo_crt.backup._repair._rebuild_archive import rebuild_archive_task
from kumo_crt.backup._repair._sources import Sources
from kumo_crt.backup._reports import Repaired
from kumo_crt.backup._store._fetch import DamagedError, fetch_task
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._ranges import PartsDamagedError, check_object_task
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._verify._job import INTERNAL_ERROR, Outcome
from kumo_crt.exceptions import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
    S3Error,
)
from kumo_crt.s3._body import FileSource, MemorySource, ProducedSource, Source
from kumo_crt.s3._copy import copy_task
from kumo_crt.s3._get import Discard
from kumo_crt.s3._head import HeadResult, head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions

QUARANTINE = "quarantine/"
_log = logging.getLogger("kumo_crt.backup")


@dataclass(frozen=True, slots=True)
class Means:
    """What objects are replaced with.

    Attributes:
        store: The repository.
        sources: Files that may be the wanted ones.
        now: The service's time.
        throttle: Limits what is sent.
        meter: Counts it.
        dry_run: Only find out what could be done.
    """

    store: Store
    sources: Sources
    now: datetime
    throttle: Throttle | None
    meter: Meter
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What came of an object that is damaged.

    Attributes:
        item: The object.
        damage: What is wrong with it.
        repaired: What was done; None: nothing could be.
        at: The service's time when it was read again.
    """

    item: DataObject
    damage: Outcome
    repaired: Repaired | None = None
    at: datetime | None = None


def repair_task(means: Means, item: DataObject) -> Task[Step | None]:
    """Replaces an object if it is damaged, and there are files for it; None: it is not damaged.

    Raises:
        TransportError: It could not be read, or not be replaced; so may any other S3Error.
        IntegrityError: Somebody else writes to the same key, or to the source.
    """
    damage = yield from _look(means, item)
    if damage is None:
        means.meter.add(item.size)
        return None
    if damage.kind == "archived":
        return Step(item, damage)
    if _layout.is_archive(item.key):
        return (yield from _repair_archive(means, item, damage))
    if not item.is_file:
        # A bundle is put together in memory.
        with (yield Reserve(item.size)) as room:
            found = yield from rebuild_task(means.store, item, means.sources)
            if found is None:
                return Step(item, damage)
            source: Source = MemorySource(found[0])
            return (yield from _bring_back(means, item, damage, source, found[1], room))
    path = means.sources.find(item.files[0])
    if path is None:
        return Step(item, damage)
    with open(path, "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise IntegrityError(f"{path}: is no regular file any more")
        source = yield from _source_of(means, opened.fileno(), path)
        return (yield from _bring_back(means, item, damage, source, path, NO_ROOM))


def _repair_archive(means: Means, item: DataObject, damage: Outcome) -> Task[Step]:
    import tempfile  # rarely needed, and slow to load

    with tempfile.TemporaryDirectory(prefix="kumo-repair-") as scratch:
        found = yield from rebuild_archive_task(means.store, item, means.sources, Path(scratch))
        if found is None:
            return Step(item, damage)
        archive, path = found
        source = ProducedSource(archive.size, archive.read, prepare=archive.preparations)
        return (yield from _bring_back(means, item, damage, source, path, NO_ROOM))


def _source_of(means: Means, fd: int, path: Path) -> Task[Source]:
    """The body that makes the object what it was."""
    key = means.store.key
    if key is None:
        return FileSource(fd)
    # One content is always sealed to the same bytes.
    examined = yield from _sealing.examine_task(key, fd, os.fstat(fd).st_size, path)
    return _sealing.sealed_source(key, fd, examined, path)


def _bring_back(
    means: Means,
    item: DataObject,
    damage: Outcome,
    source: Source,
    path: Path | None,
    room: Reservation,
) -> Task[Step]:
    quarantined: str | None = None
    at: datetime | None = None
    if not means.dry_run:
        quarantined = yield from _replace(means, item, source, path)
        room.close()  # what reads it again waits for room itself
        at = yield from _confirm(means, item)
    repaired = Repaired(
        key=item.key,
        path=item.files[0].path,
        kind=damage.kind or "",
        size=item.size,
        source=str(path) if path is not None else "",
        quarantine=quarantined,
        files=len(item.files),
    )
    return Step(item, damage, repaired, at)


def _read(means: Means, item: DataObject) -> Task[None]:
    """Reads the object in full."""
    if item.is_file:
        return fetch_task(means.store, item.files[0], Discard(), None)
    return check_object_task(means.store, item, None)


def _look(means: Means, item: DataObject) -> Task[Outcome | None]:
    """Reads the object in full: what was reported may have been another's mistake."""
    try:
        yield from _read(means, item)
    except PartsDamagedError as damage:
        return Outcome(damage.kind, str(damage), damage.files)
    except DamagedError as damage:
        return Outcome(damage.kind, str(damage))
    except S3Error as error:
        # As in a verification: that is the object's trouble, others are the service's.
        if error.status != INTERNAL_ERROR:
            raise
        return Outcome("checksum", f"the service cannot read it: {error}")
    return None


def _head(store: Store, item: DataObject) -> Task[HeadResult | None]:
    where = store.location.key(item.key)
    try:
        return (yield from head_task(store.context, store.bucket, where))
    except NotFoundError:
        return None


def _replace(means: Means, item: DataObject, source: Source, path: Path | None) -> Task[str | None]:
    """Puts the damaged object aside, and the good one in its place."""
    store = means.store
    key = store.location.key(item.key)
    there = yield from _head(store, item)
    quarantined: str | None = None
    if there is not None:
        quarantined = yield from put_aside(store, item.key, there, means.now)
    # Of what class an archive is does not depend on what is first in it.
    kind = "sst" if _layout.is_archive(item.key) else item.files[0].kind
    options = PutOptions(
        checksum=True,
        headers=store.data_headers(kind),
        if_match=there.etag if there is not None else None,
        if_none_match="*" if there is None else None,
        meter=means.meter,
        throttle=means.throttle,
    )
    if source.size != item.size:
        raise IntegrityError(f"{path}: {source.size} bytes, it had {item.size} a moment ago")
    try:
        result = yield from put_task(store.context, store.bucket, key, source, options)
    except PreconditionFailedError:
        # Another repair or backup was faster; what it wrote is confirmed next.
        return quarantined
    if result.checksum_crc32c != item.stored.crc32c:
        raise IntegrityError(f"{path}: changed while it was sent: do not write to a source")
    return quarantined


def put_aside(store: Store, key: str, there: HeadResult, now: datetime) -> Task[str | None]:
    """Copies an object to ``quarantine/``, if the service can; tells where it is."""
    name = key.rpartition("/")[2]
    target = f"{QUARANTINE}{name}.{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    try:
        yield from copy_task(
            store.context,
            (store.bucket, store.location.key(key)),
            (store.bucket, store.location.key(target)),
            size=there.size,
            etag=there.etag,
            headers=store.document_headers(),
        )
    except AccessDeniedError:
        raise
    except S3Error as error:
        # Not even the service can read it: there is nothing to keep.
        _log.warning("%s: not copied before it is replaced: %s", store.url(key), error)
        return None
    return target


def _confirm(means: Means, item: DataObject) -> Task[datetime | None]:
    """Reads the object that is there now.

    Raises:
        IntegrityError: It is not the wanted one.
    """
    try:
        yield from _read(means, item)
    except DamagedError as damage:
        raise IntegrityError(
            f"{damage}: not repaired. Somebody else has written to this key: look who it was, and "
            "repair it again"
        ) from damage
    found = yield from _head(means.store, item)
    return found.server_time if found is not None else None


def remember_task(
    store: Store, good: Mapping[str, datetime], seen: Notices, tool: str
) -> Task[None]:
    """Writes down that objects are good: in a ledger, and by withdrawing what notices say.

    Args:
        store: The repository.
        good: Keys of objects, and when they were read in full.
        seen: Notices that had been read before.
        tool: Who records.
    """
    if not good:
        return
    damaged = seen.damaged
    new = Ledger()
    for key, at in good.items():
        new.reads[object_hash(key)] = _notices.clear_time(at, damaged.get(key))
    yield from _ledger.record_task(store, new, max(good.values()), tool)
    yield from _notices.withdraw_task(store, seen, good.keys(), tool)
