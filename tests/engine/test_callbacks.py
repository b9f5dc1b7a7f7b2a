"""Meters, throttles, and callbacks that raise."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from kumo_crt._engine import Blocking, Cancelled, First, Gather, Meter, Task, Throttle, _run, run
from tests.engine.fakes import Client


def test_a_meter_tells_now_and_then_and_at_the_end() -> None:
    told: list[tuple[int, int]] = []
    meter = Meter(lambda done, total: told.append((done, total)), 1_000)
    started = time.monotonic()
    for _ in range(1_000):
        meter.add(1)
    assert len(told) <= 2 + (time.monotonic() - started) / 0.1
    meter.flush()
    meter.flush()
    assert told[-1] == (1_000, 1_000)
    assert told.count((1_000, 1_000)) == 1


def test_meters_count_for_their_parents() -> None:
    parent = Meter(None, 30)
    first, second = Meter(None, 10, parent), Meter(None, 20, parent)
    first.add(10)
    second.add(15)
    second.add(-15)
    second.add(20)
    assert (first.done, second.done, parent.done) == (10, 20, 30)


def test_an_interrupt_in_what_blocks_is_everybodys(client: Client) -> None:
    """Not only the task's that reads just then: all are told, and clean up."""
    told: list[str] = []

    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    def working(name: str, first: object) -> Task[None]:
        try:
            yield first
        except Cancelled:
            told.append(name)
            yield client.call(f"{name} cleans up", 1)
            told.append(f"{name} has")
            raise

    def task() -> Task[None]:
        yield Gather(
            [working("sends", client.call("a", "never")), working("reads", Blocking(interrupted))],
            2,
        )

    with pytest.raises(KeyboardInterrupt):
        run(task(), 4)
    assert sorted(told) == ["reads", "reads has", "sends", "sends has"]


@pytest.mark.parametrize("where", ["a task", "the stream of tasks"])
def test_an_interrupt_in_the_code_of_one_is_everybodys(client: Client, where: str) -> None:
    told: list[str] = []

    def waiting() -> Task[None]:
        yield client.call("b", 1)

    def interrupted() -> Task[None]:
        yield from waiting()
        signal.raise_signal(signal.SIGINT)

    def sending() -> Task[None]:
        try:
            yield client.call("a", "never")
        except Cancelled:
            yield client.call("clean up a", 1)
            told.append("a")
            raise

    def tasks() -> Iterator[Task[None] | First]:
        yield sending()
        if where == "a task":
            yield interrupted()
        else:
            yield First(waiting())
            signal.raise_signal(signal.SIGINT)

    def task() -> Task[None]:
        try:
            yield Gather(tasks(), 2)
        except Cancelled:
            yield client.call("clean up all", 1)
            told.append("all")
            raise

    with pytest.raises(KeyboardInterrupt):
        run(task(), 4)
    assert told == ["a", "all"]
    assert client.flying == 0


def test_a_call_is_counted_once(client: Client) -> None:
    client.received, client.transferred = 700, 400
    meter = Meter(None, 1_400)

    def call() -> Task[None]:
        yield client.call("a", 250, meter=meter)

    def task() -> Task[None]:
        yield Gather([call(), call()], 2)

    run(task(), 2)
    assert meter.done == 1_400


def test_a_failed_call_counts_nothing(client: Client) -> None:
    client.transferred = 400
    meter = Meter(None, 0)

    def waiting() -> Task[None]:
        yield client.call("a", "never", meter=meter)

    def failing() -> Task[None]:
        yield client.call("fails", 250)
        assert meter.done == 400
        raise LookupError

    def task() -> Task[None]:
        yield Gather([waiting(), failing()], 2)

    with pytest.raises(LookupError):
        run(task(), 2)
    assert meter.done == 0


def test_throttle_spreads_over_all_that_share_it(client: Client) -> None:
    throttle = Throttle(100_000)

    def sending() -> Task[None]:
        yield from throttle.take(1_000)
        yield client.call("send")

    def task() -> Task[None]:
        yield Gather((sending() for _ in range(31)), 8)

    started = time.monotonic()
    run(task(), 8)
    # The first goes at once, the last after the other thirty had their time.
    assert 0.29 <= time.monotonic() - started < 1.5


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_throttles_that_let_nothing_through(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Throttle(rate)


class _Raising:
    """A progress callback that raises every time."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error
        self.calls = 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        # So long that the meter would call it again at its next turn.
        time.sleep(0.11)
        raise self._error("from the callback")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("landing", [True, False], ids=["at the end", "under way"])
def test_a_callback_that_raises_ends_everything(
    client: Client, error: type[BaseException], landing: bool
) -> None:
    if landing:
        client.received = 700
    else:
        client.transferred = 400
    callback = _Raising(error)
    meter = Meter(callback, 1_000)
    cleaned: list[str] = []

    def call(name: str, milliseconds: float | str) -> Task[None]:
        try:
            yield client.call(name, milliseconds, meter=meter)
        except Cancelled:
            yield client.call(f"clean {name}", 20)
            cleaned.append(name)
            raise

    def task() -> Task[None]:
        # Several end at the same moment: none of them may be forgotten.
        quick: list[Task[None]] = [call(str(n), 0 if landing else 300) for n in range(3)]
        yield Gather([*quick, call("waits", "never")], 4)

    started = time.monotonic()
    with pytest.raises(error, match="from the callback"):
        run(task(), 10)
    assert time.monotonic() - started < 3
    assert callback.calls == 1
    assert sorted(cleaned) == ["0", "1", "2", "waits"]
    assert client.flying == 0


@pytest.mark.parametrize("milliseconds", [400, "never"])
def test_after_ctrl_c_clean_up_goes_on_in_the_background(
    client: Client, monkeypatch: pytest.MonkeyPatch, milliseconds: float | str
) -> None:
    monkeypatch.setattr(_run, "CLEAN_UP", 1.0)
    meter = Meter(_Raising(KeyboardInterrupt), 0)
    client.transferred = 1
    cleaned = threading.Event()

    def task() -> Task[None]:
        try:
            yield client.call("work", "never", meter=meter)
        finally:
            yield client.call("abort", milliseconds)
            cleaned.set()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(task(), 1)
    assert time.monotonic() - started < 0.9
    (thread,) = _run._background
    thread.join(5)
    assert not thread.is_alive()
    assert not _run._background
    assert cleaned.is_set() is (milliseconds != "never")
