"""A progress bar on standard error: only on a terminal, and only with rich."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator

from kumo_crt.cli._output import Output

Report = Callable[[int, int], None]


def is_shown(output: Output) -> bool:
    """Whether there is anybody to see a progress bar."""
    return (
        not output.quiet
        # Log lines and a bar on one terminal garble each other.
        and not output.verbose
        and sys.stderr is not None
        and sys.stderr.isatty()
        and os.environ.get("TERM") != "dumb"
        and importlib.util.find_spec("rich") is not None
    )


@contextlib.contextmanager
def bar(output: Output, title: str, *, counted: bool = False) -> Iterator[Report | None]:
    """Shows a progress bar while the block runs.

    Args:
        output: Where results go.
        title: What is done.
        counted: It is things that are counted, not bytes.

    Yields:
        What to call with what is done and the total (0: not known); None where no bar is shown.
    """
    if not is_shown(output):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (MofNCompleteColumn(),) if counted else (DownloadColumn(), TransferSpeedColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    # Transient: the bar gives way to the summary.
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total or None)

        yield report
