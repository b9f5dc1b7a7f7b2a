"""Room in memory: shared, granted in order, given back by whatever end."""

from __future__ import annotations

import _thread
import gc
import operator
import threading
import time
from typing import Any

import pytest

from kumo_crt._engine import Cancelled, First, Gather, Reserve, Room, Sleep, Task, run
from tests.engine.fakes import Client


class InUse:
    """Counts what is in use."""

    def __init__(self) -> None:
        self.used = self.most = 0
        self.order: list[int] = []

    def task(self, client: Client, number: int, size: int) -> Task[None]:
        room = yield Reserve(size)
        self.used += size
        self.most = max(self.most, self.used)
        self.order.append(number)
        yield client.call(str(number), number % 3)
        self.used -= size
        del room


def test_no_more_than_there_is(client: Client) -> None:
    room = InUse()

    def task() -> Task[None]:
        yield Gather((room.task(client, n, 10 + n % 7) for n in range(60)), 60)

    run(task(), 100, Room(50))
    assert 34 <= room.most <= 50
    assert room.order == list(range(60))


def test_what_never_fits_is_alone(client: Client) -> None:
    room = InUse()

    def task() -> Task[None]:
        sizes = [10, 10, 80, 10, 90, 10]
        yield Gather([room.task(client, n, size) for n, size in enumerate(sizes)], 6)

    run(task(), 100, Room(50))
    assert room.most == 90
    assert room.order == list(range(6))


def test_it_comes_back_from_a_task_that_fails(client: Client) -> None:
    errors: list[BaseException] = []

    def failing() -> Task[None]:
        with (yield Reserve(50)) as room:
            yield client.call("fails", 1)
            raise LookupError(room)

    def task() -> Task[Any]:
        for _ in range(3):
            try:
                yield Gather([failing()], 1)
            except LookupError as error:
                errors.append(error)  # whose traceback has the frames that had the room
        return (yield Reserve(50))

    assert run(task(), 1, Room(50)) is not None
    assert len(errors) == 3


def test_a_part_of_it_comes_back_by_itself(client: Client) -> None:
    def task() -> Task[None]:
        room = yield Reserve(50)
        part = room.split(20)
        part.close()
        part.close()
        with (yield Reserve(20)):
            room.split(30)
            with (yield Reserve(30)):
                room.close()

    run(task(), 1, Room(50))


def test_it_comes_back_from_a_task_that_never_ran(client: Client) -> None:
    def sending(room: object) -> Task[None]:
        yield client.call("sends")
        del room

    def reading() -> Task[object]:
        return (yield Reserve(50))

    def tasks() -> Any:
        yield failing()
        yield sending((yield First(reading())))

    def failing() -> Task[None]:
        yield from ()
        raise LookupError

    def task() -> Task[Any]:
        with pytest.raises(LookupError):
            yield Gather(tasks(), 2)
        gc.collect()
        return (yield Reserve(50))

    assert run(task(), 10, Room(50)) is not None


def test_an_interrupt_is_not_lost_where_it_is_dropped() -> None:
    """Python swallows one that strikes in a finalizer."""

    def task() -> Task[None]:
        rooms = [(yield Reserve(50))]
        yield Sleep(0)  # the scheduler holds it no more
        # One call, so that nothing looks for an interrupt in between.
        any(map(operator.call, (_thread.interrupt_main, rooms.clear)))

    with pytest.raises(KeyboardInterrupt):
        run(task(), 1, Room(50))


def test_waiting_for_room_ends_with_a_failure(client: Client) -> None:
    seen: list[str] = []

    def holding() -> Task[None]:
        room = yield Reserve(50)
        yield client.call("holds", 10)
        seen.append("fails")
        raise LookupError(room)

    def waiting() -> Task[None]:
        try:
            yield Reserve(1)
        except Cancelled:
            seen.append("cancelled")
            raise

    def task() -> Task[None]:
        yield Gather([holding(), waiting()], 2)

    with pytest.raises(LookupError):
        run(task(), 1, Room(50))
    assert seen == ["fails", "cancelled"]


def test_operations_share_it() -> None:
    """Each may hold one thing in any case; what it holds beside that has to fit in."""
    room = Room(50)
    first = room.take(30, "one")
    assert first is not None
    assert room.take(30, "one") is None
    other = room.take(30, "another")
    assert other is not None
    assert room.take(1, "another") is None
    rest = first.split(10)
    first.close()
    assert room.take(11, "another") is None
    more = room.take(10, "another")
    assert more is not None
    del rest
    assert room.take(10, "one") is not None


def test_room_of_another_operation_is_taken_when_it_comes_back(client: Client) -> None:
    room = Room(50)
    others = room.take(40, "another")
    assert others is not None

    def task() -> Task[float]:
        held = yield Reserve(10)  # the first
        started = time.monotonic()
        threading.Timer(0.2, others.close).start()
        with (yield Reserve(30)):
            held.close()
            return time.monotonic() - started

    assert 0.2 <= run(task(), 1, room) < 5
