"""Commands beside repositories: keygen, demo, bench, completion."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kumo_crt.cli import _units as units
from kumo_crt.cli._grammar import _options as options

SHELLS = ("bash", "zsh", "fish")


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    making = command(
        "keygen",
        "make a key for encrypted repositories",
        "Make a random key, in a new file that only you can read. A repository that is created "
        "with it (backup --create --key-file FILE) is encrypted before anything is sent. Keep a "
        "copy apart from the backups: without the key nothing can be restored",
    )
    making.add_argument("file", metavar="FILE", help="must not exist")
    options.dry_run(making)

    demo = command(
        "demo",
        "watch a live database being backed up, destroyed, restored and compared",
        "Make a database, back it up to a real S3 server while it is written to, destroy it, "
        "restore it and compare every key. Needs no configuration: without --endpoint-url and "
        "--bucket the server is SeaweedFS on this machine. Everything is removed at the end",
    )
    demo.add_argument("--size", type=units.size, default=units.size("300MB"), help="default: 300MB")
    demo.add_argument(
        "--bucket",
        help="an existing bucket to use, at --endpoint-url or where the AWS settings say (default: "
        "make one at --endpoint-url)",
    )
    demo.add_argument(
        "--keep",
        action="store_true",
        help="keep the restored database, and the repository that is on a server of yours",
    )
    options.dry_run(demo, "only look whether all that it needs is there")

    bench = command(
        "bench",
        "measure what an endpoint gives from here",
        "Upload and download a large object, put and get small ones, and tell throughput and "
        "latency. Works under a new prefix of URL, and removes everything at the end",
    )
    bench.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/prefix")
    bench.add_argument(
        "--size",
        type=units.size,
        default=units.size("100MB"),
        help="of the large object, which is in memory twice; default: 100MB",
    )
    bench.add_argument(
        "--rounds", type=units.positive, default=3, metavar="N", help="of it; default: 3"
    )
    bench.add_argument(
        "--objects", type=units.positive, default=1000, metavar="N", help="default: 1000"
    )
    bench.add_argument(
        "--object-size", type=units.size, default=4096, metavar="SIZE", help="default: 4096"
    )
    bench.add_argument(
        "--concurrency",
        type=units.positive,
        default=16,
        metavar="N",
        help="small requests at once; default: 16",
    )
    options.dry_run(bench)

    completing = command(
        "completion",
        "write a script that lets a shell complete command lines",
        "Write a script that lets a shell complete commands and options; its first lines say where "
        "it goes",
    )
    completing.add_argument(
        "shell", metavar="SHELL", nargs="?", choices=SHELLS, help=f"{', '.join(SHELLS)} (SHELL)"
    )
