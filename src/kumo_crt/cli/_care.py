"""Commands that look after what is stored: snapshots, verify, repair, drill, doctor."""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime
from pathlib import Path

import kumo_crt
from kumo_crt.backup import DrillReport, Problem, SnapshotHealth, VerifyReport
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._client import open_client
from kumo_crt.cli._keys import key_of
from kumo_crt.cli._output import Output, fields, printable, timestamp
from kumo_crt.cli._repository import document, open_repository, thawed
from kumo_crt.cli._units import count_of, format_age, format_bytes, format_rate, format_seconds

# Kinds of damage that the next backup puts right.
_SENT_AGAIN = ("missing", "size", "checksum")


def snapshots(args: argparse.Namespace, output: Output) -> int:
    """Lists snapshots; with ``--max-age``, tells whether the newest is fresh enough."""
    with open_repository(args, output) as repository:
        unreadable: dict[str, str] = {}
        found = repository.health(
            on_damage=lambda snapshot_id, error: unreadable.update({snapshot_id: str(error)})
        )
    youngest = found[-1].age_seconds if found else None
    fresh = args.max_age is None or (youngest is not None and youngest <= args.max_age)
    output.document(
        {
            "repository": args.url,
            "fresh": fresh,
            "snapshots": [
                {
                    **document(item.snapshot),
                    "age_seconds": item.age_seconds,
                    "last_verified": item.last_verified,
                    "last_drill": item.last_drill,
                    "damaged": item.damaged,
                    "drill_failed": item.drill_failed,
                    "drill_problem": item.drill_problem,
                }
                for item in found
            ],
            "unreadable": unreadable,
        }
    )
    several = len({item.snapshot.db_id for item in found}) > 1
    if found:
        output.table(
            (
                *(("database",) if several else ()),
                "snapshot",
                "created (UTC)",
                ">age",
                ">files",
                ">size",
                ">new",
                ">sequence",
                "verified (UTC)",
                "",
                "tags",
            ),
            [
                (
                    *((item.snapshot.db_id,) if several else ()),
                    item.snapshot.id,
                    timestamp(item.snapshot.created_at),
                    format_age(item.age_seconds),
                    f"{len(item.snapshot.files):,}",
                    format_bytes(item.snapshot.total_bytes),
                    format_bytes(item.snapshot.uploaded_bytes),
                    str(item.snapshot.sequence_number),
                    _verified(item),
                    "pinned" if item.snapshot.pinned else "",
                    " ".join(f"{name}={value}" for name, value in item.snapshot.tags.items()),
                )
                for item in found
            ],
        )
    elif not unreadable:
        output.message("no snapshots")
    for snapshot_id, why in unreadable.items():
        output.result(f"snapshot {snapshot_id} DAMAGED: {printable(why)}")
    failed = _failed_drills(found)
    for item in failed:
        again = f"kumo-crt drill --snapshot {item.snapshot.id} tells why"
        output.result(
            f"the drill of snapshot {item.snapshot.id} at {timestamp(item.drill_failed)}Z FAILED "
            f"({item.drill_problem}), and none of it or a later one has succeeded since: {again}"
        )
    if unreadable:
        output.result(
            "kumo-crt repair brings a manifest back from its spare; else bring it back from a "
            "version or a copy, or forget the snapshot: nothing is pruned until then"
        )
    if not fresh:
        limit = format_age(args.max_age)
        old = None if youngest is None else f"the newest snapshot is {format_age(youngest)} old"
        output.result(f"{old}: older than {limit}" if old else f"none is {limit} old, or younger")
    damaged = unreadable or failed or any(item.damaged for item in found)
    return errors.DONE if fresh and not damaged else errors.DAMAGED


def _verified(item: SnapshotHealth) -> str:
    if item.damaged:
        return "DAMAGED"
    return "DRILL FAILED" if item.drill_failed else timestamp(item.last_verified) or "never"


def _failed_drills(found: list[SnapshotHealth]) -> list[SnapshotHealth]:
    """Of each database, the snapshot whose drill failed last, unless one has succeeded since.

    One of the same or a later snapshot: that an older one is good says nothing of the newest.
    """
    last: dict[str, tuple[datetime, SnapshotHealth]] = {}
    good: dict[str, datetime] = {}
    for item in reversed(found):  # the newest first: those before are later snapshots
        database, at = item.snapshot.db_id, item.drill_failed
        ended = good.get(database)
        if at is not None and (ended is None or ended < at):
            last[database] = max(last.get(database, (at, item)), (at, item), key=lambda x: x[0])
        if item.last_drill is not None:
            good[database] = max(item.last_drill, good.get(database, item.last_drill))
    return [item for _, item in last.values()]


