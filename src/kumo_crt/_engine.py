"""Runs tasks.

A *task* is a generator that yields what it waits for and is sent the outcome:

* a `Call`: one native operation; the answer is a `_core.Response`;
* a `Gather`: further tasks, a bounded number at once; the answer is the list of their results;
* a `Sleep`: to go on after some time.

`run` drives one task, with all it gathers, on the calling thread; the calls run natively. If a task
fails, what was gathered beside it is cancelled: a task sees that as `Cancelled` at its ``yield``,
and may still yield calls to clean up after itself. Ctrl-C does the same to everything.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

from kumo_crt import _core, _logging

T = TypeVar("T")
Task: TypeAlias = Generator[Any, Any, T]

# After Ctrl-C, how long a call waits for its tasks to clean up (abort their uploads) before it
# returns to the user and leaves the rest to the background.
INTERRUPT_GRACE = 0.12
# And how long that may take.
_CLEAN_UP = 30.0
_WAIT = 0.1
_ids = itertools.count(1)


class Cancelled(BaseException):
    """Thrown into a task whose result nobody wants any more."""


@dataclass(slots=True)
class Call:
    """One native operation; see `_core.Client.submit` for the fields it passes on."""

    client: _core.Client
    operation: str
    method: str
    endpoint: str
    target: str
    headers: list[tuple[str, str]]
    body: object = None
    send_crc32c: bool = False
    sink: object = None
    crc32c_of_response: bool = False
    stop_after: int = 0
    meter: Meter | None = None


@dataclass(slots=True)
class Gather:
    """Tasks to run beside each other, at most ``limit`` at once, taken lazily."""

    tasks: Iterable[Task[Any]]
    limit: int


@dataclass(slots=True)
class Sleep:
    """Time in seconds after which the task goes on."""

    seconds: float


class Throttle:
    """Spreads bytes over time, for all tasks that share it.

    Args:
        bytes_per_second: The rate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        if not bytes_per_second > 0:
            raise ValueError(f"bytes per second is {bytes_per_second}: it must be above 0")
        self._rate = bytes_per_second
        self._free = 0.0

    def take(self, count: int) -> Task[None]:
        """Waits until ``count`` bytes may be sent."""
        now = time.monotonic()
        start = max(now, self._free)
        self._free = start + count / self._rate
        if start > now:
            yield Sleep(start - now)


class Meter:
    """Counts bytes done and tells a callback, at most ten times a second and at the end.

    Args:
        callback: Called with bytes done and bytes in total.
        total: Bytes in total; 0 where that is not known.
        parent: A meter that counts the same bytes, among others'.
    """

    def __init__(
        self,
        callback: Callable[[int, int], object] | None,
        total: int,
        parent: Meter | None = None,
    ) -> None:
        self.done = 0
        self.total = total
        self._parent = parent
        self._callback = callback
        self._next = 0.0
        self._told = -1

    def add(self, count: int) -> None:
        """Counts ``count`` more bytes; less than none when a transfer starts again."""
        self.done += count
        if self._parent is not None:
            self._parent.add(count)
        now = time.monotonic()
        if self._callback is not None and now >= self._next:
            self._next = now + 0.1
            self.flush()

    def expect(self, total: int) -> None:
        """Sets the total, if it is not known yet."""
        self.total = self.total or total

    def flush(self) -> None:
        """Tells the callback where things stand, if it does not know yet."""
        if self._callback is not None and self._told != self.done:
            self._told = self.done
            self._callback(self.done, self.total)


@dataclass(slots=True, eq=False)
class _Group:
    parent: _Fiber
    tasks: Iterator[Task[Any]]
    limit: int
    results: list[Any] = field(default_factory=list)
    active: set[_Fiber] = field(default_factory=set)
    exhausted: bool = False
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Fiber:
    task: Task[Any]
    group: _Group | None = None  # the one it belongs to
    index: int = 0
    waits_for: _Group | None = None
    call_id: int | None = None
    cancel: bool = False  # to be told at its next turn
    cancelled: bool = False  # has been told


