"""Commands that bring a database to S3 and back: backup, restore."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kumo_crt.cli import _units as units
from kumo_crt.cli._grammar import _options as options


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    backup = command(
        "backup",
        "back up a database",
        "Back up a database, which another process may have open and write to, or a checkpoint "
        "directory. Only what the repository does not have yet is sent",
    )
    backup.add_argument("db", metavar="DB", help="directory of the database")
    backup.add_argument("url", metavar="URL", type=units.repository_url, help="s3://bucket/prefix")
    backup.add_argument(
        "--create",
        action="store_true",
        help="create the repository if needed, of this --environment; with a key it is encrypted",
    )
    options.terms(backup, "--create")
    backup.add_argument(
        "--tag",
        type=units.tag,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keep this with the snapshot; may be repeated",
    )
    options.data_path(backup)
    backup.add_argument(
        "--compact-first",
        action="store_true",
        help="compact the database before, with rocksdict; it must be closed",
    )
    backup.add_argument(
        "--single-object",
        action="store_true",
        help="send everything, as one object: a tar that also unpacks without kumo-crt (if the "
        "repository is encrypted, to sealed files)",
    )
    options.budget(backup)
    options.concurrency(backup)
    options.access(backup)
    options.dry_run(backup)

    restore = command("restore", "restore a snapshot into a directory")
    restore.add_argument("url", metavar="URL", type=units.repository_url, help="s3://bucket/prefix")
    restore.add_argument("target", metavar="TARGET", help="directory; new or empty")
    options.snapshot(restore)
    restore.add_argument(
        "--overwrite", action="store_true", help="replace a database that is in TARGET"
    )
    restore.add_argument(
        "--delta",
        action="store_true",
        help="replace a copy of the same database, and keep the files that are the same",
    )
    restore.add_argument(
        "--column-family",
        action="append",
        type=str,
        metavar="NAME",
        help="restore only this one; may be repeated",
    )
    restore.add_argument(
        "--at", metavar="TIME|SEQ", help="a point in time; needs a replicator's logs"
    )
    options.request_thaw(restore)
    options.budget(restore)
    options.concurrency(restore)
    options.access(restore)
    options.dry_run(restore)
