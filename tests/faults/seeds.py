"""Where the chances of the battery come from, and how much of it runs."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# The same in every run, so that a failure in CI is one everywhere; a soak takes others.
_DEFAULT = 20_261_123


def seed() -> int:
    """The seed of this run: ``KUMO_FAULT_SEED``."""
    return int(os.environ.get("KUMO_FAULT_SEED", _DEFAULT))


def chances(*purpose: object) -> random.Random:
    """Chances for one purpose; those of others do not depend on how many it takes."""
    return random.Random(f"{seed()} {purpose}")


def scale() -> float:
    """How many times as much to do as CI does: ``KUMO_FAULT_SCALE``."""
    return float(os.environ.get("KUMO_FAULT_SCALE", "1"))


def scaled(count: int) -> int:
    """How many of something to do."""
    return max(1, round(count * scale()))


@contextmanager
def case(number: int, what: object) -> Iterator[None]:
    """Tells of a failure how it can be had again."""
    try:
        yield
    except Exception as error:
        error.add_note(
            f"case {number}: {what}; again with KUMO_FAULT_SEED={seed()} KUMO_FAULT_CASE={number} "
            f"KUMO_FAULT_SCALE={scale():g}"
        )
        raise


def cases(plan: Iterable[T]) -> Iterator[tuple[int, T]]:
    """The cases of a plan with their numbers; only one of them with ``KUMO_FAULT_CASE``."""
    only = os.environ.get("KUMO_FAULT_CASE")
    for number, item in enumerate(plan):
        if only is None or int(only) == number:
            yield number, item


def is_whole() -> bool:
    """Whether all cases run, so that they may be counted."""
    return "KUMO_FAULT_CASE" not in os.environ


# What has been done in this run, for the summary at its end.
done: Counter[str] = Counter()
