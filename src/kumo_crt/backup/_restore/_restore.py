"""Restores a snapshot: beside the target, checked, synced, then moved into place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._format._results import RestoreReport, Snapshot, SnapshotFile
from kumo_crt.backup._local._open_files import check_unused
from kumo_crt.backup._local._room import Room, check_space, room_in
from kumo_crt.backup._restore import _place
from kumo_crt.backup._store import _families, _ranges
from kumo_crt.backup._store._families import Selection
from kumo_crt.backup._store._fetch import DamagedError, span_of
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import IntegrityError, SnapshotNotFoundError

T = TypeVar("T")
# Threads that read files again and sync them: disks like a few requests at once.
_DISK_THREADS = 4
_WHOLE_MANIFEST = ".whole-manifest"
# What a restore of some column families writes anew: those of another restore are not its own.
_REWRITTEN = ("manifest", "options")


class _Run(Protocol):
    def __call__(self, task: Task[T], /) -> T: ...


class RestorePlan(NamedTuple):
    """What a restore is to do.

    Attributes:
        run: Runs a task.
        store: The repository.
        snapshot: What to restore.
        target: Where to.
        overwrite: A database that is there may be replaced, whatever it is.
        delta: A copy of the same database may be replaced, and what is the same taken over.
        column_families: Only these; None for all.
        concurrency: Files at once.
        progress: Called with bytes done and total.
        dry_run: Only look.
        on_damage: Called with the key of an object that is damaged, and what is wrong with it.
        room: What to say where there is no room, of a restore that is for a while only; nothing of
            it is kept.
    """

    run: _Run
    store: Store
    snapshot: Snapshot
    target: Path
    overwrite: bool
    delta: bool
    column_families: Sequence[str] | None
    concurrency: int
    progress: Callable[[int, int], object] | None
    dry_run: bool
    on_damage: Callable[[str, str], object] | None
    room: Room | None = None


class _DamagedObjectError(DamagedError):
    """Damage of a known object."""

    def __init__(self, damage: DamagedError, file: SnapshotFile, where: str) -> None:
        super().__init__(damage.kind, where)
        self.key = file.stored.key


@dataclass(slots=True, eq=False, repr=False)
class _Work:
    """The directory that becomes the target, and what is in it."""

    directory: Path
    pool: Executor
    selection: Selection | None = None
    files: tuple[SnapshotFile, ...] = ()
    kept: set[str] = field(default_factory=set)
    reused: set[str] = field(default_factory=set)
    syncs: list[Future[None]] = field(default_factory=list)

    def finish(self, file: SnapshotFile) -> None:
        """Does what is left to do with a file that is there."""
        if self.selection is not None and file.kind == "options":
            _families.rewrite_options(self.directory / file.path, self.selection.names)
        self.sync(file.path)

    def sync(self, name: str) -> None:
        """Begins to bring a file to the disk, while others are still on their way."""
        self.syncs.append(self.pool.submit(_place.sync, self.directory / name))

    def size_of(self, names: set[str]) -> int:
        return sum(file.size for file in self.files if file.path in names)


def restore(plan: RestorePlan) -> RestoreReport:
    """Restores a snapshot to a directory; until the end the target is untouched."""
    started = time.monotonic()
    target = plan.target
    directory = _place.work_directory(target, plan.snapshot.id)
    room = plan.room or _room_beside(target, directory)
    with _place.look_at(target):
        _place.put_back(target)
        _place.check_target(target, plan.overwrite or plan.delta)
        replaces = target.is_dir() and _place.holds_database(target)
        if replaces:
            check_unused(target)
    replaces = replaces and plan.delta
    if replaces and not plan.overwrite:
        from kumo_crt.backup._restore import _delta

        _delta.check_same_database(target, plan.snapshot)
    if plan.dry_run:
        return _dry_run(plan, room, replaces)
    with (
        room_in(room.place, room.advice, is_hidden=room.is_hidden),
        _place.made(directory, target),
        ThreadPoolExecutor(_DISK_THREADS) as pool,
    ):
        work = _Work(directory, pool)
        try:
            try:
                _prepare(plan, work, room, replaces)
            except BaseException:
                _leave_nothing(work)
                raise
            downloaded = _fill(plan, work)
        except DamagedError as damage:
            raise _explained(plan, damage, directory) from damage
        moved = _place.move_into_place(directory, target, plan.overwrite or plan.delta)
    # From here on it has succeeded, whatever else happens.
    warnings = (moved.warning,) if moved.warning else _place.remove_left(target, moved.old)
    return RestoreReport(
        snapshot=plan.snapshot.id,
        target=str(target),
        files=len(work.files),
        total_bytes=sum(file.size for file in work.files),
        downloaded_bytes=downloaded,
        kept_bytes=work.size_of(work.kept),
        seconds=time.monotonic() - started,
        reused_bytes=work.size_of(work.reused),
        column_families=_family_names(plan, work.selection),
        warnings=warnings,
    )


def _room_beside(target: Path, directory: Path) -> Room:
    return Room(
        target.parent,
        "choose another place",
        "make room and run the restore again: it goes on where it was. The target is untouched; "
        f"what is there so far is kept in {directory}",
    )


def _dry_run(plan: RestorePlan, room: Room, replaces: bool) -> RestoreReport:
    files = plan.snapshot.files
    selection: Selection | None = None
    if plan.column_families is not None:
        import tempfile  # rarely needed, and slow to load

        with tempfile.TemporaryDirectory() as scratch:
            try:
                selection = plan.run(_select(plan, Path(scratch)))
            except DamagedError as damage:
                raise _explained(plan, damage, None) from damage
        files = selection.files
    total = sum(file.size for file in files)
    reused = 0
    if replaces:
        from kumo_crt.backup._restore import _delta

        reused = _delta.likely_bytes(plan.target, files)
    check_space(plan.target.parent, total - reused, elsewhere=room.elsewhere)
    return RestoreReport(
        snapshot=plan.snapshot.id,
        target=str(plan.target),
        files=len(files),
        total_bytes=total,
        downloaded_bytes=0,
        kept_bytes=0,
        seconds=0.0,
        reused_bytes=reused,
        column_families=_family_names(plan, selection),
    )


def _family_names(plan: RestorePlan, selection: Selection | None) -> tuple[str, ...]:
    if selection is None:
        return plan.snapshot.column_families
    return tuple(name for name in plan.snapshot.column_families if name in selection.names)


def _select(plan: RestorePlan, directory: Path) -> Task[Selection]:
    wanted = plan.column_families or ()
    path = directory / _WHOLE_MANIFEST
    try:
        return (yield from _families.select_task(plan.store, plan.snapshot, wanted, path))
    except DamagedError as damage:
        manifest = _families.manifest_of(plan.snapshot)
        raise _DamagedObjectError(damage, manifest, str(damage)) from damage


def _prepare(plan: RestorePlan, work: _Work, room: Room, replaces: bool) -> None:
    """Finds out what is needed, what of it is there, and whether there is room for the rest."""
    files: Iterable[SnapshotFile] = plan.snapshot.files
    if plan.column_families is not None:
        with _place.in_the_way(work.directory):
            _remove(work.directory / _WHOLE_MANIFEST)
        work.selection = plan.run(_select(plan, work.directory))
        files = work.selection.files
    work.files = tuple(files)
    with _place.in_the_way(work.directory):
        work.kept = _keep_good(work)
    if replaces:
        from kumo_crt.backup._restore import (
            _delta,  # loads what captures, which other restores do not need
        )

        wanted = [file for file in work.files if file.path not in work.kept]
        work.reused = _delta.link_matching(
            plan.target, work.directory, wanted, work.pool, plan.store.key
        )
    there = work.kept | work.reused
    needed = sum(file.size for file in work.files if file.path not in there)
    check_space(work.directory, needed, elsewhere=room.elsewhere, name=str(room.place))


def _leave_nothing(work: _Work) -> None:
    """Removes the directory again, unless an earlier restore has brought something."""
    with contextlib.suppress(OSError):
        for name in (_WHOLE_MANIFEST, *work.reused):
            _remove(work.directory / name)
        work.directory.rmdir()


def _keep_good(work: _Work) -> set[str]:
    """Names of files that an interrupted restore completed; everything else is removed."""
    never = ("current", *(_REWRITTEN if work.selection is not None else ()))
    wanted = {file.path: file for file in work.files if file.kind not in never}
    candidates = []
    for path in list(work.directory.iterdir()):
        file = wanted.get(path.name)
        fits = (
            file is not None
            and path.is_file()
            and not path.is_symlink()
            and path.stat().st_size == file.size
        )
        if fits:
            candidates.append(path)
        elif path.name != _WHOLE_MANIFEST or work.selection is None:
            _remove(path)
    if not candidates:
        return set()
    from kumo_crt.backup._format._names import crc32c_of

    kept = set()
    for path, crc in zip(candidates, work.pool.map(crc32c_of, candidates), strict=True):
        if crc == wanted[path.name].crc32c:
            kept.add(path.name)
        else:
            path.unlink()
    return kept


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _place.remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _fill(plan: RestorePlan, work: _Work) -> int:
    """Brings what is missing, rewrites what has to be, CURRENT last; returns bytes downloaded."""
    there = work.kept | work.reused
    meter = Meter(plan.progress, sum(file.size for file in work.files))
    meter.add(work.size_of(there))
    for name in there:
        work.sync(name)
    current = next(file for file in work.files if file.kind == "current")
    missing = [file for file in work.files if file.path not in there and file is not current]
    if work.selection is not None:
        # It came first, and a part of it takes its place.
        missing = [file for file in missing if file.kind != "manifest"]
        meter.add(_families.manifest_of(plan.snapshot).size)
    plan.run(_download_all(plan, work, missing, meter))
    if work.selection is not None:
        _rewrite(work, work.selection)
    for future in work.syncs:
        future.result()
    _place.sync(work.directory)
    (work.directory / "CURRENT").write_bytes(current.inline or b"")  # inline: the reader made sure
    _place.sync(work.directory / "CURRENT")
    _place.sync(work.directory)
    meter.add(current.size)
    meter.flush()
    return sum(file.stored_size for file in missing if file.inline is None)


def _download_all(
    plan: RestorePlan, work: _Work, files: list[SnapshotFile], meter: Meter
) -> Task[None]:
    alone = [file for file in files if file.offset is None or file.stored_size > _ranges.RUN]
    alone.sort(key=lambda file: file.size, reverse=True)
    together = (f for f in files if f.offset is not None and f.stored_size <= _ranges.RUN)
    runs = _ranges.runs_of(together)
    total = sum(file.stored_size for file in files)
    tasks = []
    for file in alone:
        span = span_of(plan.store, file.stored_size, total, plan.concurrency)
        tasks.append(_download(plan.store, work, file, meter, span))
    tasks += [_download_run(plan.store, work, run, meter) for run in runs]
    yield Gather(tasks, plan.concurrency)


def _download(store: Store, work: _Work, file: SnapshotFile, meter: Meter, span: int) -> Task[None]:
    path = work.directory / file.path
    try:
        yield from _families.materialise_task(store, file, path, meter, span)
    except DamagedError as damage:
        raise _DamagedObjectError(damage, file, f"{file.path}: {damage}") from damage
    work.finish(file)


def _download_run(store: Store, work: _Work, run: _ranges.Run, meter: Meter) -> Task[None]:
    def take(file: SnapshotFile, content: memoryview) -> None:
        (work.directory / file.path).write_bytes(content)
        work.finish(file)

    try:
        yield from _ranges.read_run_task(store, run, take, meter)
    except DamagedError as damage:
        damaged = damage.files if isinstance(damage, _ranges.PartsDamagedError) else run.files
        raise _DamagedObjectError(damage, damaged[0], f"{damaged[0].path}: {damage}") from damage


def _rewrite(work: _Work, selection: Selection) -> None:
    """Puts the MANIFEST of the selected column families in the place of the whole one."""
    name = next(file.path for file in work.files if file.kind == "manifest")
    whole = work.directory / _WHOLE_MANIFEST
    _families.write_manifest(selection, whole, work.directory / name)
    whole.unlink()
    work.sync(name)


def _explained(plan: RestorePlan, damage: DamagedError, directory: Path | None) -> Exception:
    """The error to raise for an object that could not be had."""
    if damage.kind == "archived":
        from kumo_crt.backup._restore import _thaw  # rarely needed, and slow to load

        return plan.run(_thaw.archived_error_task(plan.store, plan.snapshot))
    if damage.kind == "missing" and not plan.run(plan.store.has_snapshot(plan.snapshot.id)):
        return SnapshotNotFoundError(
            f"{plan.store.location}: snapshot {plan.snapshot.id} was deleted while it was being "
            "restored: restore another one"
        )
    if isinstance(damage, _DamagedObjectError) and plan.on_damage is not None:
        plan.on_damage(damage.key, damage.kind)
    kept = ""
    if plan.room is None and directory is not None and directory.is_dir():
        kept = (
            f" What was restored so far is kept in {directory}: the same restore, run again, goes "
            "on with it; one of another snapshot to this target removes it"
        )
    return IntegrityError(
        f"damaged in the repository: {str(damage).rstrip('.')}. The target is untouched: repair it "
        "from a database or copy that has the file (repair, kumo-crt repair), or restore another "
        f"snapshot.{kept}"
    )