@dataclass(slots=True)
class _InFlight:
    fiber: _Fiber
    call: Call
    operation: _core.Operation
    counted: int = 0


# Threads that let the tasks of interrupted callers clean up.
_background: list[threading.Thread] = []
_stopping = threading.Event()


def finish_background(timeout: float) -> None:
    """Waits for clean-up that goes on in the background, at interpreter exit; then stops it."""
    deadline = time.monotonic() + timeout
    for thread in list(_background):
        thread.join(max(0.0, deadline - time.monotonic()))
    _stopping.set()
    for thread in list(_background):
        thread.join(1.0)


def run(task: Task[T], limit: int) -> T:
    """Runs a task to its end on this thread.

    Args:
        task: The task.
        limit: Native operations in flight at once, over everything the task gathers.

    Returns:
        What the task returns.
    """
    return cast("T", _Run(limit).run(task))


class _Run:
    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._queue = _core.CompletionQueue()
        self._ready: deque[tuple[_Fiber, Any, BaseException | None]] = deque()
        self._pending: deque[tuple[_Fiber, Call]] = deque()
        self._flying: dict[int, _InFlight] = {}
        self._sleeping: list[tuple[float, int, _Fiber]] = []  # a heap
        self._over = False
        self._unwinding = False
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, task: Task[Any]) -> Any:
        root = _Fiber(task)
        self._ready.append((root, None, None))
        _logging.refresh()
        try:
            self._loop(None)
        except BaseException as error:
            self._unwind(root, error)
            raise
        failed, self._error = self._error, None
        if failed is not None:
            try:
                raise failed
            finally:
                failed = None  # its traceback holds this frame: no cycle
        return self._result

    def _unwind(self, root: _Fiber, error: BaseException) -> None:
        """Cancels everything after an interrupt (or a failing callback) and lets it clean up."""
        self._unwinding = True
        self._cancel(root)
        interrupted = isinstance(error, KeyboardInterrupt)
        with contextlib.suppress(KeyboardInterrupt):
            self._loop(time.monotonic() + (INTERRUPT_GRACE if interrupted else _CLEAN_UP))
        if interrupted and not self._over:
            # The user gets the prompt back; the uploads still have to be aborted.
            thread = threading.Thread(target=self._finish, name="kumo_crt-clean-up", daemon=True)
            _background.append(thread)
            thread.start()
        else:
            self._flying.clear()  # cancelled by being dropped
        # Its traceback leads back here: a cycle that would keep the client alive.
        self._error = None

    def _finish(self) -> None:
        with contextlib.suppress(BaseException):  # there is nobody to tell
            self._loop(time.monotonic() + _CLEAN_UP)
        self._flying.clear()
        _background.remove(threading.current_thread())

    def _loop(self, deadline: float | None) -> None:
        while not self._over:
            while self._ready:
                fiber, value, error = self._ready.popleft()
                self._step(fiber, value, error)
            self._submit()
            if self._over or self._ready:
                continue
            if deadline is not None and (time.monotonic() >= deadline or _stopping.is_set()):
                return
            wait = _WAIT if deadline is None else min(_WAIT, deadline - time.monotonic())
            if self._sleeping:
                wait = min(wait, self._sleeping[0][0] - time.monotonic())
            # An id that is not known: Ctrl-C struck between its submission and its entry.
            done = [i for i in self._queue.take(max(wait, 0.0)) if i in self._flying]
            landed = [self._landed(call_id) for call_id in done]
            self._wake()
            _logging.refresh()
            if not self._unwinding:
                self._count(landed)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._sleeping and self._sleeping[0][0] <= now:
            self._ready.append((heapq.heappop(self._sleeping)[2], None, None))

    def _step(self, fiber: _Fiber, value: Any, error: BaseException | None) -> None:
        if fiber.cancel and not fiber.cancelled:
            fiber.cancelled = True
            error = Cancelled()
        try:
            wanted = fiber.task.send(value) if error is None else fiber.task.throw(error)
        except StopIteration as stop:
            self._finished(fiber, stop.value, None)
        except BaseException as raised:
            self._finished(fiber, None, raised)
        else:
            if isinstance(wanted, Call):
                self._pending.append((fiber, wanted))
            elif isinstance(wanted, Sleep):
                until = time.monotonic() + wanted.seconds
                heapq.heappush(self._sleeping, (until, next(_ids), fiber))
            else:
                group = _Group(fiber, iter(wanted.tasks), max(1, wanted.limit))
                fiber.waits_for = group
                self._fill(group)

    def _finished(self, fiber: _Fiber, value: Any, error: BaseException | None) -> None:
        group = fiber.group
        if group is None:
            self._over, self._result, self._error = True, value, error
            return
        group.active.discard(fiber)
        if error is None:
            group.results[fiber.index] = value
        else:
            self._fail(group, error)
        self._fill(group)

    def _fill(self, group: _Group) -> None:
        while not group.exhausted and len(group.active) < group.limit:
            try:
                task = next(group.tasks)
            except StopIteration:
                group.exhausted = True
            except BaseException as failure:
                self._fail(group, failure)
            else:
                child = _Fiber(task, group, len(group.results))
                group.results.append(None)
                group.active.add(child)
                self._ready.append((child, None, None))
        if group.exhausted and not group.active and group.parent.waits_for is group:
            group.parent.waits_for = None
            error, group.error = group.error, None
            self._ready.append((group.parent, group.results, error))

    def _fail(self, group: _Group, error: BaseException) -> None:
        if group.error is None:
            group.error = error
        group.exhausted = True
        for child in list(group.active):
            self._cancel(child)

    def _cancel(self, fiber: _Fiber) -> None:
        if fiber.cancel:
            return
        fiber.cancel = True
        if fiber.waits_for is not None:
            self._fail(fiber.waits_for, Cancelled())
        elif fiber.call_id is not None:
            self._flying[fiber.call_id].operation.cancel()
        else:
            for item in self._pending:
                if item[0] is fiber:
                    self._pending.remove(item)
                    self._ready.append((fiber, None, None))
                    return
            for sleeper in self._sleeping:
                if sleeper[2] is fiber:
                    self._sleeping.remove(sleeper)
                    heapq.heapify(self._sleeping)
                    self._ready.append((fiber, None, None))
                    return

    def _submit(self) -> None:
        while self._pending and len(self._flying) < self._limit:
            fiber, call = self._pending.popleft()
            call_id = next(_ids)
            try:
                operation = call.client.submit(
                    self._queue,
                    call_id,
                    operation=call.operation,
                    method=call.method,
                    endpoint=call.endpoint,
                    target=call.target,
                    headers=call.headers,
                    body=call.body,
                    send_crc32c=call.send_crc32c,
                    sink=call.sink,
                    crc32c_of_response=call.crc32c_of_response,
                    stop_after=call.stop_after,
                )
            except Exception as error:
                self._ready.append((fiber, None, error))
                continue
            fiber.call_id = call_id
            self._flying[call_id] = _InFlight(fiber, call, operation)

    def _landed(self, call_id: int) -> tuple[_InFlight, _core.Response]:
        item = self._flying.pop(call_id)
        item.fiber.call_id = None
        response = item.operation.response()
        self._ready.append((item.fiber, response, None))
        return item, response

    def _count(self, landed: list[tuple[_InFlight, _core.Response]]) -> None:
        """Tells the meters how far things are; last, because their callbacks may raise."""
        for item, response in landed:
            if item.call.meter is not None and response.error_code != 0:
                item.call.meter.add(-item.counted)
            elif item.call.meter is not None:
                item.call.meter.expect(item.operation.expected)
                item.call.meter.add(response.received - item.counted)
        for item in self._flying.values():
            if item.call.meter is not None:
                item.call.meter.expect(item.operation.expected)
                moved = item.operation.transferred
                item.call.meter.add(moved - item.counted)
                item.counted = moved


def _forget_after_fork() -> None:
    _background.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
