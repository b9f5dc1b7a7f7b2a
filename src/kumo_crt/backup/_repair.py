"""Brings back damaged and lost data objects, from a database that still has the files.

This is the only place that replaces an object; docs/format.md says how.
"""

from __future__ import annotations

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

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Task, Throttle
from kumo_crt.backup import _damage, _ledger, _names, _verify
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._fetch import DamagedError, fetch_task
from kumo_crt.backup._ledger import Ledger, object_hash
from kumo_crt.backup._reports import Problem, Repaired, RepairReport
from kumo_crt.backup._results import SnapshotFile
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
from kumo_crt.s3._body import FileSource
from kumo_crt.s3._copy import copy_task
from kumo_crt.s3._get import Discard
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions
from kumo_crt.s3._results import HeadResult

QUARANTINE = "quarantine/"
T = TypeVar("T")
_KINDS = ("sst", "blob", "wal", "manifest", "options")
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

    file: SnapshotFile
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
    index = _index(plan.sources)
    meter = Meter(plan.progress, sum(file.size for file in suspects))
    steps: list[_Step | None] = plan.run(_repair_all(plan, suspects, index, meter))
    done = [step for step in steps if step is not None]
    left = {step.file: step.damage for step in done if step.repaired is None}
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


def _suspects(plan: RepairPlan) -> tuple[list[SnapshotFile], list[Problem]]:
    """Objects to look at, and problems that no source can solve (manifests)."""
    if plan.known is None:
        found, problems = _verify.find_damage(plan.look)
        return list(found), problems
    files, problems = _verify.files_of(plan.look)
    keys = {problem.key for problem in plan.known}
    return [file for file in files if file.key in keys], problems


def _index(sources: Iterable[Path]) -> dict[int, list[CapturedFile]]:
    """Files of databases, by their size."""
    found: dict[int, list[CapturedFile]] = {}
    for source in sources:
        for path in sorted(source.iterdir()):
            kind, number = _core.classify_file(path.name)
            # Immutable or known by all of their content: a database may be open meanwhile.
            if kind in _KINDS and path.is_file():
                size = path.stat().st_size
                file = CapturedFile(path.name, kind, number or 0, path, size)
                found.setdefault(size, []).append(file)
    return found


def _repair_all(
    plan: RepairPlan,
    suspects: Sequence[SnapshotFile],
    index: dict[int, list[CapturedFile]],
    meter: Meter,
) -> Task[list[_Step | None]]:
    steps: list[_Step | None] = yield Gather(
        (_repair_one(plan, file, index, meter) for file in suspects), plan.look.concurrency
    )
    return steps


def _repair_one(
    plan: RepairPlan, file: SnapshotFile, index: dict[int, list[CapturedFile]], meter: Meter
) -> Task[_Step | None]:
    """None: it is as it should be."""
    damage = yield from _look(plan, file)
    if damage is None:
        meter.add(file.size)
        return None
    source = _source_of(file, index) if damage.kind != "archived" else None
    if source is None:
        return _Step(file, damage)
    kind = damage.kind or ""
    if plan.dry_run:
        return _Step(
            file, damage, Repaired(file.key or "", file.path, kind, file.size, str(source))
        )
    quarantined = yield from _replace(plan, file, source, meter)
    at = yield from _confirm(plan, file)
    result = Repaired(file.key or "", file.path, kind, file.size, str(source), quarantined)
    return _Step(file, damage, result, at)


def _look(plan: RepairPlan, file: SnapshotFile) -> Task[Outcome | None]:
    """Reads the object in full: what was reported may have been another's mistake."""
    try:
        yield from fetch_task(plan.store, file, Discard(), None)
    except DamagedError as damage:
        return Outcome(damage.kind, str(damage))
    except (TransportError, S3Error) as error:
        if isinstance(error, AccessDeniedError | TransportError) or error.status < 500:
            raise
        return Outcome("checksum", f"the service cannot read it: {error}")
    return None


