"""Commands that look after what is stored."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kumo_crt.cli import _units as units
from kumo_crt.cli._grammar import _options as options

LEVELS = ("quick", "stored", "full", "restore")


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    snapshots = command(
        "snapshots",
        "list the snapshots of a repository, newest last",
        "List the snapshots of a repository, newest last: age, size, what was new, and since when "
        "every byte has been verified. Exits with 3 if damage is known, or a drill failed and none "
        "of that or a later snapshot has succeeded since",
    )
    options.url(snapshots)
    snapshots.add_argument(
        "--max-age",
        type=units.duration,
        metavar="TIME",
        help="exit with 3 if the newest is older, or there is none, such as 26h",
    )
    options.access(snapshots)

    verify = command(
        "verify",
        "check that a snapshot can be restored",
        "Check a snapshot, or all. quick: every object is there with its size; stored: also the "
        "checksums that S3 stores; full: every byte is read; restore: see drill. What was read in "
        "full is remembered in the repository",
    )
    options.url(verify)
    verify.add_argument(
        "--snapshot", metavar="ID", default="latest", help="or all; default: latest"
    )
    verify.add_argument("--level", choices=LEVELS, default="stored", help="default: stored")
    verify.add_argument(
        "--subset",
        metavar="N/T",
        help="the n-th of t parts; with full also oldest/T: a t-th, what was not read for longest",
    )
    verify.add_argument(
        "--max-bytes",
        type=units.size,
        metavar="SIZE",
        help="with full: no more than this, but for one object, what was not read for longest "
        "first",
    )
    options.request_thaw(verify)
    options.no_record(verify)
    options.budget(verify)
    options.concurrency(verify)
    options.access(verify)
    options.dry_run(verify, "write nothing: as --no-record, and ask for no readable copies")

    doctor = command(
        "doctor",
        "look a repository over, and say what to do",
        "Look at connection, clock, bucket, permissions (tried one by one with scratch objects), "
        "throughput and contents of a repository. Exits with 3 if something is wrong",
    )
    options.url(doctor)
    doctor.add_argument(
        *("-n", "--dry-run", "--read-only"),
        action="store_true",
        dest="read_only",
        help="write nothing, not even scratch",
    )
    doctor.add_argument("--strict", action="store_true", help="exit with 3 for warnings too")
    options.access(doctor)

    repair = command(
        "repair",
        "bring back damaged and lost objects: manifests, and what a database still has",
        "Put back lost and damaged manifests from their spares; look for other damaged and missing "
        "objects, and send them again from databases, checkpoints or restored copies that still "
        "have the files. What is replaced is kept under quarantine/. Exits with 3 if something is "
        "left",
    )
    options.url(repair)
    repair.add_argument(
        "source", metavar="DB", nargs="*", help="directory with files; none: repair manifests only"
    )
    repair.add_argument(
        "--snapshot", metavar="ID", default="all", help="where to look; default: all"
    )
    repair.add_argument(
        "--level",
        choices=LEVELS[:3],
        default="stored",
        help="how to look for damage, as in verify; default: stored",
    )
    options.budget(repair)
    options.concurrency(repair)
    options.access(repair)
    options.dry_run(repair)

    config = command(
        "repair-config",
        "write the configuration of a repository anew, if it was lost",
        "Write kumo-repository.json anew, where snapshots are there and it is not: their manifests "
        "tell what was in it. If the snapshots are encrypted, their key is needed",
    )
    options.url(config)
    options.access(config)
    options.dry_run(config)

    drill = command(
        "drill",
        "prove that a snapshot can be restored, and measure how long it takes",
        "Restore a snapshot to a scratch directory, open it, read every entry, compare what can be "
        "compared, and remove it again. Exits with 3 if something is wrong or a limit is passed",
    )
    options.url(drill)
    options.snapshot(drill)
    drill.add_argument(
        "--scratch", metavar="DIR", help="with room for the database; default: temporary files"
    )
    drill.add_argument(
        "--max-rto", type=units.duration, metavar="TIME", help="recovery may take no longer"
    )
    drill.add_argument(
        "--max-age", type=units.duration, metavar="TIME", help="the snapshot may be no older"
    )
    options.request_thaw(drill)
    options.no_record(drill)
    options.budget(drill)
    options.concurrency(drill)
    options.access(drill)
    options.dry_run(drill, "only look whether there is a snapshot, and room for it")
