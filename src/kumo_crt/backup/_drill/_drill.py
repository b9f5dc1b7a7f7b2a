"""The proof that a snapshot can be restored: it is, to a scratch directory, and read to its end."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kumo_crt import _core
from kumo_crt._engine import Task
from kumo_crt.backup._capture._cost import has_merge_operator
from kumo_crt.backup._coordination import _ledger, _notices
from kumo_crt.backup._coordination._ledger import (
    FAULTS,
    RESOLUTION,
    Damage,
    Drilled,
    FailedDrill,
    FamilyContent,
    Ledger,
    object_hash,
)
from kumo_crt.backup._drill import _opener
from kumo_crt.backup._drill._content import expected, scan
from kumo_crt.backup._drill._opener import Opener
from kumo_crt.backup._format import _layout, _sealing
from kumo_crt.backup._format._results import RestoreReport, Snapshot
from kumo_crt.backup._local._allowed import allowed
from kumo_crt.backup._local._room import Room, room_in
from kumo_crt.backup._local._scratch import scratch
from kumo_crt.backup._reports import DrillReport, Problem
from kumo_crt.backup._restore import _place, _restore
from kumo_crt.backup._store._objects import objects_of
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._verify import _damage, _job, _verify
from kumo_crt.exceptions import IntegrityError, RepositoryError

T = TypeVar("T")
_SCRATCH = "kumo-drill-"
_ELSEWHERE = "name another directory (scratch=, --scratch of a drill; TMPDIR else)"


class _Run(Protocol):
    def __call__(self, task: Task[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What a drill is to do; see `Repository.drill`."""

    run: _Run
    store: Store
    snapshot: Snapshot
    trouble: str | None
    scratch: Path | None
    opener: Opener | None
    max_rto: float | None
    max_age: float | None
    record: bool | None
    may_record: bool
    now: datetime
    tool: str
    concurrency: int
    progress: Callable[[int, int], object] | None


@dataclass(slots=True)
class _Found:
    """What a drill has measured so far."""

    problems: list[Problem] = field(default_factory=list)
    restored: RestoreReport | None = None
    families: dict[str, FamilyContent] = field(default_factory=dict)
    restore_seconds: float = 0.0
    open_seconds: float = 0.0
    scan_seconds: float = 0.0
    compared: bool = False
    damaged: dict[str, Damage] = field(default_factory=dict)
    ledger: Ledger | None = None


def drill(plan: DrillPlan) -> DrillReport:
    """Restores a snapshot, opens it, reads everything, and compares."""
    if plan.opener is not None and not callable(plan.opener):
        raise TypeError(f"opener: expected a function, not {type(plan.opener).__name__}")
    opener = plan.opener or _opener.default_opener()
    snapshot = plan.snapshot
    found = _Found()
    if plan.trouble is not None:
        key = _layout.snapshot_key(snapshot.id)
        ids = (snapshot.id,)
        found.problems.append(Problem(snapshot.id, "", key, "manifest", plan.trouble, ids))
    where = _place_for(plan.scratch)
    room = Room(where, _ELSEWHERE, f"make room, or {_ELSEWHERE}", is_hidden=True)
    with room_in(where, room.advice, is_hidden=True), contextlib.ExitStack() as stack:
        with allowed(where, "no scratch directory can be made there", _ELSEWHERE):
            directory = stack.enter_context(scratch(where, _SCRATCH))
        target = directory / "database"
        begun = time.monotonic()
        try:
            found.restored = _restore.restore(_restore_plan(plan, found, target, room))
        except IntegrityError as error:
            found.restore_seconds = time.monotonic() - begun
            _look_for_all(plan, found, error)
        else:
            found.restore_seconds = time.monotonic() - begun
            _read(plan, found, target, opener)
    recovery = found.restore_seconds + found.open_seconds
    age = max(0.0, (plan.now - snapshot.created_at).total_seconds())
    if plan.max_rto is not None and recovery > plan.max_rto:
        _problem(plan, found, "rto", f"recovery took {recovery:.1f} s, above {plan.max_rto:g} s")
    if plan.max_age is not None and age > plan.max_age:
        _problem(plan, found, "age", f"the snapshot is {age:.0f} s old, above {plan.max_age:g} s")
    return DrillReport(
        ok=not found.problems,
        snapshot=snapshot.id,
        created_at=snapshot.created_at,
        age_seconds=age,
        recovery_seconds=recovery,
        restore_seconds=found.restore_seconds,
        open_seconds=found.open_seconds,
        scan_seconds=found.scan_seconds,
        files=len(snapshot.files),
        total_bytes=snapshot.total_bytes,
        entries={name: content.entries for name, content in found.families.items()},
        checksums={name: content.crc32c for name, content in found.families.items()},
        sequence_number=snapshot.sequence_number,
        compared=found.compared,
        problems=tuple(found.problems),
        recorded=_record(plan, found),
    )


