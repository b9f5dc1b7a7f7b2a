"""Tasks that an event loop drives: order, bounds, cancellation, the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

import pytest

from kumo_crt._engine import (
    Blocking,
    Cancelled,
    First,
    Gather,
    Meter,
    Room,
    Sleep,
    Task,
    _asyncio,
    _run,
)
from kumo_crt._engine._asyncio import Driver
from tests.engine.fakes import Client


class DriverClosedError(Exception):
    """What those see who await a call when the driver is closed."""


def make(*, calls: int = 10, tasks: int = 100) -> Driver:
    return Driver(asyncio.get_running_loop(), calls, tasks, room=Room(100))


def one(client: Client, name: str, milliseconds: float | str = 0) -> Task[str]:
    response = yield client.call(name, milliseconds)
    return str(response.name)


def cleaning(
    client: Client, name: str, cleaned: list[str], clean_up: float | str = 20
) -> Task[None]:
    try:
        yield client.call(name, "never")
    except Cancelled:
        yield client.call(f"clean {name}", clean_up)
        cleaned.append(name)
        raise


async def until_submitted(client: Client, *names: str) -> None:
    while not set(names) <= set(client.submitted):
        await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[Any]) -> float:
    """Cancels a task; returns how long that took."""
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - started


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20), debug=True)


def test_results_and_errors(watched: Client) -> None:
    def failing() -> Task[str]:
        yield watched.call("fails", 1)
        raise LookupError("from the task")

    async def scenario() -> None:
        driver = make()
        calls = [driver.run(one(watched, str(n), n % 5)) for n in range(50)]
        assert await asyncio.gather(*calls) == [str(n) for n in range(50)]
        with pytest.raises(LookupError, match="from the task"):
            await driver.run(failing())
        await driver.close(DriverClosedError)

    play(scenario())
    assert watched.flying == 0


def test_limits_are_kept_and_the_order_too(watched: Client) -> None:
    alive = most_alive = 0

    def counted(number: int) -> Task[int]:
        nonlocal alive, most_alive
        alive += 1
        most_alive = max(most_alive, alive)
        yield watched.call(str(number), 1)
        alive -= 1
        return number

    async def scenario() -> None:
        driver = make(calls=3, tasks=7)
        found = await asyncio.gather(*(driver.run(counted(n)) for n in range(60)))
        assert found == list(range(60))
        await driver.close(DriverClosedError)

    play(scenario())
    assert (watched.most, most_alive) == (3, 7)
    assert watched.submitted == [str(n) for n in range(60)]


def test_gathers_and_sleeps(watched: Client) -> None:
    def leaf(number: int) -> Task[str]:
        yield Sleep(0.001 * (3 - number))
        return (yield from one(watched, str(number)))

    def branch() -> Task[Any]:
        return (yield Gather((leaf(n) for n in range(3)), 2))

    async def scenario() -> None:
        driver = make()
        started = time.monotonic()
        assert await asyncio.gather(*(driver.run(branch()) for _ in range(5))) == [list("012")] * 5
        assert time.monotonic() - started < 5
        await driver.close(DriverClosedError)

    play(scenario())


def test_blocking_work_does_not_stop_the_loop(watched: Client) -> None:
    threads: list[threading.Thread] = []

    def block(value: str) -> str:
        threads.append(threading.current_thread())
        time.sleep(0.2)
        if value == "bad":
            raise LookupError("blocked in vain")
        return value

    def task(value: str) -> Task[str]:
        found: str = yield Blocking(lambda: block(value))
        yield watched.call(found)
        return found

    async def scenario() -> None:
        driver = make()
        ticks = 0
        calls = asyncio.gather(driver.run(task("a")), driver.run(task("b")))
        while not calls.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 5
        assert list(calls.result()) == ["a", "b"]
        with pytest.raises(LookupError, match="in vain"):
            await driver.run(task("bad"))
        await driver.close(DriverClosedError)

    play(scenario())
    assert threading.main_thread() not in threads


def test_cancelling_cancels_and_waits_for_the_clean_up(watched: Client) -> None:
    cleaned: list[str] = []

    def task() -> Task[None]:
        yield Gather([cleaning(watched, "a", cleaned), cleaning(watched, "b", cleaned)], 2)

    async def scenario() -> None:
        driver = make()
        other = asyncio.create_task(driver.run(one(watched, "other", 300)))
        call = asyncio.create_task(driver.run(task()))
        await until_submitted(watched, "a", "b")
        assert await cancelled(call) < 0.9
        assert sorted(cleaned) == ["a", "b"]
        assert await other == "other"
        await driver.close(DriverClosedError)

    play(scenario())
    assert [o.name for o in watched.operations if o.cancelled] == ["a", "b"]
    assert watched.flying == 0


def test_a_clean_up_that_takes_long_goes_on_in_the_loop(
    watched: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asyncio, "CANCEL_GRACE", 0.1)
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make()
        call = asyncio.create_task(driver.run(cleaning(watched, "a", cleaned, 400)))
        await until_submitted(watched, "a")
        assert 0.09 < await cancelled(call) < 0.35
        assert cleaned == []
        await driver.close(DriverClosedError)
        assert cleaned == ["a"]

    play(scenario())


def test_cancelled_once_more_while_it_cleans_up(watched: Client) -> None:
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make()
        call = asyncio.create_task(driver.run(cleaning(watched, "a", cleaned, 200)))
        await until_submitted(watched, "a")
        call.cancel()
        await until_submitted(watched, "clean a")
        assert await cancelled(call) < 0.15
        await driver.close(DriverClosedError)

    play(scenario())
    assert cleaned == ["a"]


@pytest.mark.parametrize(("calls", "tasks"), [(1, 10), (10, 1)], ids=["a call", "a task"])
def test_what_waits_for_its_turn_is_cancelled_without_a_trace(
    watched: Client, calls: int, tasks: int
) -> None:
    async def scenario() -> None:
        driver = make(calls=calls, tasks=tasks)
        first = asyncio.create_task(driver.run(one(watched, "first", 300)))
        waiting = [asyncio.create_task(driver.run(one(watched, "waits"))) for _ in range(5)]
        last = asyncio.create_task(driver.run(one(watched, "last")))
        await until_submitted(watched, "first")
        await asyncio.sleep(0)
        for call in waiting:
            assert await cancelled(call) < 0.2
        assert [await first, await last] == ["first", "last"]
        await driver.close(DriverClosedError)

    play(scenario())
    assert watched.submitted == ["first", "last"]


def test_a_timeout(watched: Client) -> None:
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await driver.run(cleaning(watched, "a", cleaned))
        assert cleaned == ["a"]
        await driver.close(DriverClosedError)

    play(scenario())


def test_a_progress_callback_that_raises_ends_its_own_call(watched: Client) -> None:
    watched.transferred = 1
    cleaned: list[str] = []

    def tell(done: int, total: int) -> None:
        raise ZeroDivisionError("from the callback")

    def task() -> Task[None]:
        try:
            yield watched.call("told", "never", meter=Meter(tell, 0))
        except Cancelled:
            yield watched.call("clean")
            cleaned.append("told")
            raise

    async def scenario() -> None:
        driver = make()
        other = asyncio.create_task(driver.run(one(watched, "other", 300)))
        with pytest.raises(ZeroDivisionError, match="from the callback"):
            await driver.run(task())
        assert cleaned == ["told"]
        assert await other == "other"
        await driver.close(DriverClosedError)

    play(scenario())


def test_closing_ends_what_is_under_way(watched: Client) -> None:
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make(tasks=2)
        calls = [asyncio.create_task(driver.run(cleaning(watched, n, cleaned))) for n in "abcd"]
        await until_submitted(watched, "a", "b")
        await driver.close(DriverClosedError)
        assert sorted(cleaned) == ["a", "b"]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in found] == [DriverClosedError] * 4

    play(scenario())
    assert watched.flying == 0


def test_closing_does_not_wait_forever(watched: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_asyncio, "CLOSE_GRACE", 0.1)
    monkeypatch.setattr(_run, "CLEAN_UP", 0.5)
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make()
        call = asyncio.create_task(driver.run(cleaning(watched, "a", cleaned, 300)))
        await until_submitted(watched, "a")
        started = time.monotonic()
        await driver.close(DriverClosedError)
        assert time.monotonic() - started < 0.25
        with pytest.raises(DriverClosedError):
            await call

    play(scenario())
    for thread in list(_run._background):
        thread.join(5)
    assert cleaned == ["a"]


def test_closing_from_another_loop(watched: Client) -> None:
    cleaned: list[str] = []
    drivers: list[Driver] = []
    outcomes: list[BaseException] = []

    async def theirs() -> None:
        drivers.append(make())
        try:
            await drivers[0].run(cleaning(watched, "a", cleaned))
        except DriverClosedError as error:
            outcomes.append(error)

    async def ours() -> None:
        await until_submitted(watched, "a")
        await drivers[0].close(DriverClosedError)
        assert cleaned == ["a"]

    thread = threading.Thread(target=play, args=(theirs(),))
    thread.start()
    play(ours())
    thread.join(10)
    assert len(outcomes) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_too_early(watched: Client, caplog: pytest.LogCaptureFixture) -> None:
    cleaned: list[str] = []
    loop = asyncio.new_event_loop()
    driver: Driver | None = None

    async def begin() -> asyncio.Task[None]:
        nonlocal driver
        driver = make()
        task = asyncio.create_task(driver.run(cleaning(watched, "a", cleaned)))
        await until_submitted(watched, "a")
        return task

    task = loop.run_until_complete(begin())
    loop.close()
    assert driver is not None
    driver.release(RuntimeError)
    for thread in list(_run._background):
        thread.join(5)
    assert cleaned == ["a"]
    del task, driver
    gc.collect()
    assert "was destroyed but it is pending" in caplog.text


def test_a_coroutine_that_is_dropped(watched: Client) -> None:
    cleaned: list[str] = []

    async def scenario() -> None:
        driver = make()
        coroutine = driver.run(cleaning(watched, "a", cleaned))
        coroutine.send(None)
        await until_submitted(watched, "a")
        coroutine.close()
        await driver.close(DriverClosedError)
        assert cleaned == ["a"]

    play(scenario())


def test_streams_are_read_one_piece_after_the_other(watched: Client) -> None:
    reading = 0
    order: list[int] = []

    def read(number: int) -> Task[int]:
        number = yield Blocking(partial(read_now, number))
        return number

    def read_now(number: int) -> int:
        nonlocal reading
        reading += 1
        assert reading == 1
        time.sleep(0.01)
        order.append(number)
        reading -= 1
        return number

    def tasks() -> Generator[Any, Any, None]:
        for number in range(9):
            piece = yield First(read(number))
            yield one(watched, str(piece), 5)

    def task() -> Task[Any]:
        return (yield Gather(tasks(), 3))

    async def scenario() -> None:
        driver = make()
        assert await driver.run(task()) == [str(n) for n in range(9)]
        await driver.close(DriverClosedError)

    play(scenario())
    assert order == list(range(9))
