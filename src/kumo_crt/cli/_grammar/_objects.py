"""Commands for single objects: put, get, ls, rm."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kumo_crt.cli import _units as units
from kumo_crt.cli._grammar import _options as options


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    put = command("put", "store a file as an object")
    put.add_argument("file", metavar="FILE", help="- reads standard input")
    put.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    options.dry_run(put)

    get = command("get", "read an object into a file")
    get.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    get.add_argument("file", metavar="FILE", help="- writes to standard output")
    options.dry_run(get)

    listing = command("ls", "list objects")
    listing.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/prefix")
    listing.add_argument(
        "-r", "--recursive", action="store_true", help="all keys, not one level of them"
    )

    remove = command("rm", "delete an object")
    remove.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    remove.add_argument(
        "-r", "--recursive", action="store_true", help="what is below the key, as a path, too"
    )
    options.dry_run(remove)
