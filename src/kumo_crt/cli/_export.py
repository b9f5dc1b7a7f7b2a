"""Commands that move keys: export, import."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from kumo_crt import export
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _options as options
from kumo_crt.cli import _progress as progress
from kumo_crt.cli import _units as units
from kumo_crt.cli._client import open_client
from kumo_crt.cli._output import Output, fields, printable
from kumo_crt.cli._units import count_of, format_bytes, format_seconds
from kumo_crt.export._encoding import to_json

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
    """Adds these commands to the grammar."""
    out = command(
        "export",
        "store keys and values as files of their own",
        "Store a column family, or a range of its keys, as sorted SST files or as JSON lines: the "
        "state of one moment, also of a database that another process has open. Keys are texts, or "
        "bytes written as hex:00ff",
    )
    out.add_argument("db", metavar="DB", help="directory of the database")
    options.url(out)
    out.add_argument("--column-family", metavar="NAME", default="default", help="default: default")
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
    out.add_argument(
        "--max-bytes-per-second", type=units.size, metavar="SIZE", help="such as 50MB or 50MiB"
    )
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
        "--column-family", metavar="NAME", help="default: where the keys came from; made if needed"
    )
    back.add_argument(
        "--add",
        action="store_true",
        help="the column family may have keys: those of the export are added, and win",
    )
    options.concurrency(back)
    options.dry_run(back)


def _document(info: export.ExportInfo) -> dict[str, Any]:
    shown = fields(info)
    for name in ("start", "stop"):
        shown[name] = None if shown[name] is None else to_json(shown[name])
    return {**shown, "files": len(info.files)}


def run_export(args: argparse.Namespace, output: Output) -> int:
    """Exports keys."""
    with open_client(args, output) as client, progress.bar(output, "export") as report:
        result = export.export(
            args.db,
            args.url,
            client=client,
            column_family=args.column_family,
            prefix=args.prefix,
            start=args.start,
            stop=args.stop,
            encoding=args.format,
            live=True,
            data_paths=args.data_path,
            file_bytes=args.file_size,
            progress=report,
            max_bytes_per_second=args.max_bytes_per_second,
            max_concurrency=args.max_concurrency,
            dry_run=args.dry_run,
        )
    info = result.info
    output.document({"export": _document(info), "dry_run": args.dry_run, "seconds": result.seconds})
    what = f"{count_of(info.entries, 'key')} of column family {printable(info.column_family)!r}"
    if args.dry_run:
        output.message(f"dry run: would export {what}, {format_bytes(info.total_bytes)}")
    else:
        output.message(
            f"exported {what} to {printable(info.url)}: {count_of(len(info.files), 'file')}, "
            f"{format_bytes(info.total_bytes)}; {format_seconds(result.seconds)}"
        )
    return errors.DONE


def run_import(args: argparse.Namespace, output: Output) -> int:
    """Imports an export."""
    with open_client(args, output) as client, progress.bar(output, "import") as report:
        result = export.import_(
            args.url,
            args.db,
            client=client,
            column_family=args.column_family,
            add=args.add,
            progress=report,
            max_concurrency=args.max_concurrency,
            dry_run=args.dry_run,
        )
    output.document(
        {
            "export": _document(result.info),
            "target": result.target,
            "column_family": result.column_family,
            "dry_run": args.dry_run,
            "seconds": result.seconds,
        }
    )
    output.message(
        f"{'dry run: would import' if args.dry_run else 'imported'} "
        f"{count_of(result.info.entries, 'key')}, {format_bytes(result.info.total_bytes)}, into "
        f"column family {printable(result.column_family)!r} of {printable(result.target)}"
        + ("" if args.dry_run else f"; {format_seconds(result.seconds)}")
    )
    return errors.DONE


COMMANDS: dict[str, Callable[[argparse.Namespace, Output], int]] = {
    "export": run_export,
    "import": run_import,
}