def verify(args: argparse.Namespace, output: Output) -> int:
    """Checks a snapshot, or all."""
    with open_repository(args, output) as repository, progress.bar(output, "verify") as report:
        if args.request_thaw is not None and not thawed(args, output, repository):
            return errors.DAMAGED
        result = repository.verify(
            args.snapshot,
            level=args.level,
            subset=args.subset,
            max_bytes=args.max_bytes,
            record=False if args.no_record or args.dry_run else None,
            progress=report,
            max_concurrency=args.max_concurrency,
        )
    output.document({**fields(result), "dry_run": args.dry_run})
    for warning in result.warnings:
        output.warning(warning)
    what = f"snapshot {result.snapshot}"
    if result.snapshot == "all":
        what = count_of(result.snapshots, "snapshot")
    files = count_of(result.files, "file")
    if result.files != result.total_files:
        files += f" of {result.total_files:,}"
    if result.ok:
        verb = "are" if result.snapshot == "all" and result.snapshots != 1 else "is"
        output.message(
            f"{what} {verb} sound ({result.level}): {files}, "
            f"{format_bytes(result.bytes_read)} read; {format_seconds(result.seconds)}"
        )
        return errors.DONE
    _tell(output, result.problems)
    problems = count_of(len(result.problems), "problem")
    if all(problem.kind == "archived" for problem in result.problems):
        output.result(
            f"{what} cannot be read ({result.level}): {problems} in {files}, all of them archived: "
            "ask for readable copies (--request-thaw DAYS)"
        )
        return errors.DAMAGED
    if result.snapshot == "all":
        bad = {name for problem in result.problems for name in problem.snapshots}
        # Those whose manifests cannot be read are not counted as snapshots.
        what = f"{len(bad):,} of {what}" if len(bad) < result.snapshots else what
    output.result(f"{what} DAMAGED ({result.level}): {problems} in {files}")
    _tell_cure(output, result)
    return errors.DAMAGED


def repair(args: argparse.Namespace, output: Output) -> int:
    """Sends damaged and missing objects again."""
    with open_repository(args, output) as repository, progress.bar(output, "repair") as report:
        result = repository.repair(
            args.source,
            snapshot=args.snapshot,
            level=args.level,
            dry_run=args.dry_run,
            progress=report,
            max_concurrency=args.max_concurrency,
        )
    output.document(fields(result))
    for warning in result.warnings:
        output.warning(warning)
    if result.repaired:
        output.table(
            ("file", "damage", ">size", "sent from", "what was there"),
            [
                (
                    item.path,
                    item.kind,
                    format_bytes(item.size),
                    item.source,
                    item.quarantine or "",
                )
                for item in result.repaired
            ],
        )
    what = "dry run: would repair" if args.dry_run else "repaired"
    for label, ids in (("manifest", result.manifests), ("spare manifest", result.spares)):
        if ids:
            output.message(f"{what} {count_of(len(ids), label)}: {', '.join(ids)}")
    mended = result.manifests or result.spares
    if mended and not result.repaired and result.ok:
        return errors.DONE
    if not result.repaired and result.ok:
        output.message(f"nothing is damaged ({args.level}); {format_seconds(result.seconds)}")
        return errors.DONE
    output.message(
        f"{what} {count_of(len(result.repaired), 'object')}, "
        f"{format_bytes(sum(item.size for item in result.repaired))}; "
        f"{format_seconds(result.seconds)}"
    )
    if result.ok:
        return errors.DONE
    _tell(output, result.remaining)
    left = count_of(len(result.remaining), "problem")
    if all(problem.kind == "manifest" for problem in result.remaining):
        output.result(
            f"{left} left, all in manifests whose spares cannot help: bring them back from a "
            "version or a copy, or forget these snapshots"
        )
    elif all(problem.kind == "archived" for problem in result.remaining):
        output.result(
            f"{left} left, all archived: ask for readable copies with verify --snapshot "
            f"{args.snapshot} --request-thaw DAYS"
        )
    else:
        sources = ", ".join(map(printable, args.source))
        where = f"no file for it in {sources}" if sources else "name a database that has the files"
        output.result(f"{left} left: {where}")
    return errors.DAMAGED


def repair_config(args: argparse.Namespace, output: Output) -> int:
    """Writes a lost configuration anew."""
    key = key_of(args, output)
    with (
        open_client(args, output) as client,
        kumo_crt.Repository(
            args.url, client=client, environment=args.environment, encryption_key=key
        ) as repository,
    ):
        repository_id = repository.recover_config(dry_run=args.dry_run)
    output.document({"repository_id": repository_id, "dry_run": args.dry_run})
    output.message(
        f"{'dry run: would write' if args.dry_run else 'wrote'} the configuration of "
        f"{printable(args.url)} anew: repository {repository_id}"
        + (f", encrypted, key {key.id}" if key is not None else "")
    )
    return errors.DONE