def _source_of(file: SnapshotFile, index: dict[int, list[CapturedFile]]) -> Path | None:
    """A file with the size, identity and CRC32C that are wanted."""
    # A blob file has no identity but its number.
    candidates = [
        candidate
        for candidate in index.get(file.size, ())
        if candidate.kind == file.kind and (file.kind != "blob" or candidate.path == file.path)
    ]
    for candidate in sorted(candidates, key=lambda c: c.path != file.path):
        try:
            if (
                _names.is_name_of(file.key or "", candidate)
                and _names.crc32c_of(candidate.source) == file.crc32c
            ):
                return candidate.source
        except OSError as error:
            _log.warning("a file that may be the wanted one cannot be read: %s", error)
    return None


def _head(store: Store, file: SnapshotFile) -> Task[HeadResult | None]:
    where = store.location.key(file.key or "")
    try:
        return (yield from head_task(store.context, store.bucket, where))
    except NotFoundError:
        return None


def _replace(plan: RepairPlan, file: SnapshotFile, path: Path, meter: Meter) -> Task[str | None]:
    """Puts the damaged object aside, and the good one in its place."""
    store = plan.store
    key = store.location.key(file.key or "")
    there = yield from _head(store, file)
    quarantined: str | None = None
    if there is not None:
        quarantined = yield from _put_aside(plan, file, there)
    options = PutOptions(
        checksum=True,
        headers=store.data_headers(file.kind),
        if_match=there.etag if there is not None else None,
        if_none_match="*" if there is None else None,
        meter=meter,
        throttle=plan.throttle,
    )
    with open(path, "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise IntegrityError(f"{path}: is no regular file any more")
        source = FileSource(opened.fileno())
        if source.size != file.size:
            raise IntegrityError(f"{path}: {source.size} bytes, it had {file.size} a moment ago")
        try:
            result = yield from put_task(store.context, store.bucket, key, source, options)
        except PreconditionFailedError:
            return (
                quarantined  # another repair or backup was faster; what it wrote is confirmed next
            )
    if result.checksum_crc32c != file.crc32c:
        raise IntegrityError(f"{path}: changed while it was sent: do not write to a source")
    return quarantined


def _put_aside(plan: RepairPlan, file: SnapshotFile, there: HeadResult) -> Task[str | None]:
    store = plan.store
    name = (file.key or "").rpartition("/")[2]
    target = f"{QUARANTINE}{name}.{plan.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    try:
        yield from copy_task(
            store.context,
            (store.bucket, store.location.key(file.key or "")),
            (store.bucket, store.location.key(target)),
            size=there.size,
            etag=there.etag,
            headers=store.document_headers(),
        )
    except AccessDeniedError:
        raise
    except S3Error as error:
        # Not even the service can read it: there is nothing to keep.
        _log.warning("%s: not copied before it is replaced: %s", store.url(file.key or ""), error)
        return None
    return target


def _confirm(plan: RepairPlan, file: SnapshotFile) -> Task[datetime | None]:
    """Reads the object that is there now.

    Raises:
        IntegrityError: It is not the wanted one.
    """
    try:
        yield from fetch_task(plan.store, file, Discard(), None)
    except DamagedError as damage:
        raise IntegrityError(
            f"{damage}: not repaired. Somebody else has written to this key: look who it was, and "
            "repair it again"
        ) from damage
    found = yield from _head(plan.store, file)
    return found.server_time if found is not None else None


def _remember(plan: RepairPlan, steps: Iterable[_Step]) -> None:
    """What was repaired has been read in full, too."""
    new = Ledger()
    latest = plan.now
    for step in steps:
        if step.repaired is not None and step.at is not None:
            new.reads[object_hash(step.file.key or "")] = step.at
            latest = max(latest, step.at)
    if new.reads:
        plan.run(_ledger.record_task(plan.store, new, latest, plan.look.tool))
