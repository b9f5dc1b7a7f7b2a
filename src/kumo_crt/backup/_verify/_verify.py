"""Looks for damage, as thoroughly as asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from kumo_crt._config import Settings
from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._coordination import _ledger, _notices
from kumo_crt.backup._coordination._ledger import Damage, Ledger, object_hash
from kumo_crt.backup._coordination._notices import Notices
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._reports import DrillReport, Problem, VerifyReport
from kumo_crt.backup._store._fetch import missing, wrong_size
from kumo_crt.backup._store._kept import missing_task
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._verify import _damage, _job, _selection
from kumo_crt.backup._verify._job import Outcome, VerifyJob
from kumo_crt.backup._verify._load import Known, load_task
from kumo_crt.backup._verify._selection import Subset
from kumo_crt.exceptions import (
    AccessDeniedError,
    SnapshotNotFoundError,
)
from kumo_crt.s3._budget import Budget

LEVELS = ("quick", "stored", "full", "restore")
ALL = "all"
T = TypeVar("T")
_NO_NOTICES = Notices()
_MANIFESTS_AT_ONCE = 8
_log = logging.getLogger("kumo_crt.backup")


class _Run(Protocol):
    def __call__(self, task: Task[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """What a verification is to do.

    Attributes:
        run: Runs a task.
        store: The repository.
        settings: Of the client, for workers.
        snapshot: Id, or ``"all"``.
        level: ``quick``, ``stored`` or ``full``.
        subset: Only a part.
        max_bytes: No more than these.
        executor: Where to check; None for here.
        record: Write down what was read: always, never, or (None) if this client may.
        may_record: Whether the environment allows it.
        now: The service's time.
        tool: Who records.
        concurrency: Objects at once.
        progress: Called with bytes done and total.
    """

    run: _Run
    store: Store
    settings: Settings
    snapshot: str
    level: str
    subset: Subset | None
    max_bytes: int | None
    executor: Executor | None
    record: bool | None
    may_record: bool
    now: datetime
    tool: str
    concurrency: int
    progress: Callable[[int, int], object] | None


def _load(plan: VerifyPlan) -> Task[Known]:
    wanted = None if plan.snapshot == ALL else plan.snapshot
    return load_task(plan.store, wanted, compare=plan.level != "quick")


def objects_of_plan(plan: VerifyPlan) -> tuple[list[DataObject], list[Problem]]:
    """Every data object of the plan's snapshots, and manifests that are damaged."""
    known = plan.run(_load(plan))
    return known.objects(), known.problems


def find_damage(plan: VerifyPlan) -> tuple[dict[DataObject, Outcome], list[Problem]]:
    """Damaged objects of the plan's snapshots, and manifests that are damaged."""
    known = plan.run(_load(plan))
    objects = known.objects()
    damaged = _damaged(plan, known, objects, _check(plan, objects, Meter(None, 0)))
    return damaged, known.problems


def verify(plan: VerifyPlan) -> VerifyReport:
    """Checks one snapshot or all of them; damage is reported, not raised."""
    started = time.monotonic()
    seen = Notices()
    if plan.level == "full" and plan.record is not False and plan.may_record:
        seen = plan.run(_notices.read_all_task(plan.store))
    known = plan.run(_load(plan))
    objects = known.objects()
    ledger = Ledger()
    if plan.max_bytes is not None or (plan.subset is not None and plan.subset.part is None):
        ledger = plan.run(_ledger.read_task(plan.store))
    chosen = _selection.select(objects, plan.subset, plan.max_bytes, ledger.last_read)
    meter = Meter(plan.progress, sum(item.size for item in chosen))
    outcomes = _check(plan, chosen, meter)
    damaged = _damaged(plan, known, chosen, outcomes)
    problems = list(known.problems)
    if damaged:
        problems += plan.run(_damage.explain_task(plan.store, damaged, known.snapshots))
    meter.flush()
    recorded = _record(plan, chosen, damaged, seen)
    return VerifyReport(
        ok=not problems,
        snapshot=plan.snapshot,
        level=plan.level,
        files=sum(len(item.files) for item in chosen),
        bytes_read=sum(o.size for o in chosen if o not in damaged) if plan.level == "full" else 0,
        problems=tuple(problems),
        seconds=time.monotonic() - started,
        total_files=sum(len(item.files) for item in objects),
        snapshots=len(known.snapshots),
        recorded=recorded,
        warnings=tuple(known.warnings),
    )


def of_drill(found: DrillReport, files: Callable[[], Iterable[SnapshotFile]]) -> VerifyReport:
    """A drill as the verification of level ``restore``; ``files`` tells those of the snapshot."""
    bad = {problem.path for problem in found.problems if problem.path}
    bad_bytes = sum(file.size for file in files() if file.path in bad) if bad else 0
    return VerifyReport(
        ok=found.ok,
        snapshot=found.snapshot,
        level="restore",
        files=found.files,
        bytes_read=found.total_bytes - bad_bytes,
        problems=found.problems,
        seconds=found.recovery_seconds + found.scan_seconds,
        total_files=found.files,
        recorded=found.recorded,
    )


def _check(plan: VerifyPlan, objects: list[DataObject], meter: Meter) -> list[Outcome]:
    if plan.level == "quick":
        return plan.run(_quick(plan.store, objects, meter))
    if plan.executor is None:
        return plan.run(_job.check_task(plan.store, plan.level, objects, plan.concurrency, meter))
    return _hand_out(plan, plan.executor, objects, meter)