def _problem(plan: DrillPlan, found: _Found, kind: str, message: str) -> None:
    snapshot = plan.snapshot.id
    found.problems.append(Problem(snapshot, "", "", kind, message, snapshots=(snapshot,)))


def _look_for_all(plan: DrillPlan, found: _Found, error: IntegrityError) -> None:
    """A restore ends at the first damage: what else is damaged is told as well."""
    objects = objects_of(plan.snapshot.files)
    check = _job.check_task(plan.store, "full", objects, plan.concurrency, None)
    pairs = zip(objects, plan.run(check), strict=True)
    damaged = {item: outcome for item, outcome in pairs if outcome.kind is not None}
    for item, outcome in damaged.items():
        if outcome.kind in _notices.KINDS:
            found.damaged[item.key] = Damage(plan.now, outcome.kind or "")
    if damaged:
        found.problems += plan.run(_damage.explain_task(plan.store, damaged, [plan.snapshot]))
    else:
        _problem(plan, found, "restore", str(error))


def _restore_plan(plan: DrillPlan, found: _Found, target: Path, room: Room) -> _restore.RestorePlan:
    def remember(key: str, kind: str) -> None:
        found.damaged[key] = Damage(plan.now, kind)

    return _restore.RestorePlan(
        run=plan.run,
        store=plan.store,
        snapshot=plan.snapshot,
        target=target,
        overwrite=False,
        delta=False,
        column_families=None,
        concurrency=plan.concurrency,
        progress=plan.progress,
        dry_run=False,
        on_damage=remember,
        room=room,
    )


def _place_for(parent: Path | None) -> Path:
    where = parent if parent is not None else Path(tempfile.gettempdir())
    with allowed(where, "cannot be looked at", _ELSEWHERE):
        _place.check_directory(where, f"create it, or {_ELSEWHERE}")
    try:
        str(where).encode()
    except UnicodeEncodeError:
        raise RepositoryError(
            f"{where}: RocksDB's binding opens no path that is not UTF-8: {_ELSEWHERE}"
        ) from None
    return where


def _read(plan: DrillPlan, found: _Found, target: Path, opener: Opener) -> None:
    """Opens the restored database, reads it, and compares it with what is known."""
    try:
        known = expected(target)
        merges = plan.opener is None and has_merge_operator(target)
    except (OSError, _core.RocksDBFormatError) as error:
        _problem(plan, found, "content", f"the restored files do not fit together: {error}")
        return
    if plan.snapshot.table_entries not in (None, known.tables):
        _problem(
            plan,
            found,
            "content",
            f"its tables have {known.tables} entries, {plan.snapshot.table_entries} when they "
            "were backed up",
        )
    begun = time.monotonic()
    try:
        database = opener(str(target))
    except Exception as error:
        _opener.check_fault(error, target, ours=plan.opener is None)
        _problem(plan, found, "open", f"RocksDB does not open the restored database: {error}")
        return
    found.open_seconds = time.monotonic() - begun
    begun = time.monotonic()
    try:
        sequence = database.latest_sequence_number()
        for name in plan.snapshot.column_families:
            found.families[name] = scan(database, name)
    except Exception as error:
        _opener.check_fault(error, target, ours=plan.opener is None)
        _problem(
            plan,
            found,
            "content",
            f"RocksDB cannot read the restored database: {error}. Its files are as they were "
            "backed up, so they were damaged before that: back up a good copy, compacted before "
            "(compact_first, --compact-first), as files of the same identity are not sent again",
        )
        return
    finally:
        found.scan_seconds = time.monotonic() - begun
        _close(plan, found, database)
    # A log that only RocksDB can read may hold more than was known when it was backed up.
    if sequence < plan.snapshot.sequence_number - known.may_lack(plan.snapshot):
        if merges:  # RocksDB ends the replay of a log at the first one
            raise _opener.only_its_application("its logs are not replayed without it")
        _problem(
            plan,
            found,
            "content",
            f"its last sequence number is {sequence}, {plan.snapshot.sequence_number} when it was "
            "backed up: the newest writes are missing",
        )
    _compare_counts(plan, found, known.most)
    _compare_with_earlier(plan, found)


