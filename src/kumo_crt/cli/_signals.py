"""Ctrl-C, SIGTERM and SIGHUP: one exception, once, and never in the middle of a clean-up."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from kumo_crt.cli._errors import Terminated

# How long a clean-up may take before another Ctrl-C ends the process at once.
_PATIENCE = 15.0
_IMPORT_PAUSE = 0.001
_IMPORT_FILE = "<frozen importlib._bootstrap>"


class _State:
    first = 0.0  # when the first signal came
    number = 0  # which it was
    deferred = 0  # depth of `deferred` blocks
    pending = False  # it is still to be raised
    outermost: FrameType | None = None  # whoever called this may be a module that is loaded


def _raise() -> None:
    _State.pending = False
    if _State.number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(_State.number)


def _answer(number: int, frame: FrameType | None) -> None:
    if not _State.first:
        _State.first, _State.number, _State.pending = time.monotonic(), number, True
    elif time.monotonic() - _State.first > _PATIENCE:
        os._exit(128 + number)
    if _State.pending and not _State.deferred:
        if _is_importing(frame):
            # Not a timer: starting one takes locks, which what was interrupted may hold.
            _thread.start_new_thread(_again, (number,))
        else:
            _raise()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded, where an interrupt is not to be raised.

    `exec`, with which named tuples and data classes are made, has Python end the process by SIGINT
    instead of with an exit code; and extensions that load one another (`PyCapsule_Import`, as in
    xml.etree) turn it into an ImportError, which is caught where there is a way without them.
    """
    while frame is not None and frame is not _State.outermost:
        if frame.f_code.co_filename == _IMPORT_FILE:
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    time.sleep(_IMPORT_PAUSE)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


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
    _State.outermost = sys._getframe(2)  # beyond contextlib
    # Whoever started us with a signal ignored (nohup, a shell's &) wants it to stay so.
    before = {
        number: signal.signal(number, _answer)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        _State.outermost = None
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
    """A stack that is unwound whatever signal comes, and when; it is told of what was raised."""
    stack = contextlib.ExitStack()
    try:
        try:
            yield stack
        except BaseException as error:
            with deferred():
                stack.__exit__(type(error), error, error.__traceback__)
            raise
        with deferred():
            stack.close()
    finally:
        # For a signal between the lines above; there is no second one. Else there is nothing left.
        with deferred():
            stack.close()
