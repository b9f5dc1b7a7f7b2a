"""Brings back what is damaged or lost: manifests from their spares, data from a database."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from kumo_crt._engine import Gather, Meter, Task, Throttle
from kumo_crt.backup._coordination import _notices
from kumo_crt.backup._coordination._notices import Notices
from kumo_crt.backup._format import _layout
from kumo_crt.backup._repair import _replacing, _sparing
from kumo_crt.backup._repair._replacing import Means, Step
from kumo_crt.backup._repair._sources import Sources, files_in
from kumo_crt.backup._repair._sparing import Mended
from kumo_crt.backup._reports import Problem, RepairReport
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._verify import _damage, _verify
from kumo_crt.backup._verify._verify import VerifyPlan
from kumo_crt.exceptions import RepositoryError

T = TypeVar("T")


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


def repair(plan: RepairPlan) -> RepairReport:
    """Looks for damage and repairs it, as far as spares and the sources have what is needed."""
    started = time.monotonic()
    for source in plan.sources:
        if not source.is_dir():
            raise RepositoryError(f"{source}: no such directory: it is to have the files")
    wanted = None if plan.look.snapshot == _verify.ALL else plan.look.snapshot
    mended: Mended = plan.run(
        _sparing.mend_task(plan.store, wanted, plan.now, dry_run=plan.dry_run)
    )
    seen: Notices = plan.run(_notices.read_all_task(plan.store))
    suspects, problems = _suspects(plan, seen)
    if plan.dry_run:
        would = {
            *map(_layout.snapshot_key, mended.manifests),
            *map(_layout.spare_key, mended.spares),
        }
        problems = [item for item in problems if item.key not in would]
    meter = Meter(plan.progress, sum(item.size for item in suspects))
    means = Means(
        store=plan.store,
        sources=Sources(files_in(plan.sources), plan.store.key),
        now=plan.now,
        throttle=plan.throttle,
        meter=meter,
        dry_run=plan.dry_run,
    )
    steps: list[Step | None] = plan.run(_repair_all(plan, means, suspects))
    done = [step for step in steps if step is not None]
    left = {step.item: step.damage for step in done if step.repaired is None}
    if left:
        problems += plan.run(_damage.explain_task(plan.store, left, ()))
    repaired = tuple(step.repaired for step in done if step.repaired is not None)
    if not plan.dry_run:
        good = {
            item.key: plan.now if step is None or step.at is None else step.at
            for item, step in zip(suspects, steps, strict=True)
            if item.key not in {other.key for other in left}
        }
        plan.run(_replacing.remember_task(plan.store, good, seen, plan.look.tool))
    meter.flush()
    return RepairReport(
        ok=not problems,
        repaired=repaired,
        remaining=tuple(problems),
        sound=len(suspects) - len(done),
        uploaded_bytes=0 if plan.dry_run else sum(item.size for item in repaired),
        dry_run=plan.dry_run,
        seconds=time.monotonic() - started,
        manifests=mended.manifests,
        spares=mended.spares,
        warnings=mended.warnings,
    )


def _suspects(plan: RepairPlan, seen: Notices) -> tuple[list[DataObject], list[Problem]]:
    """Objects to look at, and problems that no source can solve: manifests."""
    if plan.known is None:
        damage, problems = _verify.find_damage(plan.look)
        found = list(damage)
        if noticed := seen.damaged.keys() - {item.key for item in found}:
            # Others have looked more closely.
            objects, _ = _verify.objects_of_plan(plan.look)
            found += (item for item in objects if item.key in noticed)
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
    plan: RepairPlan, means: Means, suspects: Sequence[DataObject]
) -> Task[list[Step | None]]:
    steps: list[Step | None] = yield Gather(
        (_counted(means, item) for item in suspects), plan.look.concurrency
    )
    return steps


def _counted(means: Means, item: DataObject) -> Task[Step | None]:
    own = Meter(None, 0, means.meter)
    step = yield from _replacing.repair_task(dataclasses.replace(means, meter=own), item)
    means.meter.add(item.size - own.done)  # repaired or not, it is done with
    return step
