"""Ctrl-C, SIGTERM and SIGHUP: one exception, once, and never in the middle of a clean-up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from kumo_crt.cli._errors import Terminated

# How long a clean-up may take before another Ctrl-C ends the process at once.
_PATIENCE = 15.0


class _State:
    first = 0.0  # when the first signal came
    number = 0  # which it was
    deferred = 0  # depth of `deferred` blocks
    pending = False  # it came inside one, and is still to be raised


def _raise() -> None:
    _State.pending = False
    if _State.number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(_State.number)


def _answer(number: int, frame: FrameType | None) -> None:
    if not _State.first:
        _State.first, _State.number = time.monotonic(), number
        if _State.deferred:
            _State.pending = True
        else:
            _raise()
    elif time.monotonic() - _State.first > _PATIENCE:
        os._exit(128 + number)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turns the first SIGINT into `KeyboardInterrupt`, SIGTERM or SIGHUP into `Terminated`.

    SIGHUP is what a terminal that goes away sends: links to the files of a database stay otherwise.

    Later ones are for a process that is on its way out already: they do nothing, or end it if that
    takes too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.first, _State.pending = 0.0, False
    # Whoever started us with a signal ignored (nohup, a shell's &) wants it to stay so.
    before = {
        number: signal.signal(number, _answer)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        # After a signal the process is about to end, and the interpreter's exit is not to be
        # interrupted either.
        if not _State.first:
            for number, old in before.items():
                # None: a handler that was not installed from Python.
                signal.signal(number, signal.SIG_DFL if old is None else old)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keeps signals back until the block has ended."""
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1
        if _State.pending and not _State.deferred:
            _raise()


@contextlib.contextmanager
def cleaned_up() -> Iterator[contextlib.ExitStack]:
    """A stack that is unwound whatever signal comes, and when."""
    stack = contextlib.ExitStack()
    try:
        try:
            yield stack
        finally:
            with deferred():
                stack.close()
    finally:
        # For a signal between the lines above; there is no second one. Else there is nothing left.
        with deferred():
            stack.close()
