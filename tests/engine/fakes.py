"""Native operations that are scripted instead of sent."""

from __future__ import annotations

import heapq
import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

from kumo_crt._engine import Call, Meter


class Queue:
    """Stands in for `_core.CompletionQueue`."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int]] = []  # a heap

    def schedule(self, call_id: int, seconds: float) -> None:
        """Makes an id come out after some time."""
        heapq.heappush(self.due, (time.monotonic() + seconds, call_id))

    def hasten(self, call_id: int) -> None:
        """Makes an id come out at once."""
        self.due = [item for item in self.due if item[1] != call_id]
        heapq.heapify(self.due)
        heapq.heappush(self.due, (0.0, call_id))

    def take(self, timeout: float) -> list[int]:
        """Waits until something is due."""
        deadline = time.monotonic() + timeout
        until = min(deadline, self.due[0][0]) if self.due else deadline
        time.sleep(max(0.0, until - time.monotonic()))
        found = []
        while self.due and self.due[0][0] <= time.monotonic():
            found.append(heapq.heappop(self.due)[1])
        return found


class WatchedQueue:
    """Stands in for a `_core.CompletionQueue` that an event loop watches."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._timers: dict[int, threading.Timer] = {}
        self._ids: deque[int] = deque()
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Readable while there are ids."""
        return self._descriptor

    def schedule(self, call_id: int, seconds: float) -> None:
        """Makes an id come out after some time."""
        timer = threading.Timer(seconds, self._push, (call_id,))
        timer.daemon = True
        self._timers[call_id] = timer
        timer.start()

    def hasten(self, call_id: int) -> None:
        """Makes an id come out at once."""
        if call_id in self._timers:
            self._timers[call_id].cancel()
        self._push(call_id)

    def _push(self, call_id: int) -> None:
        with self._lock:
            self._ids.append(call_id)
            os.eventfd_write(self._descriptor, 1)

    def take(self, timeout: float) -> list[int]:
        """Takes what there is, waiting some time for the first."""
        select.select([self._descriptor], [], [], timeout)
        with self._lock:
            ids = list(self._ids)
            self._ids.clear()
            if ids:
                os.eventfd_read(self._descriptor)
            return ids


AnyQueue: TypeAlias = Queue | WatchedQueue


class Operation:
    """Stands in for `_core.Operation`."""

    expected: int | None = None

    def __init__(self, client: Client, queue: AnyQueue, call_id: int, name: str) -> None:
        self._client = client
        self._queue = queue
        self._id = call_id
        self.name = name
        self.done = False
        self.transferred = client.transferred
        self.cancelled = False

    def cancel(self) -> None:
        """Ends at once."""
        assert not self.done
        self.cancelled = True
        self._queue.hasten(self._id)

    def response(self) -> Any:
        """Its answer, once."""
        assert not self.done
        self.done = True
        self._client.flying -= 1
        return SimpleNamespace(
            error_code=1 if self.cancelled else 0,
            name=self.name,
            received=0 if self.cancelled else self._client.received,
        )


@dataclass
class Client:
    """Stands in for `_core.Client`: an operation ends some time after it was submitted.

    The time is the operation's target, in milliseconds; "never" ends only when it is cancelled,
    "refused" is not even submitted.
    """

    submitted: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    flying: int = 0
    most: int = 0
    received: int = 0
    transferred: int = 0

    def submit(
        self, queue: AnyQueue, call_id: int, *, operation: str, target: str, **_: Any
    ) -> Any:
        """Starts an operation."""
        if target == "refused":
            raise ValueError(f"{operation} was refused")
        self.submitted.append(operation)
        self.flying += 1
        self.most = max(self.most, self.flying)
        if target != "never":
            queue.schedule(call_id, float(target) / 1000)
        self.operations.append(Operation(self, queue, call_id, operation))
        return self.operations[-1]

    def call(
        self,
        name: str,
        milliseconds: float | str = 0,
        *,
        meter: Meter | None = None,
        urgent: bool = False,
    ) -> Call:
        """What a task yields to run such an operation."""
        stand_in: Any = self
        return Call(
            client=stand_in,
            operation=name,
            method="GET",
            endpoint="",
            target=str(milliseconds),
            headers=[],
            meter=meter,
            urgent=urgent,
        )
