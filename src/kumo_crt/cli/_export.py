"""Commands that move keys: export, import."""

from __future__ import annotations

import argparse
from typing import Any

from kumo_crt import export
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._client import open_client
from kumo_crt.cli._output import Output, fields, printable
from kumo_crt.cli._units import count_of, format_bytes, format_seconds
from kumo_crt.export._encoding import to_json


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
            max_requests_per_second=args.max_requests_per_second,
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
            max_bytes_per_second=args.max_bytes_per_second,
            max_requests_per_second=args.max_requests_per_second,
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
