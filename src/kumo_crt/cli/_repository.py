"""Commands that move data: backup, restore."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import kumo_crt
from kumo_crt.backup import Snapshot
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._client import open_client
from kumo_crt.cli._errors import CommandError, UsageError
from kumo_crt.cli._keys import key_of
from kumo_crt.cli._output import Output, fields, printable
from kumo_crt.cli._units import count_of, format_bytes, format_rate, format_seconds
from kumo_crt.exceptions import SnapshotNotFoundError

# Of the backup, not of the snapshot.
_TOLD_ONCE = ("warnings", "resumed_bytes")


def document(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot without the list of its files, which can be very long."""
    shown = fields(snapshot)
    for name in _TOLD_ONCE:
        del shown[name]
    return {
        **shown,
        "files": len(snapshot.files),
        "single_object": snapshot.single_object,
    }


@contextlib.contextmanager
def open_repository(
    args: argparse.Namespace, output: Output, *, create: bool = False
) -> Iterator[kumo_crt.Repository]:
    """Opens the repository of a command; if there is none, it may be one that a backup creates."""
    key = key_of(args, output)
    with open_client(args, output) as client, contextlib.ExitStack() as stack:
        options: dict[str, Any] = {
            "client": client,
            "environment": args.environment,
            "encryption_key": key,
            "max_bytes_per_second": getattr(args, "max_bytes_per_second", None),
            "max_requests_per_second": getattr(args, "max_requests_per_second", None),
        }
        try:
            repository = kumo_crt.Repository.open(args.url, **options)
        except SnapshotNotFoundError:
            if not create:
                raise
            repository = kumo_crt.Repository(args.url, **options)
            kind = "repository" if key is None else f"repository (encrypted, key {key.id})"
            # Told when no progress bar is in the way any more.
            created = partial(
                stack.callback, output.message, f"created the {kind} {printable(args.url)}"
            )
            terms = {name: getattr(args, name) for name in TERMS}
            repository._create_with_first(created, **terms)
        with repository:
            yield repository


# How objects are stored is said once, when a repository is created.
TERMS = ("storage_class", "sse", "kms_key_id")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_terms(args: argparse.Namespace, repository: kumo_crt.Repository) -> None:
    """Whether a repository that was there already is what is asked for."""
    terms = repository._store().terms
    if terms is None:
        return  # it is going to be what is asked for
    for name in TERMS:
        wanted, there = getattr(args, name), getattr(terms, name)
        if wanted not in (None, there):
            raise CommandError(
                f"{args.url}: exists already, with {_option(name)} {there or 'unset'}, and that "
                f"cannot be changed to {wanted}: leave the option out, or create another repository"
            )


def backup(args: argparse.Namespace, output: Output) -> int:
    """Backs up a database directory."""
    begun = time.monotonic()
    if args.create:
        from kumo_crt.backup._capture import directory_of  # restores do not need it

        directory_of(args.db)  # a word misspelt is told first
    elif asked := [option for option in TERMS if getattr(args, option) is not None]:
        raise UsageError(f"{_option(asked[0])} goes with --create: a repository keeps what it has")
    with (
        open_repository(args, output, create=args.create) as repository,
        progress.bar(output, "backup") as report,
    ):
        _check_terms(args, repository)
        snapshot = repository.backup(
            args.db,
            live=True,
            data_paths=args.data_path,
            compact_first=args.compact_first,
            single_object=args.single_object,
            tags=dict(args.tag),
            progress=report,
            max_concurrency=args.max_concurrency,
            dry_run=args.dry_run,
        )
        to_come = repository._coming is not None
    if to_come:
        output.message(f"dry run: would create the repository {printable(args.url)}")
    seconds = time.monotonic() - begun
    for warning in snapshot.warnings:
        output.warning(warning)
    output.document(
        {
            "snapshot": document(snapshot),
            "dry_run": args.dry_run,
            "seconds": seconds,
            **{name: getattr(snapshot, name) for name in _TOLD_ONCE},
        }
    )
    done = "would send" if args.dry_run else "sent"
    before = ""
    if snapshot.resumed_bytes:
        before = f"{format_bytes(snapshot.resumed_bytes)} had been sent by an interrupted backup, "
    name = "dry run" if args.dry_run else f"snapshot {snapshot.id}"
    output.message(
        f"{name}: {count_of(len(snapshot.files), 'file')}, {format_bytes(snapshot.total_bytes)}; "
        f"{done} {format_bytes(snapshot.uploaded_bytes - snapshot.resumed_bytes)}, {before}"
        f"{format_bytes(snapshot.reused_bytes)} already stored; {format_seconds(seconds)}"
    )
    if snapshot.single_object is not None and not args.dry_run:
        output.message(f"as one object: {printable(args.url.rstrip('/'))}/{snapshot.single_object}")
    return errors.DONE


def thawed(args: argparse.Namespace, output: Output, repository: kumo_crt.Repository) -> bool:
    """Asks for copies of archived objects; True if everything can be read now."""
    report = repository.request_thaw(args.snapshot, days=args.request_thaw, dry_run=args.dry_run)
    if report.ready:
        return True
    output.document({"thaw": fields(report), "dry_run": args.dry_run})
    asked = "dry run: would ask" if args.dry_run else "asked"
    what = "all snapshots" if report.snapshot == "all" else f"snapshot {report.snapshot}"
    output.result(
        f"{what}: {asked} for readable copies of "
        f"{count_of(report.requested, 'archived object')} ({format_bytes(report.requested_bytes)}) "
        f"for {count_of(report.days, 'day')}; {report.ongoing:,} on their way, "
        f"{report.thawed:,} there. Run this again when all are"
    )
    return False


def restore(args: argparse.Namespace, output: Output) -> int:
    """Restores a snapshot."""
    with open_repository(args, output) as repository, progress.bar(output, "restore") as report:
        if args.request_thaw is not None and not thawed(args, output, repository):
            return errors.DAMAGED
        result = repository.restore(
            args.target,
            args.snapshot,
            at=args.at,
            progress=report,
            delta=args.delta,
            overwrite=args.overwrite,
            column_families=args.column_family,
            max_concurrency=args.max_concurrency,
            dry_run=args.dry_run,
        )
    for warning in result.warnings:
        output.warning(warning)
    output.document({**fields(result), "dry_run": args.dry_run})
    kept = f", {format_bytes(result.kept_bytes)} were there already" if result.kept_bytes else ""
    if result.reused_bytes:
        kept += f", {format_bytes(result.reused_bytes)} taken over"
    rate = format_rate(result.downloaded_bytes, result.seconds)
    output.message(
        f"{'dry run: would restore' if args.dry_run else 'restored'} snapshot {result.snapshot} "
        f"to {printable(result.target)}: {count_of(result.files, 'file')}, "
        f"{format_bytes(result.total_bytes)}{kept}"
        + ("" if args.dry_run else f"; {format_seconds(result.seconds)}, {rate}")
    )
    return errors.DONE
