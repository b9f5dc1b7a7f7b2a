"""Brings back damaged and lost data objects, from a database that still has the files.

This is the only place that replaces an object; docs/format.md says how.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from kumo_crt._engine import NO_ROOM, Gather, Meter, Reservation, Reserve, Task, Throttle
from kumo_crt.backup import _damage, _layout, _ledger, _sealing, _verify
from kumo_crt.backup._fetch import DamagedError, fetch_task
from kumo_crt.backup._ledger import Ledger, object_hash
from kumo_crt.backup._objects import DataObject
from kumo_crt.backup._ranges import PartsDamagedError, check_object_task
from kumo_crt.backup._rebuild import rebuild_task
from kumo_crt.backup._rebuild_archive import rebuild_archive_task
from kumo_crt.backup._reports import Problem, Repaired, RepairReport
from kumo_crt.backup._sources import Sources
from kumo_crt.backup._store import Store
from kumo_crt.backup._verify import VerifyPlan
from kumo_crt.backup._verify_job import Outcome
from kumo_crt.exceptions import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
    RepositoryError,
    S3Error,
    TransportError,
)
from kumo_crt.s3._body import FileSource, MemorySource, ProducedSource, Source
from kumo_crt.s3._copy import copy_task
from kumo_crt.s3._get import Discard
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions
from kumo_crt.s3._results import HeadResult

QUARANTINE = "quarantine/"
T = TypeVar("T")
_log = logging.getLogger("kumo_crt.backup")


class _Run(Protocol):
    def __call__(self, task: Task[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair is to do.

    Attributes:
        run: Runs a task.
        store: The repository.
        look: How to look for damage.
        known: Damage that was found before: then nobody looks again.
        sources: Directories with files of databases.
        now: The service's time.
        throttle: Limits what is sent.
        dry_run: Only find out what could be done.
        progress: Called with bytes done and total of what is sent.
    """

    run: _Run
    store: Store
    look: VerifyPlan
    known: Sequence[Problem] | None
    sources: Sequence[Path]
    now: datetime
    throttle: Throttle | None
    dry_run: bool
    progress: Callable[[int, int], object] | None


@dataclass(frozen=True, slots=True)
class _Step:
    """What came of one object."""

    item: DataObject
    damage: Outcome
    repaired: Repaired | None = None
    at: datetime | None = None


def repair(plan: RepairPlan) -> RepairReport:
    """Looks for damage and repairs what the sources have."""
    started = time.monotonic()
    for source in plan.sources:
        if not source.is_dir():
            raise RepositoryError(f"{source}: no such directory: it is to have the files")
    suspects, problems = _suspects(plan)
    sources = Sources(plan.sources, plan.store.key)
    meter = Meter(plan.progress, sum(item.size for item in suspects))
    steps: list[_Step | None] = plan.run(_repair_all(plan, suspects, sources, meter))
    done = [step for step in steps if step is not None]
    left = {step.item: step.damage for step in done if step.repaired is None}
    if left:
        problems += plan.run(_damage.explain_task(plan.store, left, ()))
    repaired = tuple(step.repaired for step in done if step.repaired is not None)
    _remember(plan, done)
    meter.flush()
    return RepairReport(
        ok=not problems,
        repaired=repaired,
        remaining=tuple(problems),
        sound=len(suspects) - len(done),
        uploaded_bytes=0 if plan.dry_run else sum(item.size for item in repaired),
        dry_run=plan.dry_run,
        seconds=time.monotonic() - started,
    )


def _suspects(plan: RepairPlan) -> tuple[list[DataObject], list[Problem]]:
    """Objects to look at, and problems that no source can solve (manifests)."""
    if plan.known is None:
        damage, problems = _verify.find_damage(plan.look)
        found = list(damage)
    else:
        objects, problems = _verify.objects_of_plan(plan.look)
        keys = {problem.key for problem in plan.known}
        found = [item for item in objects if item.key in keys]
    if plan.look.snapshot != _verify.ALL and not all(item.is_file for item in found):
        # Other snapshots may need other parts of a bundle.
        everywhere = dataclasses.replace(plan.look, snapshot=_verify.ALL)
        objects, _ = _verify.objects_of_plan(everywhere)
        whole = {item.stored: item for item in objects}
        found = [whole.get(item.stored, item) for item in found]
    return found, problems


def _repair_all(
    plan: RepairPlan, suspects: Sequence[DataObject], sources: Sources, meter: Meter
) -> Task[list[_Step | None]]:
    steps: list[_Step | None] = yield Gather(
        (_repair_one(plan, item, sources, meter) for item in suspects), plan.look.concurrency
    )
    return steps


