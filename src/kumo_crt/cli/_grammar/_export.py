"""Commands that move keys: export, import."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable

from kumo_crt.cli import _units as units
from kumo_crt.cli._grammar import _options as options

_HEX = "hex:"


def _key(text: str) -> bytes:
    """Reads a key: a text, or bytes as ``hex:00ff``.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not text.startswith(_HEX):
        return text.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(text.removeprefix(_HEX))
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: expected hexadecimal digits behind hex:") from None


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds these commands."""
    out = command(
        "export",
        "store keys and values as files of their own",
        "Store a column family, or a range of its keys, as sorted SST files or as JSON lines: the "
        "state of one moment, also of a database that another process has open. Keys are texts, or "
        "bytes written as hex:00ff",
    )
    out.add_argument("db", metavar="DB", help="directory of the database")
    options.url(out)
    out.add_argument(
        "--column-family", type=str, metavar="NAME", default="default", help="default: default"
    )
    out.add_argument("--prefix", type=_key, metavar="KEY", help="only keys that begin so")
    out.add_argument("--start", type=_key, metavar="KEY", help="only keys from this one on")
    out.add_argument("--stop", type=_key, metavar="KEY", help="only keys before this one")
    out.add_argument("--format", choices=("sst", "jsonl"), default="sst", help="default: sst")
    out.add_argument(
        "--file-size",
        type=units.size,
        default=units.size("64MiB"),
        metavar="SIZE",
        help="keys and values in one file; default: 64MiB",
    )
    options.data_path(out)
    options.budget(out)
    options.concurrency(out)
    options.dry_run(out)

    back = command(
        "import",
        "bring an export into a database",
        "Bring an export into a database that no process has open, or into a new one: all of it at "
        "once, after everything was downloaded and checked",
    )
    options.url(back)
    back.add_argument("db", metavar="DB", help="directory of the database; made if it is not there")
    back.add_argument(
        "--column-family",
        type=str,
        metavar="NAME",
        help="default: where the keys came from; made if needed",
    )
    back.add_argument(
        "--add",
        action="store_true",
        help="the column family may have keys: those of the export are added, and win",
    )
    options.budget(back)
    options.concurrency(back)
    options.dry_run(back)
