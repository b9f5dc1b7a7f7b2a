"""Steps tasks: which of them can go on, and which calls are in flight.

A `Scheduler` never waits. Whoever drives it (a thread that waits, `_run`; an event loop,
`_asyncio`) tells it which calls are over and what time it is, and takes its turn.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kumo_crt import _core
from kumo_crt._engine._fibers import Fiber, Group
from kumo_crt._engine._room import Room
from kumo_crt._engine._tasks import (
    Blocking,
    Call,
    Cancelled,
    First,
    Gather,
    Reserve,
    Sleep,
)

# Seconds after which it is looked for room again.
_LOOK = 0.02
# Ids of calls and of sleeps.
_ids = itertools.count(1)


class Scheduler:
    """Tasks, and the calls that they have in flight.

    Args:
        limit: Native operations in flight at once.
        room: Memory that tasks reserve, which others may share.
        block: Starts a `Blocking`; ends with a call of `resume`, at once or later on.
    """

    def __init__(self, limit: int, room: Room, block: Callable[[Fiber, Blocking], None]) -> None:
        self.queue = _core.CompletionQueue()
        self._limit = max(1, limit)
        self._room = room
        self._block = block
        self._ready: deque[tuple[Fiber, Any, BaseException | None]] = deque()
        # All three may hold stale entries, of fibers that were cancelled meanwhile.
        self._pending: deque[Fiber] = deque()
        self._reserving: deque[Fiber] = deque()
        self._sleeping: list[tuple[float, int, Fiber]] = []  # a heap
        self._flying: dict[int, Fiber] = {}
        self._metered: dict[int, Fiber] = {}
        self._turning = False
        # Of what is reserved: not this, which the client would be kept alive by.
        self._owner = object()
        # The fiber in whose favour something is being done; an interrupt may strike anywhere.
        self._current: Fiber | None = None

    @property
    def metered(self) -> bool:
        """Whether there are transfers in flight whose progress somebody wants to know."""
        return bool(self._metered)

    @property
    def next_wake(self) -> float | None:
        """Monotonic time at which a fiber has to go on."""
        wake = self._sleeping[0][0] if self._sleeping else None
        if self._reserving:  # nobody tells when another operation gives room back
            soon = time.monotonic() + _LOOK
            wake = soon if wake is None else min(wake, soon)
        return wake

    # -- for the driver --------------------------------------------------------------------

    def start(self, fiber: Fiber) -> None:
        """Begins a task with the next turn."""
        fiber.begun = True
        self._ready.append((fiber, None, None))

    def turn(self) -> None:
        """Steps whatever can go on, then submits calls."""
        if self._turning:
            return
        self._turning = True
        try:
            ready = self._ready
            while (
                ready
                or (self._reserving and self._grant())
                or (self._pending and self._submit_pending())
            ):
                self._current = ready[0][0]
                # Not by way of variables: the traceback of an error holds this frame, too.
                self._step(*ready.popleft())
            self._current = None
        finally:
            self._turning = False

    def land(self, ids: Iterable[int]) -> None:
        """Takes the answers of calls that are over."""
        for call_id in ids:
            # An id that is not known: Ctrl-C struck between its submission and its entry.
            fiber = self._flying.get(call_id)
            if fiber is None or fiber.operation is None:
                continue
            operation = fiber.operation
            response: _core.Response | None
            try:
                response = operation.response()
            except Exception as error:
                response = None
                self._ready.append((fiber, None, error))
            else:
                self._ready.append((fiber, response, None))
                fiber.kept = fiber.call is not None and fiber.call.kept
            call, fiber.call, fiber.operation = fiber.call, None, None
            self._flying.pop(call_id, None)
            if self._metered.pop(call_id, None) and call and response:
                self._count_landed(fiber, call, operation, response)

    def resume(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        """Tells the outcome of a `Blocking`."""
        self._ready.append((fiber, value, error))

    def wake(self) -> None:
        """Lets those go on whose time has come."""
        now = time.monotonic()
        while self._sleeping and self._sleeping[0][0] <= now:
            _, sleep_id, fiber = heapq.heappop(self._sleeping)
            if fiber.sleep_id == sleep_id:
                fiber.sleep_id = 0
                self._ready.append((fiber, None, None))

    def count(self) -> None:
        """Tells the meters how far the calls in flight are."""
        for fiber in list(self._metered.values()):
            operation, call = fiber.operation, fiber.call
            if operation is None or call is None or call.meter is None or fiber.cancel:
                continue
            moved = operation.transferred
            try:
                call.meter.expect(operation.expected)
                call.meter.add(moved - fiber.counted)
            except BaseException as error:
                self.fail(fiber.root(), error)
            fiber.counted = moved

    def fail(self, root: Fiber, error: BaseException) -> None:
        """Cancels a call; ``error`` is what its caller gets to see."""
        if root.failure is None:
            # No future takes a StopIteration, and no caller should see one.
            stops = isinstance(error, StopIteration)
            root.failure = RuntimeError("a callback raised StopIteration") if stops else error
        self.cancel(root)

    def cancel(self, fiber: Fiber) -> None:
        """Throws `Cancelled` into a fiber at its next turn, and sees to it that it comes soon."""
        if fiber.cancel or fiber.over:
            return
        fiber.cancel = True
        group = fiber.gathers
        if group is not None:
            self._fail_group(group, Cancelled())
            self._fill(group)
        elif fiber.operation is not None:
            if fiber.call is None or not fiber.call.kept:
                fiber.operation.cancel()
        elif fiber.call is not None or fiber.sleep_id or fiber.reserves:
            fiber.call, fiber.sleep_id, fiber.reserves = None, 0, 0
            self._ready.append((fiber, None, None))

    def recover(self, root: Fiber) -> None:
        """Cancels a call after an interrupt that may have struck anywhere in here."""
        fiber, self._current = self._current, None
        if fiber is not None and not fiber.over:
            waits = fiber.gathers is not None or fiber.call_id in self._flying
            if not waits and all(item[0] is not fiber for item in self._ready):
                fiber.call, fiber.operation, fiber.sleep_id, fiber.reserves = None, None, 0, 0
                self._ready.append((fiber, None, None))
        self.cancel(root)

    def land_lost(self) -> None:
        """Takes the answers of calls whose ids an interrupt lost on their way here."""
        over = [i for i, f in self._flying.items() if f.operation is not None and f.operation.done]
        self.land(over)

    def drop(self) -> None:
        """Gives up what is in flight; the operations are cancelled by that."""
        self._metered.clear()
        for fiber in self._flying.values():
            fiber.operation = None
        self._flying.clear()
        self._pending.clear()
        self._sleeping.clear()

    # -- fibers ----------------------------------------------------------------------------

    def _step(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        kept, fiber.kept = fiber.kept, False
        if fiber.cancel and not fiber.cancelled and not kept:
            fiber.cancelled = True
            error = Cancelled()
        try:
            wanted = fiber.task.send(value) if error is None else fiber.task.throw(error)
        except StopIteration as stop:
            self._finished(fiber, stop.value, None)
        except BaseException as raised:
            # Its traceback holds this frame: no cycle, which would keep the client alive.
            error = None
            self._finished(fiber, None, raised)
        else:
            kind = type(wanted)
            if kept and fiber.cancel:
                self._ready.append((fiber, None, None))
            elif kind is Call:
                fiber.call = wanted
                waits = self._pending or len(self._flying) >= self._limit
                if waits and not wanted.urgent:
                    self._pending.append(fiber)
                else:
                    self._submit(fiber, wanted)
            elif kind is Gather:
                fiber.gathers = group = Group(fiber, wanted)
                self._fill(group)
            elif kind is Sleep:
                fiber.sleep_id = next(_ids)
                until = time.monotonic() + wanted.seconds
                heapq.heappush(self._sleeping, (until, fiber.sleep_id, fiber))
            elif kind is Blocking:
                self._block(fiber, wanted)
            elif kind is Reserve:
                fiber.reserves = max(1, wanted.size)
                self._reserving.append(fiber)
            else:
                mistake = TypeError(f"a task yields a {kind.__name__}")
                self._ready.append((fiber, None, mistake))

    def _finished(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        fiber.over = True
        group = fiber.group
        if group is None:
            if fiber.failure is not None:
                value, error = None, fiber.failure
            if fiber.done is not None:
                fiber.done(fiber, value, error)
            return
        if fiber is group.first:
            group.first = None
            self._fill(group, value, error)
            error = None  # no cycle, see `_step`
            return
        group.active.discard(fiber)
        if error is None:
            group.results[fiber.index] = value
        else:
            self._fail_group(group, self._told(fiber, error))
        self._fill(group)

    def _told(self, fiber: Fiber, error: BaseException) -> BaseException:
        """What a task is told of another's failure.

        An interrupt that struck in a task's code is everybody's: all are cancelled, and clean up.
        """
        if isinstance(error, Exception | Cancelled | GeneratorExit):
            return error
        self.fail(fiber.root(), error)
        return Cancelled()

    def _grant(self) -> bool:
        """Reserves what there is room for; true if that has made a fiber ready."""
        waiting = self._reserving
        while waiting:
            self._current = fiber = waiting[0]
            if fiber.reserves:
                found = self._room.take(fiber.reserves, self._owner)
                if found is None:
                    break
                fiber.reserves = 0
                self._ready.append((fiber, found, None))
            waiting.popleft()
        return bool(self._ready)

    def _submit_pending(self) -> bool:
        """Submits what the limit allows; true if that has made a fiber ready, as it was refused."""
        pending, flying = self._pending, self._flying
        while pending and len(flying) < self._limit:
            self._current = fiber = pending[0]
            pending.popleft()
            if fiber.call is not None and fiber.operation is None:
                self._submit(fiber, fiber.call)
        return bool(self._ready)

    def _submit(self, fiber: Fiber, call: Call) -> None:
        call_id = next(_ids)
        try:
            fiber.operation = call.start(self.queue, call_id)
        except Exception as error:
            fiber.call = None
            self._ready.append((fiber, None, error))
            return
        fiber.call_id = call_id
        self._flying[call_id] = fiber
        if call.meter is not None:
            fiber.counted = 0
            self._metered[call_id] = fiber

    def _count_landed(
        self, fiber: Fiber, call: Call, operation: _core.Operation, response: _core.Response
    ) -> None:
        root = fiber.root()
        if call.meter is None or root.failure is not None:
            return
        try:
            if response.error_code != 0:
                call.meter.add(-fiber.counted)
            else:
                call.meter.expect(operation.expected)
                call.meter.add(response.received - fiber.counted)
        except BaseException as error:
            self.fail(root, error)

    # -- groups ----------------------------------------------------------------------------

    def _fill(self, group: Group, value: Any = None, error: BaseException | None = None) -> None:
        """Takes further tasks from a group's generator, beginning with the outcome it waits for."""
        while not group.exhausted and group.first is None and len(group.active) < group.limit:
            try:
                if error is not None:
                    task = group.tasks.throw(error)  # type: ignore[attr-defined]
                elif value is not None:
                    task = group.tasks.send(value)  # type: ignore[attr-defined]
                else:
                    task = next(group.tasks)
            except StopIteration:
                group.exhausted = True
            except BaseException as failure:
                self._fail_group(group, self._told(group.parent, failure))
            else:
                if type(task) is First:
                    group.first = child = Fiber(task.task, group=group)
                else:
                    child = Fiber(task, group=group, index=len(group.results))
                    group.results.append(None)
                    group.active.add(child)
                self._ready.append((child, None, None))
            value = error = None
        done = group.exhausted and not group.active and group.first is None
        if done and group.parent.gathers is group:
            group.parent.gathers = None
            self._ready.append((group.parent, group.results, group.error))
            group.error = None

    def _fail_group(self, group: Group, error: BaseException) -> None:
        if group.error is None:
            group.error = error
        group.exhausted = True
        for child in list(group.active):
            self.cancel(child)
        if group.first is not None:
            self.cancel(group.first)
