"""Native operations that are scripted instead of sent."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kumo_crt._engine import Call, Meter


class Queue:
    """Stands in for `_core.CompletionQueue`."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int]] = []  # a heap

    def take(self, timeout: float) -> list[int]:
        """Waits until something is due."""
        deadline = time.monotonic() + timeout
        until = min(deadline, self.due[0][0]) if self.due else deadline
        time.sleep(max(0.0, until - time.monotonic()))
        found = []
        while self.due and self.due[0][0] <= time.monotonic():
            found.append(heapq.heappop(self.due)[1])
        return found


class Operation:
    """Stands in for `_core.Operation`."""

    expected: int | None = None

    def __init__(self, client: Client, queue: Queue, call_id: int, name: str) -> None:
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
        self._queue.due = [item for item in self._queue.due if item[1] != self._id]
        heapq.heapify(self._queue.due)
        heapq.heappush(self._queue.due, (0.0, self._id))

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

    def submit(self, queue: Queue, call_id: int, *, operation: str, target: str, **_: Any) -> Any:
        """Starts an operation."""
        if target == "refused":
            raise ValueError(f"{operation} was refused")
        self.submitted.append(operation)
        self.flying += 1
        self.most = max(self.most, self.flying)
        if target != "never":
            heapq.heappush(queue.due, (time.monotonic() + float(target) / 1000, call_id))
        self.operations.append(Operation(self, queue, call_id, operation))
        return self.operations[-1]

    def call(
        self,
        name: str,
        milliseconds: float | str = 0,
        *,
        meter: Meter | None = None,
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
        )
