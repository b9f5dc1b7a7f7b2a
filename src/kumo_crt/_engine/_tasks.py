"""Tasks, and what they wait for.

A *task* is a generator that yields what it waits for and is sent the outcome:

* a `Call`: one native operation; the answer is a `_core.Response`;
* a `Gather`: further tasks, a bounded number at once; the answer is the list of their results;
* a `Sleep`: to go on after some time;
* a `Blocking`: work that waits for something else than the network; the answer is its result;
* a `Reserve`: room in memory; the answer is a `Reservation`.

If a task fails, what was gathered beside it is cancelled: a task sees that as `Cancelled` at its
``yield``, and may still yield to clean up after itself. Ctrl-C and asyncio's cancellation do the
same to everything that belongs to a call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from kumo_crt import _core
from kumo_crt._engine._meters import Meter

T = TypeVar("T")
Task: TypeAlias = Generator[Any, Any, T]


class Cancelled(BaseException):
    """Thrown into a task whose result nobody wants any more."""


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One native operation; see `_core.Client.submit` for the fields it passes on.

    One that is ``urgent`` does not wait until fewer others are in flight. One that is ``kept`` is
    not cancelled once it is in flight: its answer tells the task what there is to clean up, which
    is `Cancelled` after that.
    """

    client: _core.Client
    operation: str
    method: str
    endpoint: str
    target: str
    headers: list[tuple[str, str]]
    body: object = None
    send_crc32c: bool = False
    crc32c_trailing: bool = False
    sink: object = None
    crc32c_of_response: bool = False
    stop_after: int = 0
    meter: Meter | None = None
    urgent: bool = False
    any_credentials: bool = False
    kept: bool = False

    def start(self, queue: _core.CompletionQueue, call_id: int) -> _core.Operation:
        """Hands it to the native client."""
        return self.client.submit(
            queue,
            call_id,
            operation=self.operation,
            method=self.method,
            endpoint=self.endpoint,
            target=self.target,
            headers=self.headers,
            body=self.body,
            send_crc32c=self.send_crc32c,
            crc32c_trailing=self.crc32c_trailing,
            sink=self.sink,
            crc32c_of_response=self.crc32c_of_response,
            stop_after=self.stop_after,
            any_credentials=self.any_credentials,
        )


@dataclass(slots=True, eq=False, repr=False)
class Gather:
    """Tasks to run beside each other, at most ``limit`` at once, taken lazily.

    ``tasks`` may be a generator that yields a `First` between tasks.
    """

    tasks: Iterable[Task[Any] | First]
    limit: int


@dataclass(slots=True, eq=False, repr=False)
class First:
    """A task to run before the next one is taken, such as one that reads what that is to send.

    The generator is sent its result.
    """

    task: Task[Any]


@dataclass(slots=True, eq=False, repr=False)
class Sleep:
    """Time in seconds after which the task goes on."""

    seconds: float


@dataclass(slots=True, eq=False, repr=False)
class Blocking:
    """A function that may block for long: an event loop runs it in a thread of its executor."""

    function: Callable[[], Any]


@dataclass(slots=True, eq=False, repr=False)
class Reserve:
    """Bytes of memory that are going to be used, once they fit in with those of other tasks."""

    size: int
