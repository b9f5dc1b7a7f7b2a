"""Drives the tasks of many coroutines, on the thread of their event loop.

There is no thread between the native engine and the loop: a descriptor of the completion queue
makes the loop call `Driver`, which steps the tasks whose calls are over. Work that may block for
long (`Blocking`) goes to the loop's default executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from kumo_crt import _logging
from kumo_crt._engine._fibers import Fiber
from kumo_crt._engine._room import Room
from kumo_crt._engine._run import finish_in_background
from kumo_crt._engine._scheduler import Scheduler
from kumo_crt._engine._tasks import Blocking, Cancelled, Task

T = TypeVar("T")

# How long a cancelled coroutine waits for its task to clean up (abort its upload) before
# CancelledError goes on; the rest of the clean-up follows in the loop.
CANCEL_GRACE = 1.0
# How long `Driver.close` waits for all of them; what is left then goes on in a thread.
CLOSE_GRACE = 1.5
# And where the program is on its way out, perhaps with many clients to close one by one.
LEAVE_GRACE = 0.3
# How often progress is told.
_TELL = 0.1


class Driver:
    """Everything that one client does in one event loop.

    Args:
        loop: The loop, of the thread that calls.
        calls: Native operations in flight at once.
        tasks: Tasks under way at once; later ones begin in their order.
        room: Memory that they reserve, which others may share.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: int, tasks: int, room: Room) -> None:
        self.loop = loop
        self._scheduler = Scheduler(calls, room, self._block)
        self._places = tasks
        # All that are not over, with those who wait for them, and those that have not begun.
        self._waiters: dict[Fiber, asyncio.Future[Any]] = {}
        self._queued: deque[Fiber] = deque()
        # Done when a fiber that was cancelled is over.
        self._ends: dict[Fiber, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._detached = False
        self._descriptor = self._scheduler.queue.fileno()
        loop.add_reader(self._descriptor, self._landed)

    async def run(self, task: Task[T]) -> T:
        """Runs a task to its end.

        If the caller is cancelled, so is the task; CancelledError goes on once it has cleaned up,
        or after `CANCEL_GRACE`.
        """
        _logging.refresh()
        future = self.loop.create_future()
        fiber = Fiber(task, self._over)
        self._waiters[fiber] = future
        if self._places > 0:
            self._places -= 1
            self._scheduler.start(fiber)
            self._turn()
        else:
            self._queued.append(fiber)
        try:
            return cast("T", await future)
        except asyncio.CancelledError:
            if not fiber.over:
                self._cancel(fiber)
                await self._settled([fiber], CANCEL_GRACE)
            raise
        finally:
            if not fiber.over:
                # The grace is over, or nobody awaits the coroutine any more.
                self._cancel(fiber)
                if self.loop.is_closed():
                    self._detach()
            # An error's traceback holds this frame: no cycle.
            del future, fiber

    @property
    def here(self) -> bool:
        """Whether its loop is the one that runs the caller."""
        return asyncio.get_running_loop() is self.loop

    async def close(self, failure: Callable[[], BaseException], leaving: bool = False) -> None:
        """Cancels what is under way and waits for its clean-up, from any loop.

        Args:
            failure: Makes what those see who wait for it.
            leaving: Whether to wait only for `LEAVE_GRACE`.
        """
        grace = LEAVE_GRACE if leaving else CLOSE_GRACE
        if self.here:
            await self._close(failure, grace)
        elif self.loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self._close(failure, grace), self.loop)
            await asyncio.wait([asyncio.wrap_future(closing)], timeout=grace)
        else:
            self._detach(failure)

    async def _close(self, failure: Callable[[], BaseException], grace: float) -> None:
        fibers = list(self._waiters)
        for fiber in fibers:
            self._cancel(fiber, failure())
        try:
            await self._settled(fibers, grace)
        finally:
            self._detach(failure)

    def release(self, failure: Callable[[], BaseException]) -> None:
        """Leaves the loop, from any thread, without waiting for anything.

        Args:
            failure: Makes what those see who wait for it all the same.
        """
        try:
            here = self.here
        except RuntimeError:
            here = False
        if here or not self.loop.is_running():
            self._detach(failure)
        else:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self.loop.call_soon_threadsafe(self._detach, failure)

    def _detach(self, failure: Callable[[], BaseException] | None = None) -> None:
        """Leaves the loop; what is not cleaned up by then goes on in a thread.

        To be called on the loop's thread, or when the loop does not run.
        """
        if self._detached:
            return
        self._detached = True
        closed = self.loop.is_closed()
        if not closed:
            self.loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        waiters, self._waiters = self._waiters, {}
        for fiber, future in waiters.items():
            self._scheduler.cancel(fiber)
            if not closed and failure is not None and not future.done():
                future.set_exception(failure())
        left = [fiber for fiber in waiters if fiber.begun]
        if left:
            finish_in_background(self._scheduler, left)

    # -- the loop's callbacks --------------------------------------------------------------

    def _landed(self) -> None:
        ids = self._scheduler.queue.take(0)
        if ids:
            self._scheduler.land(ids)
            self._turn()

    def _tick(self) -> None:
        self._timer = None
        self._scheduler.wake()
        self._scheduler.count()
        self._turn()

    def _turn(self) -> None:
        scheduler = self._scheduler
        scheduler.turn()
        wake = scheduler.next_wake
        if wake is None and not scheduler.metered:
            return
        delay = _TELL if scheduler.metered else 3600.0
        if wake is not None:
            delay = max(0.0, min(delay, wake - time.monotonic()))
        if self._timer is not None:
            if self._timer.when() <= self.loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = self.loop.call_later(delay, self._tick)

    def _block(self, fiber: Fiber, blocking: Blocking) -> None:
        if self._detached:  # in a thread of our own
            try:
                self._scheduler.resume(fiber, blocking.function(), None)
            except Exception as error:
                self._scheduler.resume(fiber, None, error)
            return
        try:
            future = self.loop.run_in_executor(None, blocking.function)
        except RuntimeError as error:  # the executor is shut down
            self._scheduler.resume(fiber, None, error)
        else:
            future.add_done_callback(partial(self._unblocked, fiber))

    def _unblocked(self, fiber: Fiber, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._scheduler.resume(fiber, None, Cancelled())
        elif future.exception() is not None:
            self._scheduler.resume(fiber, None, future.exception())
        else:
            self._scheduler.resume(fiber, future.result(), None)
        del future  # its error's traceback will hold this frame: no cycle
        if not self._detached:
            self._turn()

    # -- fibers ----------------------------------------------------------------------------

    def _over(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        future = self._waiters.pop(fiber, None)
        if self._detached:
            return
        end = self._ends.pop(fiber, None)
        if end is not None and not end.done():
            end.set_result(None)
        self._places += 1
        while self._queued and self._places > 0:
            follower = self._queued.popleft()
            if not follower.over:
                self._places -= 1
                self._scheduler.start(follower)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _cancel(self, fiber: Fiber, failure: BaseException | None = None) -> None:
        if fiber.over:
            return
        if failure is not None:
            self._scheduler.fail(fiber, failure)
        else:
            self._scheduler.cancel(fiber)
        if not fiber.begun:
            fiber.over = True
            fiber.task.close()
            future = self._waiters.pop(fiber)
            if failure is not None and not future.done():
                future.set_exception(failure)
        elif not self.loop.is_closed():
            self._turn()

    async def _settled(self, fibers: list[Fiber], seconds: float) -> None:
        """Waits until fibers are over, for some time."""
        left = [fiber for fiber in fibers if not fiber.over]
        ends = [self._ends.setdefault(fiber, self.loop.create_future()) for fiber in left]
        if ends:
            await asyncio.wait(ends, timeout=seconds)