def drill(args: argparse.Namespace, output: Output) -> int:
    """Restores to a scratch directory, opens and reads it all."""
    with open_repository(args, output) as repository, progress.bar(output, "drill") as report:
        if args.request_thaw is not None and not thawed(args, output, repository):
            return errors.DAMAGED
        if args.dry_run:
            return _dry_drill(args, output, repository)
        result = repository.drill(
            args.snapshot,
            scratch=args.scratch,
            max_rto=args.max_rto,
            max_age=args.max_age,
            record=False if args.no_record else None,
            progress=report,
            max_concurrency=args.max_concurrency,
        )
    output.document({**fields(result), "dry_run": False})
    # Without entries it got nowhere, and there is no time to tell.
    entries = (
        f", {count_of(sum(result.entries.values()), 'entry', 'entries')} in "
        f"{count_of(len(result.entries), 'column family', 'column families')}"
    )
    output.message(
        f"snapshot {result.snapshot}, {format_age(result.age_seconds)} old: "
        f"{count_of(result.files, 'file')}, {format_bytes(result.total_bytes)}"
        + (entries if result.entries else "")
    )
    if result.entries:
        output.message(
            f"recovered in {format_seconds(result.recovery_seconds)} (restored in "
            f"{format_seconds(result.restore_seconds)}, "
            f"{format_rate(result.total_bytes, result.restore_seconds)}; opened in "
            f"{format_seconds(result.open_seconds)}), read in {format_seconds(result.scan_seconds)}"
            + ("; as in the drill before" if result.compared and result.ok else "")
        )
    if result.ok:
        return errors.DONE
    damaged = tuple(problem for problem in result.problems if problem.key)
    if damaged:
        _tell(output, damaged)
    for problem in result.problems:
        if not problem.key:
            output.result(f"{problem.kind}: {problem.message}")
    output.result(f"the drill of snapshot {result.snapshot} FAILED")
    _tell_cure(output, result)
    return errors.DAMAGED


def _dry_drill(args: argparse.Namespace, output: Output, repository: kumo_crt.Repository) -> int:
    where = Path(args.scratch or tempfile.gettempdir())
    planned = repository.restore(where / "kumo-drill", args.snapshot, dry_run=True)
    output.document({**fields(planned), "target": where, "dry_run": True})
    output.message(
        f"dry run: would restore snapshot {planned.snapshot} below {printable(str(where))}, read "
        f"and remove it: {count_of(planned.files, 'file')}, {format_bytes(planned.total_bytes)}"
    )
    return errors.DONE


def doctor(args: argparse.Namespace, output: Output) -> int:
    """Looks a repository over."""
    key = key_of(args, output)
    with (
        open_client(args, output) as client,
        kumo_crt.Repository(
            args.url, client=client, environment=args.environment, encryption_key=key
        ) as repository,
    ):
        result = repository.doctor(write=not args.read_only)
    output.document(fields(result))
    shown = [item for item in result.findings if not (output.quiet and item.severity == "ok")]
    for item in shown:
        output.result(f"{item.severity.upper():<8}{item.check}: {printable(item.message)}")
        if item.fix and item.severity != "ok":
            output.result(f"{'':<8}-> {printable(item.fix)}")
    bad = {"error", "warning"} if args.strict else {"error"}
    return errors.DAMAGED if any(f.severity in bad for f in result.findings) else errors.DONE


def _tell(output: Output, problems: tuple[Problem, ...]) -> None:
    output.table(
        ("file", "damage", "column family", "keys", ">snapshots", "found"),
        [
            (
                item.path or item.key,
                item.kind,
                item.column_family or "",
                _range(item),
                f"{len(item.snapshots):,}",
                item.message,
            )
            for item in problems
        ],
    )


def _tell_cure(output: Output, result: VerifyReport | DrillReport) -> None:
    if result.recorded and any(problem.kind in _SENT_AGAIN for problem in result.problems):
        output.message(
            "the next backup of a database that still has these files sends them again; so does "
            "repair, from copies as well"
        )


def _range(problem: kumo_crt.Problem) -> str:
    if problem.smallest_key is None or problem.largest_key is None:
        return ""
    return f"{_key(problem.smallest_key)} .. {_key(problem.largest_key)}"


def _key(key: bytes) -> str:
    """A key for people: text if it is, else hexadecimal; not too long."""
    text = key.decode("ascii", "replace")
    shown = text if text.isprintable() and text.isascii() else "0x" + key.hex()
    return shown if len(shown) <= 40 else shown[:39] + "…"
