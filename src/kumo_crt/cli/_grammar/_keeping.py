"""Commands that decide what stays: prune, pin, unpin, forget."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable

from kumo_crt.cli._grammar import _options as options

COUNTED = {
    "last": "the newest N",
    "hourly": "the newest of each of the last N hours that have one",
    "daily": "the same for days",
    "weekly": "the same for weeks",
    "monthly": "the same for months",
}


def _count(text: str) -> int:
    """Reads how many snapshots a rule keeps."""
    if text in ("all", "unlimited", "-1"):
        from kumo_crt.backup._prune._retention import ALL

        return ALL
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{text!r}: expected a number, or -1 or all for all of them")
    return int(text)


def _span(text: str) -> str:
    from kumo_crt.backup._prune._retention import Within

    try:
        Within.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    pruning = command(
        "prune",
        "remove snapshots by rules, and data that no snapshot needs",
        "Remove the snapshots that no rule keeps (restic's meaning, for each database by itself, "
        "in UTC), and delete data that no snapshot needs. Without a rule only the latter. Data is "
        "marked first, and deleted by the next prune from half an hour later on: run it regularly. "
        "Backups may go on meanwhile",
    )
    options.url(pruning)
    for name, what in COUNTED.items():
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
