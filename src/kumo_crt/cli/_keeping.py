"""Commands that decide what stays: prune, pin, unpin, forget."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable

from kumo_crt.backup import PruneReport
from kumo_crt.backup._retention import ALL, Within
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _options as options
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._output import Output, fields
from kumo_crt.cli._repository import open_repository
from kumo_crt.cli._units import count_of, format_bytes, format_seconds

_COUNTED = {
    "last": "the newest N",
    "hourly": "the newest of each of the last N hours that have one",
    "daily": "the same for days",
    "weekly": "the same for weeks",
    "monthly": "the same for months",
}


def _count(text: str) -> int:
    """Reads how many snapshots a rule keeps."""
    if text in ("all", "unlimited", "-1"):
        return ALL
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{text!r}: expected a whole number, or all")
    return int(text)


def _span(text: str) -> str:
    try:
        Within.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands to the grammar."""
    pruning = command(
        "prune",
        "remove snapshots by rules, and data that no snapshot needs",
        "Remove the snapshots that no rule keeps (restic's meaning, for each database by itself, "
        "in UTC), and delete data that no snapshot needs. Without a rule only the latter. Data is "
        "marked first, and deleted by the next prune from half an hour later on: run it regularly. "
        "Backups may go on meanwhile",
    )
    options.url(pruning)
    for name, what in _COUNTED.items():
        pruning.add_argument(f"--keep-{name}", type=_count, metavar="N", help=f"keep {what}")
    pruning.add_argument(
        "--keep-within",
        type=_span,
        metavar="TIME",
        help="keep what is no older than this before the newest: 1y6m, 7d12h",
    )
    pruning.add_argument(
        "--wait", action="store_true", help="stay for half an hour, and delete what was marked"
    )
    pruning.add_argument(
        "--delete-versions",
        action="store_true",
        help="in a bucket with versioning: delete what was deleted for good",
    )
    options.budget(pruning)
    options.access(pruning)
    options.dry_run(pruning)

    one = "ID of a snapshot"
    pinning = command("pin", "keep a snapshot from being pruned or deleted")
    unpinning = command("unpin", "let a snapshot be pruned again")
    forgetting = "delete snapshots by their ids"
    about = "Delete snapshots by their ids. Data that no other needs goes with the next prunes"
    deleting = [command(name, forgetting, about) for name in ("forget", "delete-snapshot")]
    for parser in (pinning, unpinning, *deleting):
        options.url(parser)
        parser.add_argument("snapshot", metavar="ID", nargs="+", help=one)
        options.access(parser)
        options.dry_run(parser)


def prune(args: argparse.Namespace, output: Output) -> int:
    """Prunes a repository."""
    rules = {f"keep_{name}": getattr(args, f"keep_{name}") for name in (*_COUNTED, "within")}
    with (
        open_repository(args, output) as repository,
        progress.bar(output, "prune", counted=True) as report,
    ):
        result = repository.prune(
            **rules,
            dry_run=args.dry_run,
            wait=args.wait,
            delete_versions=args.delete_versions,
            progress=report,
        )
    output.document(fields(result))
    for warning in result.warnings:
        output.warning(warning)
    if not output.quiet:
        rows = {**dict.fromkeys(result.removed, ("remove", ""))}
        rows.update((i, ("keep", ", ".join(why))) for i, why in result.kept.items())
        if rows:
            output.table(("snapshot", "", "because"), [(i, *rows[i]) for i in sorted(rows)])
    _tell(result, output, ruled=any(rules.values()), versions=args.delete_versions)
    return errors.DONE


def _tell(result: PruneReport, output: Output, *, ruled: bool, versions: bool) -> None:
    """Says it in words."""
    would = "would be " if result.dry_run else ""
    if not ruled:
        output.message("no --keep rule was given: no snapshot is removed")
    output.message(
        f"{'dry run: ' if result.dry_run else ''}{count_of(len(result.removed), 'snapshot')} "
        f"{would}removed, {len(result.kept):,} kept; "
        f"{count_of(result.deleted_objects, 'object')}, {format_bytes(result.deleted_bytes)} "
        f"{would}deleted; {format_seconds(result.seconds)}"
    )
    if result.pending_until is not None:
        output.message(
            f"{count_of(result.pending_objects, 'object')}, {format_bytes(result.pending_bytes)} "
            f"more are not needed: the first prune after {result.pending_until:%H:%M:%S} UTC "
            "deletes them"
        )
    if result.protected_objects:
        output.message(
            f"{count_of(result.protected_objects, 'object')}, "
            f"{format_bytes(result.protected_bytes)} that no snapshot names belong to backups that "
            "are running, or were less than half an hour ago"
        )
    if result.wasted_bytes:
        output.message(
            f"{format_bytes(result.wasted_bytes)} in bundles are not needed, and go with the rest "
            "of their bundles"
        )
    if result.aborted_uploads:
        output.message(f"{count_of(result.aborted_uploads, 'unfinished upload')} aborted")
    if versions and not result.dry_run:
        output.message(
            f"{count_of(result.deleted_versions, 'version')}, "
            f"{format_bytes(result.deleted_version_bytes)} deleted for good"
        )
    elif result.versioned and (result.removed or result.deleted_objects):
        output.message(
            "the bucket keeps versions of what is deleted: they go by its lifecycle rules, or with "
            "--delete-versions"
        )
    if result.locked:
        output.message(f"{count_of(result.locked, 'version')} retained by Object Lock")


def _each(args: argparse.Namespace, output: Output, method: str, done: str, planned: str) -> int:
    with open_repository(args, output) as repository:
        for snapshot_id in args.snapshot:
            getattr(repository, method)(snapshot_id, dry_run=args.dry_run)
            output.message(f"snapshot {snapshot_id} {planned if args.dry_run else done}")
    output.document({"snapshots": args.snapshot, "done": done, "dry_run": args.dry_run})
    return errors.DONE


def pin(args: argparse.Namespace, output: Output) -> int:
    """Pins snapshots."""
    return _each(args, output, "pin", "pinned", "would be pinned")


def unpin(args: argparse.Namespace, output: Output) -> int:
    """Unpins snapshots."""
    return _each(args, output, "unpin", "unpinned", "would be unpinned")


def forget(args: argparse.Namespace, output: Output) -> int:
    """Deletes snapshots."""
    return _each(args, output, "delete_snapshot", "deleted", "would be deleted")


COMMANDS: dict[str, Callable[[argparse.Namespace, Output], int]] = {
    "prune": prune,
    "pin": pin,
    "unpin": unpin,
    "forget": forget,
    "delete-snapshot": forget,
}
