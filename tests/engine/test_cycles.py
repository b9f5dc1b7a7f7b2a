"""What a call used is free when it is over, without the help of the garbage collector.

A client that is kept alive by an error's traceback cannot be shut down in order at exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest

from kumo_crt._engine import Blocking, Cancelled, First, Gather, Meter, Room, Task, run
from kumo_crt._engine._asyncio import Driver
from tests.engine.fakes import Client


class Context:
    """Stands for what the tasks' frames hold."""


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def waiting(client: Client, context: Context) -> Task[None]:
    try:
        yield client.call("waits", "never")
    except Cancelled:
        yield client.call("cleans")
        raise
    finally:
        del context


def failing(client: Client, context: Context, error: type[Exception] | None) -> Task[None]:
    yield client.call("fails", 1)
    if error is not None:
        raise error(repr(context))


def tasks(
    client: Client, context: Context, error: type[Exception] | None
) -> Generator[Task[None] | First]:
    yield failing(client, context, None)
    yield First(failing(client, context, error))


def broken_tasks(client: Client, context: Context, error: type[Exception]) -> Iterator[Task[None]]:
    yield waiting(client, context)
    raise error(repr(context))


def block(context: Context, error: type[Exception]) -> None:
    raise error(repr(context))


def steps(client: Client, context: Context, error: type[Exception]) -> list[Any]:
    """What a task may yield, each of which fails."""
    return [
        Gather([failing(client, context, error), failing(client, context, None)], 2),
        Gather([waiting(client, context), failing(client, context, error)], 2),
        Gather(tasks(client, context, error), 2),
        Gather(broken_tasks(client, context, error), 2),
        Blocking(partial(block, context, error)),
        client.call("is", "refused"),
    ]


STEPS = range(6)


def stepping(
    client: Client, context: Context, step: int, error: type[Exception], caught: bool
) -> Task[None]:
    try:
        yield steps(client, context, error)[step]
    except (LookupError, ValueError):
        if not caught:
            raise


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("caught", [True, False], ids=["caught", "raised"])
def test_after_a_failure(client: Client, step: int, caught: bool) -> None:
    context = Context()
    gone = weakref.ref(context)
    with contextlib.ExitStack() as stack:
        if not caught:
            stack.enter_context(pytest.raises((LookupError, ValueError)))
        run(stepping(client, context, step, LookupError, caught), 4)
    del context, stack
    assert gone() is None


def test_after_ctrl_c(client: Client) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def task(context: Context) -> Task[None]:
        client.transferred = 1
        try:
            yield client.call("waits", "never", meter=Meter(interrupt, 1))
        finally:
            del context

    context = Context()
    gone = weakref.ref(context)
    with contextlib.suppress(KeyboardInterrupt):
        run(task(context), 1)
    del context
    assert gone() is None


def test_after_a_cancelled_coroutine(watched: Client) -> None:
    async def scenario(context: Context) -> None:
        driver = Driver(asyncio.get_running_loop(), 4, 4, Room(100))
        task = asyncio.create_task(driver.run(waiting(watched, context)))
        while not watched.submitted:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        del task
        await driver.close(RuntimeError)

    context = Context()
    gone = weakref.ref(context)
    asyncio.run(scenario(context))
    del context
    assert gone() is None


@pytest.mark.parametrize("step", STEPS)
def test_after_a_failed_coroutine(watched: Client, step: int) -> None:
    async def scenario(context: Context) -> None:
        driver = Driver(asyncio.get_running_loop(), 4, 4, Room(100))
        with contextlib.suppress(LookupError, ValueError):
            await driver.run(stepping(watched, context, step, LookupError, caught=False))
        await driver.close(RuntimeError)

    context = Context()
    gone = weakref.ref(context)
    asyncio.run(scenario(context))
    del context
    assert gone() is None
