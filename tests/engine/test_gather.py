"""Tasks beside each other: order, bounds, failures, clean-up."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kumo_crt._engine import Cancelled, Gather, Sleep, Task, run
from tests.engine.fakes import Client


def one(client: Client, name: str, milliseconds: float | str = 0) -> Task[str]:
    response = yield client.call(name, milliseconds)
    return str(response.name)


def test_a_task_returns_its_value(client: Client) -> None:
    assert run(one(client, "a"), 1) == "a"


def test_a_task_that_waits_for_nothing(client: Client) -> None:
    def task() -> Task[int]:
        yield from ()
        return 5

    assert run(task(), 1) == 5


def test_results_are_in_the_order_of_the_tasks(client: Client) -> None:
    times = random.Random(3).sample(range(40), 40)

    def task() -> Task[Any]:
        return (yield Gather((one(client, str(n), t) for n, t in enumerate(times)), 8))

    assert run(task(), 100) == [str(n) for n in range(40)]


@pytest.mark.parametrize(("gather_limit", "run_limit"), [(1, 10), (3, 10), (10, 3), (10, 1)])
def test_limits_are_kept(client: Client, gather_limit: int, run_limit: int) -> None:
    alive = 0
    most_alive = 0

    def counted(number: int) -> Task[None]:
        nonlocal alive, most_alive
        alive += 1
        most_alive = max(most_alive, alive)
        yield client.call(str(number), number % 4)
        yield client.call(str(number), number % 3)
        alive -= 1

    def task() -> Task[None]:
        yield Gather((counted(n) for n in range(50)), gather_limit)

    run(task(), run_limit)
    assert most_alive == gather_limit
    assert client.most == min(gather_limit, run_limit)
    assert len(client.submitted) == 100


def test_tasks_are_taken_lazily(client: Client) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Task[str]]:
        for number in range(20):
            taken.append(number)
            assert len(taken) - len(client.operations) <= 3
            yield one(client, str(number), 1)

    def task() -> Task[None]:
        yield Gather(tasks(), 2)

    run(task(), 10)
    assert taken == list(range(20))


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_nothing_to_gather(client: Client, limit: int) -> None:
    def task() -> Task[Any]:
        return (yield Gather([], limit))

    assert run(task(), limit) == []


def test_what_is_urgent_does_not_wait(client: Client) -> None:
    def urgent() -> Task[None]:
        yield Sleep(0.01)
        yield client.call("urgent", 1, urgent=True)
        raise LookupError("over")

    def task() -> Task[None]:
        yield Gather([*(one(client, f"slow{n}", "never") for n in range(5)), urgent()], 6)

    with pytest.raises(LookupError, match="over"):
        run(task(), 2)
    assert client.submitted == ["slow0", "slow1", "urgent"]


def test_gathers_in_gathers_share_the_limit(client: Client) -> None:
    def leaf(name: str) -> Task[str]:
        yield Sleep(0.001)
        return (yield from one(client, name, 1))

    def branch(name: str, depth: int) -> Task[Any]:
        if depth == 0:
            return (yield from leaf(name))
        return (yield Gather((branch(f"{name}{n}", depth - 1) for n in range(3)), 3))

    found = run(branch("", 3), 4)
    assert found == [[[f"{a}{b}{c}" for c in range(3)] for b in range(3)] for a in range(3)]
    assert client.most == 4


def test_a_failure_cancels_the_others_and_lets_them_clean_up(client: Client) -> None:
    ended: list[str] = []

    def waiting(name: str) -> Task[None]:
        try:
            yield client.call(name, "never")
        except Cancelled:
            # What it does to clean up is still done, and waited for.
            response = yield client.call(f"clean {name}", 20)
            assert response.error_code == 0
            ended.append(name)
            raise

    def sleeping(name: str) -> Task[None]:
        try:
            yield Sleep(60)
        finally:
            ended.append(name)

    def failing() -> Task[None]:
        yield client.call("fails", 5)
        raise LookupError("first")

    def task() -> Task[None]:
        others = [waiting("a"), waiting("b"), sleeping("c")]
        try:
            yield Gather([*others, failing(), *(one(client, "late") for _ in range(9))], 4)
        except LookupError:
            assert sorted(ended) == ["a", "b", "c"]
            raise

    started = time.monotonic()
    with pytest.raises(LookupError, match="first"):
        run(task(), 10)
    assert time.monotonic() - started < 5
    # Nothing is begun after a failure.
    assert "late" not in client.submitted
    assert client.flying == 0
    assert [o.name for o in client.operations if o.cancelled] == ["a", "b"]


def test_a_failure_reaches_through_gathers(client: Client) -> None:
    cancelled: list[str] = []

    def inner(name: str) -> Task[None]:
        try:
            yield Gather([one(client, f"{name}{n}", "never") for n in range(3)], 2)
        except Cancelled:
            cancelled.append(name)
            raise

    def failing() -> Task[None]:
        yield client.call("fails", 10)
        raise LookupError("deep")

    def outer() -> Task[None]:
        yield Gather([failing()], 1)

    def task() -> Task[None]:
        yield Gather([inner("a"), inner("b"), outer()], 3)

    with pytest.raises(LookupError, match="deep"):
        run(task(), 10)
    assert sorted(cancelled) == ["a", "b"]
    assert client.flying == 0
    assert all(operation.done for operation in client.operations)


def test_the_first_failure_is_the_one_that_is_raised(client: Client) -> None:
    def failing(name: str, milliseconds: float) -> Task[None]:
        try:
            yield client.call(name, milliseconds)
        except Cancelled:
            raise KeyError("while cleaning up") from None
        raise LookupError(name)

    def task() -> Task[None]:
        yield Gather([failing("slow", "never"), failing("quick", 1)], 2)  # type: ignore[arg-type]

    with pytest.raises(LookupError, match="quick"):
        run(task(), 10)


def test_a_caught_failure_is_over(client: Client) -> None:
    def failing() -> Task[None]:
        yield client.call("fails")
        raise LookupError("caught")

    def task() -> Task[Any]:
        for _ in range(3):
            with pytest.raises(LookupError):
                yield Gather([failing(), one(client, "x", "never")], 2)
        return (yield Gather([one(client, "after")], 1))

    assert run(task(), 10) == ["after"]
    assert client.flying == 0


def test_a_stream_of_tasks_that_fails(client: Client) -> None:
    def tasks() -> Iterator[Task[str]]:
        yield one(client, "a", "never")
        raise LookupError("no more tasks")

    def task() -> Task[None]:
        yield Gather(tasks(), 5)

    with pytest.raises(LookupError, match="no more tasks"):
        run(task(), 10)
    assert client.flying == 0


def test_what_waits_for_its_turn_is_never_submitted(client: Client) -> None:
    def failing() -> Task[None]:
        yield client.call("fails", 5)
        raise LookupError

    def task() -> Task[None]:
        yield Gather([failing(), *(one(client, "waits", "never") for _ in range(5))], 6)

    with pytest.raises(LookupError):
        run(task(), 1)
    assert client.submitted == ["fails"]


def test_a_call_that_is_refused(client: Client) -> None:
    def task() -> Task[str]:
        try:
            yield client.call("bad", "refused")
        except ValueError as error:
            return str(error)
        return ""

    assert run(task(), 1) == "bad was refused"


def test_sleep(client: Client) -> None:
    woken: list[float] = []

    def sleeping(seconds: float) -> Task[None]:
        yield Sleep(seconds)
        woken.append(seconds)

    def task() -> Task[None]:
        yield Gather([sleeping(s / 100) for s in (9, 3, 6, 0)], 10)

    started = time.monotonic()
    run(task(), 1)
    assert woken == [0, 0.03, 0.06, 0.09]
    assert 0.09 <= time.monotonic() - started < 2


def test_a_run_in_a_run(client: Client) -> None:
    def task() -> Task[str]:
        yield client.call("outer")
        return run(one(client, "inner"), 1)

    assert run(task(), 1) == "inner"
