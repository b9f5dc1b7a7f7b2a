"""What the command writes: one JSON document, or text and tables for people."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kumo_crt.cli._errors import OutputClosedError

Document = Mapping[str, Any]


def printable(text: str) -> str:
    """Escapes what would move a terminal's cursor: keys and messages come from elsewhere."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def timestamp(moment: datetime | None) -> str:
    """A time for people: UTC, to the second."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def fields(value: Any) -> dict[str, Any]:
    """A result as the members of a JSON object."""
    import dataclasses  # takes long to load; who has a result has done so

    return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} in a JSON document")


class Output:
    """Where a command's results go.

    Args:
        as_json: One JSON document on standard output and nothing else.
        quiet: No messages about what was done.
        verbose: How often ``-v`` was given.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: int = 0) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose

    def document(self, document: Document) -> None:
        """Writes the JSON document, with ``--json``."""
        if self.as_json:
            self._write(json.dumps(document, default=_encode, indent=2) + "\n")

    def result(self, line: str) -> None:
        """Writes a line that was asked for; nothing with ``--json``."""
        if not self.as_json:
            self._write(line + "\n")

    def message(self, line: str) -> None:
        """Writes a line about what was done; nothing with ``--json`` or ``--quiet``."""
        if not self.quiet:
            self.result(line)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Writes a table; a column whose name begins with ``>`` is aligned to the right."""
        if self.as_json:
            return
        if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
            self._rich_table(columns, rows)
            return
        for line in plain_table(columns, rows):
            self._write(line + "\n")

    def _rich_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in columns:
            justify: Any = "right" if name.startswith(">") else "left"
            table.add_column(name.lstrip(">"), justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console = Console(highlight=False)
        with console.capture() as capture:
            console.print(table)
        self._write(capture.get())

    def raw(self, data: Any) -> None:
        """Writes bytes to standard output."""
        self._guard(lambda: sys.stdout.buffer.write(data))

    def flush(self) -> None:
        """Hands over what is buffered, so that a failure to do so is seen."""
        self._guard(sys.stdout.flush)

    def _write(self, text: str) -> None:
        self._guard(lambda: sys.stdout.write(text))

    @staticmethod
    def _guard(action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:
            raise OutputClosedError("standard output is closed") from None
        except OSError as error:
            error.filename = "standard output"
            raise

    def warning(self, text: str) -> None:
        """Tells on standard error of something that the user should know."""
        to_stderr(f"kumo-crt: warning: {text}")


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table of aligned text."""
    right = [name.startswith(">") for name in columns]
    table = [[name.lstrip(">") for name in columns]]
    table += [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]


def to_stderr(text: str) -> None:
    """Writes lines to standard error, if anybody is there."""
    lines = [printable(line) for line in text.splitlines()] or [""]
    with contextlib.suppress(OSError, ValueError):
        print("\n  ".join(lines), file=sys.stderr, flush=True)


def reserve_streams() -> None:
    """Opens the standard streams that whoever started this process has closed.

    The next files would have their numbers else, and get what libraries write to them. Input and
    output are opened the wrong way round: who uses them is told, and no empty object is stored.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def abandon_stdout() -> None:
    """Points standard output nowhere, so that the interpreter's last flush does not fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        finally:
            os.close(null)
