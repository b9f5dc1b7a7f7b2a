"""Drives one task, with all it gathers, on the calling thread; Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, TypeVar, cast

from kumo_crt import _core, _logging
from kumo_crt._engine._fibers import Fiber
from kumo_crt._engine._room import Room
from kumo_crt._engine._scheduler import Scheduler
from kumo_crt._engine._tasks import Blocking, Task
from kumo_crt._threads import patched, wait_in_hub

T = TypeVar("T")

# After Ctrl-C, how long a call waits for its tasks to clean up (abort their uploads) before it
# returns to the user and leaves the rest to the background.
INTERRUPT_GRACE = 0.12
# And how long that may take.
CLEAN_UP = 30.0
# Or at interpreter exit, for everything that is under way then.
EXIT_CLEAN_UP = 1.5
# And until a thread has noticed that this time is over.
_EXIT_NOTICE = 0.5
# How often progress is told, and how late a stop is noticed.
_WAIT = 0.1

# Threads that let the tasks of interrupted callers clean up.
_background: set[threading.Thread] = set()
_exit_deadline = float("inf")  # monotonic time


def run(task: Task[T], limit: int, room: Room | None = None) -> T:
    """Runs a task to its end on this thread.

    Args:
        task: The task.
        limit: Native operations in flight at once, over everything the task gathers.
        room: Memory that it reserves; by default 64 MiB of its own.

    Returns:
        What the task returns.
    """
    return cast("T", _Run(limit, room or Room(1 << 26)).run(task))


class _Run:
    def __init__(self, limit: int, room: Room) -> None:
        self._scheduler = Scheduler(limit, room, self._block)
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, task: Task[Any]) -> Any:
        _logging.refresh()
        scheduler = self._scheduler
        root = Fiber(task, self._done)
        scheduler.start(root)
        try:
            while True:
                scheduler.turn()
                if root.over:
                    break
                _wait(scheduler, _WAIT)
                if root.failure is not None:  # a progress callback has raised
                    raise root.failure
        except BaseException as error:
            self._unwind(root, error)
            raise
        del self._scheduler  # which knows this object: no cycle
        failed, self._error = self._error, None
        if failed is not None:
            try:
                raise failed
            finally:
                failed = None  # its traceback holds this frame: no cycle
        return self._result

    def _done(self, _: Fiber, value: Any, error: BaseException | None) -> None:
        self._result, self._error = value, error

    def _block(self, fiber: Fiber, blocking: Blocking) -> None:
        try:
            value = blocking.function()
        except Exception as error:
            # Not what interrupts: that is everybody's, and `_unwind` sees to it.
            self._scheduler.resume(fiber, None, error)
        else:
            self._scheduler.resume(fiber, value, None)

    def _unwind(self, root: Fiber, error: BaseException) -> None:
        """Cancels everything after an interrupt (or a failing callback) and lets it clean up."""
        interrupted = isinstance(error, KeyboardInterrupt)
        scheduler = self._scheduler
        with contextlib.suppress(KeyboardInterrupt):
            scheduler.recover(root)
            _clean_up(scheduler, [root], INTERRUPT_GRACE if interrupted else CLEAN_UP)
        if interrupted and not root.over:
            # The user gets the prompt back; the uploads still have to be aborted.
            finish_in_background(scheduler, [root])
        else:
            scheduler.drop()
        # Its traceback leads back here: a cycle that would keep the client alive.
        self._error = root.failure = None


def _wait(scheduler: Scheduler, longest: float) -> None:
    """Waits until a call is over, a sleeper's time has come, or the time is up."""
    wake = scheduler.next_wake
    wait = longest if wake is None else max(0.0, min(longest, wake - time.monotonic()))
    ids = _take(scheduler.queue, wait)
    if ids:
        scheduler.land(ids)
    scheduler.wake()
    _logging.refresh()
    if scheduler.metered:
        scheduler.count()


def _take(queue: _core.CompletionQueue, timeout: float) -> list[int]:
    if patched() is None:
        return queue.take(timeout)
    wait_in_hub(queue.fileno(), timeout)
    return queue.take(0)


def _clean_up(scheduler: Scheduler, roots: list[Fiber], seconds: float) -> None:
    """Drives cancelled tasks until they are over, or for some time."""
    until = time.monotonic() + seconds
    while True:
        scheduler.turn()
        left = min(until, _exit_deadline) - time.monotonic()
        if all(root.over for root in roots) or left <= 0:
            return
        _wait(scheduler, min(_WAIT, left))
        scheduler.land_lost()


def finish_in_background(scheduler: Scheduler, roots: list[Fiber]) -> None:
    """Lets cancelled tasks clean up in a thread of their own."""

    def finish() -> None:
        with contextlib.suppress(BaseException):  # there is nobody to tell
            _clean_up(scheduler, roots, CLEAN_UP)
        scheduler.drop()
        _background.discard(threading.current_thread())

    thread = threading.Thread(target=finish, name="kumo_crt-clean-up", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, or there are too many threads
        _clean_up(scheduler, roots, EXIT_CLEAN_UP)
        scheduler.drop()
        return
    _background.add(thread)
    if not thread.is_alive():  # and has taken itself off before it was put there
        _background.discard(thread)


def begin_exit() -> None:
    """At interpreter exit: all clean-up, in whatever thread, is to be over at the same time."""
    global _exit_deadline
    _exit_deadline = time.monotonic() + EXIT_CLEAN_UP


def finish_background() -> None:
    """Waits for the clean-up that goes on in the background, after `begin_exit`."""
    for thread in list(_background):
        thread.join(max(0.0, _exit_deadline + _EXIT_NOTICE - time.monotonic()))


os.register_at_fork(after_in_child=_background.clear)
