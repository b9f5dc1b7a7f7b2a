"""Commands that decide what stays: prune, pin, unpin, forget."""

from __future__ import annotations

import argparse

from kumo_crt.backup import PruneReport
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._grammar._keeping import COUNTED
from kumo_crt.cli._output import Output, fields
from kumo_crt.cli._repository import open_repository
from kumo_crt.cli._units import count_of, format_bytes, format_seconds


def prune(args: argparse.Namespace, output: Output) -> int:
    """Prunes a repository."""
    rules = {f"keep_{name}": getattr(args, f"keep_{name}") for name in (*COUNTED, "within")}
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
    if not any(rules.values()):
        zero = any(rule is not None for rule in rules.values())
        why = "0 is no --keep rule, and there is no other" if zero else "no --keep rule was given"
        output.message(f"{why}: no snapshot is removed")
    _tell(result, output, versions=args.delete_versions)
    return errors.DONE


def _tell(result: PruneReport, output: Output, *, versions: bool) -> None:
    """Says it in words."""
    would = "would be " if result.dry_run else ""
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
    if versions:
        output.message(
            f"{count_of(result.deleted_versions, 'version')}, "
            f"{format_bytes(result.deleted_version_bytes)} {would}deleted for good"
        )
    elif result.versioned and (result.removed or result.deleted_objects):
        output.message(
            "the bucket keeps versions of what is deleted: they go by its lifecycle rules, or with "
            "--delete-versions"
        )
    if result.locked:
        output.message(f"{count_of(result.locked, 'version')} retained by Object Lock")


def _each(args: argparse.Namespace, output: Output, method: str, done: str, planned: str) -> int:
    snapshots = list(dict.fromkeys(args.snapshot))
    with open_repository(args, output) as repository:
        change = getattr(repository, method)
        if len(snapshots) > 1 and not args.dry_run:
            # All of them or, where one cannot be, none: nobody has to find out which were done.
            for snapshot_id in snapshots:
                change(snapshot_id, dry_run=True)
        for snapshot_id in snapshots:
            change(snapshot_id, dry_run=args.dry_run)
            output.message(f"snapshot {snapshot_id} {planned if args.dry_run else done}")
    output.document({"snapshots": snapshots, "done": done, "dry_run": args.dry_run})
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