def _repair_one(
    plan: RepairPlan, item: DataObject, sources: Sources, meter: Meter
) -> Task[_Step | None]:
    """None: it is as it should be."""
    damage = yield from _look(plan, item)
    if damage is None:
        meter.add(item.size)
        return None
    if damage.kind == "archived":
        return _Step(item, damage)
    if _layout.is_archive(item.key):
        return (yield from _repair_archive(plan, item, damage, sources, meter))
    if not item.is_file:
        # A bundle is put together in memory.
        with (yield Reserve(item.size)) as room:
            found = yield from rebuild_task(plan.store, item, sources)
            if found is None:
                return _Step(item, damage)
            source: Source = MemorySource(found[0])
            return (yield from _bring_back(plan, item, damage, source, found[1], meter, room))
    path = sources.find(item.files[0])
    if path is None:
        return _Step(item, damage)
    with open(path, "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise IntegrityError(f"{path}: is no regular file any more")
        source = yield from _source_of(plan, opened.fileno(), path)
        return (yield from _bring_back(plan, item, damage, source, path, meter, NO_ROOM))


def _repair_archive(
    plan: RepairPlan, item: DataObject, damage: Outcome, sources: Sources, meter: Meter
) -> Task[_Step]:
    import tempfile  # rarely needed, and slow to load

    with tempfile.TemporaryDirectory(prefix="kumo-repair-") as scratch:
        found = yield from rebuild_archive_task(plan.store, item, sources, Path(scratch))
        if found is None:
            return _Step(item, damage)
        archive, path = found
        source = ProducedSource(archive.size, archive.read, prepare=archive.preparations)
        return (yield from _bring_back(plan, item, damage, source, path, meter, NO_ROOM))


def _source_of(plan: RepairPlan, fd: int, path: Path) -> Task[Source]:
    """The body that makes the object what it was."""
    key = plan.store.key
    if key is None:
        return FileSource(fd)
    # One content is always sealed to the same bytes.
    examined = yield from _sealing.examine_task(key, fd, os.fstat(fd).st_size, path)
    return _sealing.sealed_source(key, fd, examined, path)


def _bring_back(
    plan: RepairPlan,
    item: DataObject,
    damage: Outcome,
    source: Source,
    path: Path | None,
    meter: Meter,
    room: Reservation,
) -> Task[_Step]:
    quarantined: str | None = None
    at: datetime | None = None
    if not plan.dry_run:
        quarantined = yield from _replace(plan, item, source, path, meter)
        room.close()  # what reads it again waits for room itself
        at = yield from _confirm(plan, item)
    repaired = Repaired(
        key=item.key,
        path=item.files[0].path,
        kind=damage.kind or "",
        size=item.size,
        source=str(path) if path is not None else "",
        quarantine=quarantined,
        files=len(item.files),
    )
    return _Step(item, damage, repaired, at)


def _read(plan: RepairPlan, item: DataObject) -> Task[None]:
    """Reads the object in full."""
    if item.is_file:
        return fetch_task(plan.store, item.files[0], Discard(), None)
    return check_object_task(plan.store, item, None)


def _look(plan: RepairPlan, item: DataObject) -> Task[Outcome | None]:
    """Reads the object in full: what was reported may have been another's mistake."""
    try:
        yield from _read(plan, item)
    except PartsDamagedError as damage:
        return Outcome(damage.kind, str(damage), damage.files)
    except DamagedError as damage:
        return Outcome(damage.kind, str(damage))
    except (TransportError, S3Error) as error:
        if isinstance(error, AccessDeniedError | TransportError) or error.status < 500:
            raise
        return Outcome("checksum", f"the service cannot read it: {error}")
    return None


def _head(store: Store, item: DataObject) -> Task[HeadResult | None]:
    where = store.location.key(item.key)
    try:
        return (yield from head_task(store.context, store.bucket, where))
    except NotFoundError:
        return None


def _replace(
    plan: RepairPlan, item: DataObject, source: Source, path: Path | None, meter: Meter
) -> Task[str | None]:
    """Puts the damaged object aside, and the good one in its place."""
    store = plan.store
    key = store.location.key(item.key)
    there = yield from _head(store, item)
    quarantined: str | None = None
    if there is not None:
        quarantined = yield from _put_aside(plan, item, there)
    options = PutOptions(
        checksum=True,
        headers=store.data_headers(item.files[0].kind),
        if_match=there.etag if there is not None else None,
        if_none_match="*" if there is None else None,
        meter=meter,
        throttle=plan.throttle,
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


def _put_aside(plan: RepairPlan, item: DataObject, there: HeadResult) -> Task[str | None]:
    store = plan.store
    name = item.key.rpartition("/")[2]
    target = f"{QUARANTINE}{name}.{plan.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    try:
        yield from copy_task(
            store.context,
            (store.bucket, store.location.key(item.key)),
            (store.bucket, store.location.key(target)),
            size=there.size,
            etag=there.etag,
            headers=store.document_headers(),
        )
    except AccessDeniedError:
        raise
    except S3Error as error:
        # Not even the service can read it: there is nothing to keep.
        _log.warning("%s: not copied before it is replaced: %s", store.url(item.key), error)
        return None
    return target


def _confirm(plan: RepairPlan, item: DataObject) -> Task[datetime | None]:
    """Reads the object that is there now.

    Raises:
        IntegrityError: It is not the wanted one.
    """
    try:
        yield from _read(plan, item)
    except DamagedError as damage:
        raise IntegrityError(
            f"{damage}: not repaired. Somebody else has written to this key: look who it was, and "
            "repair it again"
        ) from damage
    found = yield from _head(plan.store, item)
    return found.server_time if found is not None else None


def _remember(plan: RepairPlan, steps: Iterable[_Step]) -> None:
    """What was repaired has been read in full, too."""
    new = Ledger()
    latest = plan.now
    for step in steps:
        if step.repaired is not None and step.at is not None:
            new.reads[object_hash(step.item.key)] = step.at
            latest = max(latest, step.at)
    if new.reads:
        plan.run(_ledger.record_task(plan.store, new, latest, plan.look.tool))