def _hand_out(
    plan: VerifyPlan, executor: Executor, objects: list[DataObject], meter: Meter
) -> list[Outcome]:
    """Has workers check objects; a limited budget lets a job go when it has room for that."""
    budget = plan.store.context.budget or Budget()
    jobs = [
        VerifyJob(
            plan.settings,
            plan.store.location,
            plan.level,
            portion,
            plan.concurrency,
            plan.store.key,
            budget.rates,
        )
        for portion in _job.split(objects)
    ]
    waiting: dict[Future[list[Outcome]], int] = {}
    results: list[list[Outcome]] = [[] for _ in jobs]

    def collect(future: Future[list[Outcome]]) -> None:
        index = waiting.pop(future)
        results[index] = future.result()
        meter.add(sum(item.size for item in jobs[index].objects))

    try:
        for index, job in enumerate(jobs):
            if not budget.is_unlimited:
                plan.run(budget.before(job.size, len(job.objects)))
            waiting[executor.submit(_job.run_job, job)] = index
            for future in [future for future in waiting if future.done()]:
                collect(future)
        for future in as_completed(list(waiting)):
            collect(future)
    finally:
        for future in waiting:
            future.cancel()
    return [outcome for result in results for outcome in result]


def _damaged(
    plan: VerifyPlan, known: Known, objects: list[DataObject], outcomes: list[Outcome]
) -> dict[DataObject, Outcome]:
    """What was found; without what belongs to snapshots that were deleted in the meantime.

    Raises:
        SnapshotNotFoundError: Those were all.
    """
    pairs = zip(objects, outcomes, strict=True)
    found = {item: outcome for item, outcome in pairs if outcome.kind is not None}
    if not any(outcome.kind == "missing" for outcome in found.values()):
        return found
    known.snapshots = plan.run(_still_there(plan.store, known.snapshots))
    if not known.snapshots and not known.problems:
        which = "every snapshot" if plan.snapshot == ALL else f"snapshot {plan.snapshot}"
        raise SnapshotNotFoundError(
            f"{plan.store.location}: {which} was deleted while it was being verified: verify "
            "another one"
        )
    needed = {item.key for item in known.objects()}
    return {item: outcome for item, outcome in found.items() if item.key in needed}


def _still_there(store: Store, snapshots: list[Snapshot]) -> Task[list[Snapshot]]:
    there: list[bool] = yield Gather(
        (store.has_snapshot(snapshot.id) for snapshot in snapshots), _MANIFESTS_AT_ONCE
    )
    return [snapshot for snapshot, is_there in zip(snapshots, there, strict=True) if is_there]


def _quick(store: Store, objects: Iterable[DataObject], meter: Meter) -> Task[list[Outcome]]:
    """One listing for all: a thousand objects a request; what is not in it is asked for."""
    objects = list(objects)
    listed = yield from store.list_all(_layout.DATA)
    sizes = {item.key: item.size for item in listed}
    unlisted = [item for item in objects if store.location.key(item.key) not in sizes]
    gone = set((yield from missing_task(store, (item.stored for item in unlisted))))
    for item in unlisted:
        if item.key not in gone:
            _log.warning("%s: is there, but the service does not list it", store.url(item.key))
            sizes[store.location.key(item.key)] = item.size
    outcomes = []
    for item in objects:
        size = sizes.get(store.location.key(item.key))
        if size is None:
            outcomes.append(Outcome("missing", str(missing(store, item.stored))))
        elif size != item.size:
            outcomes.append(Outcome("size", str(wrong_size(store, item.stored, size))))
        else:
            outcomes.append(Outcome())
        meter.add(item.size)
    return outcomes


def _record(
    plan: VerifyPlan,
    objects: Iterable[DataObject],
    damaged: dict[DataObject, Outcome],
    seen: Notices,
) -> bool:
    """Writes down what was read and what was found damaged, if there is anything to tell."""
    new = Ledger()
    good: set[str] = set()
    if plan.level == "full":
        good = {o.key for o in objects if o not in damaged} - {o.key for o in damaged}
        known = seen.damaged
        new.reads = {
            object_hash(key): _notices.clear_time(plan.now, known.get(key)) for key in good
        }
    kinds = set(_notices.KINDS)
    if all(outcome.kind == "unreadable" for outcome in damaged.values()) and not good:
        kinds.discard("unreadable")  # nothing could be read: that is the service's own trouble
    new.damaged = {
        item.key: Damage(plan.now, outcome.kind or "")
        for item, outcome in damaged.items()
        if outcome.kind in kinds
    }
    return record(
        plan.run,
        plan.store,
        new,
        plan.now,
        plan.tool,
        plan.record,
        plan.may_record,
        seen,
        good.intersection(seen.damaged),
    )


def record(
    run: _Run,
    store: Store,
    new: Ledger,
    now: datetime,
    tool: str,
    wanted: bool | None,
    may: bool,
    seen: Notices = _NO_NOTICES,
    good: Collection[str] = (),
) -> bool:
    """Adds to the ledger where that is wanted and possible; tells whether it did.

    Damage is told by a notice, too; what is ``good`` again is taken out of those that were seen.

    Raises:
        AccessDeniedError: It was demanded, and this client may not write.
    """
    if wanted is False or not (new.reads or new.damaged or new.drills or new.failed_drills):
        return False
    if wanted is None and not may:
        return False
    # What backups have to know comes first, and does not depend on the rest.
    tasks = [_notices.add_task(store, new.damaged, tool)] if new.damaged else []
    tasks.append(_ledger.record_task(store, new, now, tool))
    if good:
        tasks.append(_notices.withdraw_task(store, seen, good, tool))
    done = True
    for task in tasks:
        try:
            run(task)
        except AccessDeniedError as error:
            if wanted:
                raise
            # Whoever may only read may verify all the same.
            _log.warning("what was read could not be written down: %s", error)
            done = False
    return done
