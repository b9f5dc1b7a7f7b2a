"""`kumo-crt demo`: a live database, backed up, destroyed, restored and compared."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kumo_crt
from kumo_crt.backup import Snapshot
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._demo_site import Site, is_embedded, planned, site
from kumo_crt.cli._errors import CommandError, UsageError
from kumo_crt.cli._output import Output, fields, printable
from kumo_crt.cli._signals import cleaned_up, deferred
from kumo_crt.cli._units import count_of, format_bytes, format_rate, format_seconds
from kumo_crt.cli._workload import Truth, Workload, compare

_MIN_SIZE = 5_000_000
# Of the size, on the disk of the temporary directory: database and server hold it once each, and
# the writer adds to both.
_SPACE_EMBEDDED, _SPACE_ELSEWHERE, _SPACE_MARGIN = 2.7, 1.4, 100_000_000
# How much is written between the backups, of the batches that filled the database.
_MORE = 0.15


@dataclass
class Step:
    """One line of the table."""

    step: str
    seconds: float = 0.0
    bytes: int | None = None
    objects: int | None = None

    @property
    def bytes_per_second(self) -> float | None:
        """Throughput."""
        return self.bytes / self.seconds if self.bytes is not None and self.seconds > 0 else None


@dataclass
class Report:
    """What the demo did so far, on its way to the screen or to JSON."""

    output: Output
    steps: list[Step] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=lambda: {"batches_written_during_backups": 0})

    def header(self) -> None:
        """Writes the table's header."""
        self._line("step", "bytes", "objects", "seconds", "throughput")

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times a step and writes its line when it is done."""
        step = Step(name)
        begun = time.monotonic()
        yield step
        step.seconds = time.monotonic() - begun
        self.add(step)

    def add(self, step: Step) -> None:
        """Writes the line of a step that is done."""
        self.steps.append(step)
        self._line(
            step.step,
            "" if step.bytes is None else format_bytes(step.bytes),
            "" if step.objects is None else f"{step.objects:,}",
            f"{step.seconds:.2f}",
            "" if step.bytes is None else format_rate(step.bytes, step.seconds),
        )

    def _line(self, step: str, size: str, objects: str, seconds: str, rate: str) -> None:
        # Line by line as it happens: a table could only be shown at the end.
        line = f"  {step:34}{size:>9}{objects:>9}{seconds:>9}{rate:>13}"
        self.output.message(line.rstrip())
        self.output.flush()

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        steps = [{**fields(step), "bytes_per_second": step.bytes_per_second} for step in self.steps]
        return {**self.facts, "steps": steps}


def _check_means(args: argparse.Namespace) -> None:
    if args.size < _MIN_SIZE:
        raise UsageError(f"--size: at least {format_bytes(_MIN_SIZE)}")
    if importlib.util.find_spec("rocksdict") is None:
        raise CommandError("rocksdict is not installed: run  pip install 'kumo-crt[demo]'")
    factor = _SPACE_EMBEDDED if is_embedded(args) else _SPACE_ELSEWHERE
    needed = int(args.size * factor) + _SPACE_MARGIN
    directory = tempfile.gettempdir()
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise CommandError(
            f"{directory}: the demo needs {format_bytes(needed)}, {format_bytes(free)} are free: "
            "choose a smaller --size, or set TMPDIR"
        )


def demo(args: argparse.Namespace, output: Output) -> int:
    """Runs the demo."""
    _check_means(args)
    if args.dry_run:
        return _dry_run(args, output)
    report = Report(output)
    output.message("A live RocksDB is backed up to a real S3 server, destroyed, and restored.")
    begun = time.monotonic()
    with cleaned_up() as stack:
        with deferred():
            # Its removal comes last: everything else works in it.
            directory = Path(tempfile.mkdtemp(prefix="kumo-demo-"))
            stack.callback(_remove, directory, args.keep)
        place = stack.enter_context(site(args, output, directory))
        output.message(f"Server: {place.server}\nFiles:  {directory}\n")
        report.facts.update(server=place.server, repository=place.url, size=args.size)
        report.header()
        report.add(Step("start the server", place.seconds))
        try:
            _run(args, output, report, place, directory)
        except CommandError as error:
            raise CommandError(f"demo: {error}", {**report.document(), "ok": False}) from error
    seconds = time.monotonic() - begun
    report.facts.update(ok=True, seconds=seconds)
    output.document(report.document())
    _tell_end(args, output, place, directory, seconds)
    return errors.DONE


def _dry_run(args: argparse.Namespace, output: Output) -> int:
    place = planned(args, output)
    output.document({"size": args.size, "server": place, "dry_run": True})
    output.message(
        f"dry run: would make a database of {format_bytes(args.size)} in {tempfile.gettempdir()}, "
        f"back it up to {printable(place)}, destroy it, restore it, compare every key, and remove "
        "everything"
    )
    return errors.DONE


def _remove(directory: Path, keep: bool) -> None:
    if not keep or not (directory / "restored").exists():
        shutil.rmtree(directory, ignore_errors=True)


def _tell_end(
    args: argparse.Namespace, output: Output, place: Site, directory: Path, seconds: float
) -> None:
    took = format_seconds(seconds)
    if not args.keep:
        output.message(f"Done in {took}; everything is removed again.")
        return
    kept = f"the restored database is in {directory / 'restored'}"
    if not is_embedded(args):
        kept += f", the repository at {place.url}"
    output.message(f"Done in {took}; {kept}.")


def _run(
    args: argparse.Namespace, output: Output, report: Report, place: Site, directory: Path
) -> None:
    with kumo_crt.Repository.create(
        place.url, client=place.client, environment="demo"
    ) as repository:
        snapshot, truth = _backups(args.size, output, report, place, repository, directory)
        target = directory / "restored"
        with report.step("restore") as step, progress.bar(output, "restore") as bar:
            restored = repository.restore(target, snapshot.id, progress=bar)
            step.bytes, step.objects = restored.downloaded_bytes, _stored_files(snapshot)
        with report.step("open, compare every key and value") as step:
            keys, step.bytes = compare(target, truth, snapshot.sequence_number)
        with report.step("verify in full") as step, progress.bar(output, "verify") as bar:
            verified = repository.verify(snapshot.id, level="full", progress=bar)
            step.bytes, step.objects = verified.bytes_read, verified.files
        if not verified.ok:
            raise CommandError(f"verify found damage: {verified.problems[0].message}")
    report.facts.update(keys_compared=keys, sequence_number=snapshot.sequence_number)
    output.message(
        f"\n{count_of(keys, 'key')} compared with what was written up to sequence number "
        f"{snapshot.sequence_number:,}: all equal."
    )
    batches = report.facts["batches_written_during_backups"]
    output.message(f"While the backups ran, {count_of(batches, 'batch', 'batches')} were written.")
    share = 100 * snapshot.uploaded_bytes / snapshot.total_bytes
    output.message(
        f"The second backup sent {format_bytes(snapshot.uploaded_bytes)} of "
        f"{format_bytes(snapshot.total_bytes)} ({share:.1f} %); the rest was there already."
    )


def _backups(
    size: int,
    output: Output,
    report: Report,
    place: Site,
    repository: kumo_crt.Repository,
    directory: Path,
) -> tuple[Snapshot, Truth]:
    """Makes a database, backs it up twice while it is written to, and destroys it.

    Returns:
        The second snapshot, and what has to be in it.
    """
    path = directory / "db"
    workload = Workload(path, size)
    try:
        with report.step("make the database") as step, progress.bar(output, "write") as bar:
            total = workload.plan.base_batches
            while workload.batches < total:
                workload.write_next()
                if bar is not None:
                    bar(size * workload.batches // total, size)
            workload.db.flush()
            step.objects, step.bytes = workload.live_files()
        workload.start()
        first = _backup(1, output, report, place, repository, workload)
        with report.step("write and delete more") as step:
            before = workload.bytes_written
            workload.write_more(max(20, int(_MORE * total)))
            step.bytes = workload.bytes_written - before
        second = _backup(2, output, report, place, repository, workload)
        report.facts["snapshots"] = [
            {**fields(snapshot), "files": len(snapshot.files)} for snapshot in (first, second)
        ]
        workload.write_more(1)  # the database is no longer what the snapshot is
        workload.stop()
        truth = workload.truth_at(second.sequence_number)
        workload.truth_at(first.sequence_number)
        with report.step("destroy the database"):
            workload.close()
            shutil.rmtree(path)
    finally:
        workload.close()
    return second, truth


def _backup(
    number: int,
    output: Output,
    report: Report,
    place: Site,
    repository: kumo_crt.Repository,
    workload: Workload,
) -> Snapshot:
    before = _count_data_objects(place)
    batches = workload.batches
    name = f"backup {number}"
    with (
        report.step(f"{name}, while it is written to") as step,
        progress.bar(output, name) as bar,
    ):
        snapshot = repository.backup(workload.db, tags={"demo": str(number)}, progress=bar)
        step.bytes = snapshot.uploaded_bytes
        step.objects = _count_data_objects(place) - before
        meanwhile = workload.batches - batches
    workload.check()
    report.facts["batches_written_during_backups"] += meanwhile
    return snapshot


def _count_data_objects(place: Site) -> int:
    return sum(1 for _ in place.client.list_objects(place.bucket, f"{place.prefix}data/"))


def _stored_files(snapshot: Snapshot) -> int:
    return sum(1 for file in snapshot.files if file.key is not None)