def _close(plan: DrillPlan, found: _Found, database: Any) -> None:
    try:
        database.close()
    except Exception as error:  # RocksDB tells here what its threads have met
        _problem(plan, found, "content", f"RocksDB failed with the restored database: {error}")


def _compare_counts(plan: DrillPlan, found: _Found, most: Mapping[str, int]) -> None:
    for name, content in found.families.items():
        if name not in most:
            _problem(plan, found, "content", f"column family {name!r} is not in its MANIFEST")
        elif content.entries > most[name]:
            _problem(
                plan,
                found,
                "content",
                f"column family {name!r} has {content.entries} entries, its tables and logs hold "
                f"at most {most[name]}",
            )


def _known(plan: DrillPlan, found: _Found) -> Ledger:
    if found.ledger is None:
        found.ledger = plan.run(_ledger.read_task(plan.store))
    return found.ledger


def _compare_with_earlier(plan: DrillPlan, found: _Found) -> None:
    """A snapshot never changes: whoever read it before must have found the same."""
    earlier = _known(plan, found).drills.get(plan.snapshot.id)
    if earlier is None:
        return
    found.compared = True
    for name in sorted({*earlier.families, *found.families}):
        before, now = _masked(plan, earlier.families).get(name), found.families.get(name)
        if before != now:
            _problem(
                plan,
                found,
                "content",
                f"column family {name!r} has {_told(now)}; a drill at {earlier.at:%F %T}Z found "
                f"{_told(before)}",
            )


def _masked(plan: DrillPlan, families: Mapping[str, FamilyContent]) -> dict[str, FamilyContent]:
    """What is written down of an encrypted database: nobody else is to learn from it."""
    return {
        name: FamilyContent(
            content.entries,
            _sealing.masked_drill(plan.store.key, plan.snapshot.id, name, content.crc32c),
        )
        for name, content in families.items()
    }


def _told(content: FamilyContent | None) -> str:
    if content is None:
        return "nothing"
    return f"{content.entries} entries with CRC32C {content.crc32c:08x}"


def _record(plan: DrillPlan, found: _Found) -> bool:
    new = Ledger(damaged=found.damaged)
    snapshot = plan.snapshot.id
    faults = [problem.kind for problem in found.problems if problem.kind in FAULTS]
    # A snapshot whose objects were all read counts as verified: of one that is wrong in spite of
    # that, nothing is to say so.
    if faults:
        known = _known(plan, found)
        good, failed = known.drills.get(snapshot), known.failed_drills.get(snapshot)
        times = [plan.now] if good is None else [plan.now, good.at]
        if failed is not None:
            times.append(failed.at + RESOLUTION)  # also within the second of an earlier one
        new.failed_drills = {snapshot: FailedDrill(max(times), faults[0])}
    elif found.restored is not None:
        keys = (file.key for file in plan.snapshot.files if file.key is not None)
        new.reads = {object_hash(key): plan.now for key in keys}
        if new.reads:
            # Also within the second of one that failed.
            failed = _known(plan, found).failed_drill(snapshot)
            at = plan.now if failed is None else max(plan.now, failed.at + RESOLUTION)
            new.drills = {snapshot: Drilled(at, _masked(plan, found.families))}
    return _verify.record(
        plan.run, plan.store, new, plan.now, plan.tool, plan.record, plan.may_record
    )
