"""Fibers: tasks that are under way, and the groups they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from kumo_crt import _core
from kumo_crt._engine._tasks import Call, Gather, Task

Over: TypeAlias = Callable[["Fiber", Any, BaseException | None], object]


class Fiber:
    """A task, and what it waits for.

    Args:
        task: The task.
        done: Told how it ended: with the fiber, and a value or an error.
        group: The group that it belongs to; None for a task that a caller waits for.
        index: Its place in the group.

    Attributes:
        failure: What its caller gets to see instead of its outcome.
        begun: Whether it has been given to a scheduler.
        over: Whether it has ended.
    """

    __slots__ = (
        "begun",
        "call",
        "call_id",
        "cancel",
        "cancelled",
        "counted",
        "done",
        "failure",
        "gathers",
        "group",
        "index",
        "kept",
        "operation",
        "over",
        "reserves",
        "sleep_id",
        "task",
    )

    def __init__(
        self, task: Task[Any], done: Over | None = None, group: Group | None = None, index: int = 0
    ) -> None:
        self.task = task
        self.done = done
        self.group = group
        self.index = index
        self.failure: BaseException | None = None
        self.begun = False
        self.over = False
        self.cancel = False  # to be told at its next turn
        self.cancelled = False  # has been told
        self.kept = False  # has an answer that it has to see first
        # What it waits for: one of these, or its turn, or a blocking function.
        self.gathers: Group | None = None
        self.call: Call | None = None  # waits to be submitted; or has been:
        self.call_id = 0
        self.operation: _core.Operation | None = None
        self.counted = 0
        self.sleep_id = 0
        self.reserves = 0  # bytes

    def root(self) -> Fiber:
        """The one that a caller waits for."""
        fiber = self
        while fiber.group is not None:
            fiber = fiber.group.parent
        return fiber


class Group:
    """The tasks of a `Gather`: those that are under way, and where the others come from."""

    __slots__ = ("active", "error", "exhausted", "first", "limit", "parent", "results", "tasks")

    def __init__(self, parent: Fiber, gather: Gather) -> None:
        self.parent = parent
        self.tasks: Iterator[Any] = iter(gather.tasks)
        self.limit = max(1, gather.limit)
        self.results: list[Any] = []
        self.active: set[Fiber] = set()
        self.exhausted = False
        self.first: Fiber | None = None  # runs what ``tasks`` waits for
        self.error: BaseException | None = None
