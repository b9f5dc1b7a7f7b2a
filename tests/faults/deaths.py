"""Which deaths are died: all the boundaries there are, or as many as there is time for."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.faults.mortals import Death, Life

# Long enough that some requests arrive, short enough that some do not.
_PAUSE = 0.003


def boundaries(life: Life, chance: random.Random) -> list[Death]:
    """Before every effect of a life, after the last one, and while a request is under way."""
    last = len(life.effects) - 1
    deaths = [Death(number, "before") for number in range(last + 1)]
    deaths.append(Death(last, "after"))
    deaths += (Death(number, "sent", chance.uniform(0, _PAUSE)) for number in life.requests())
    return deaths


def some(deaths: list[Death], chance: random.Random, count: int) -> list[Death]:
    """So many of them, in order; all if there are not more."""
    return (
        deaths
        if len(deaths) <= count
        else [deaths[i] for i in sorted(chance.sample(range(len(deaths)), count))]
    )


def at_random(life: Life, chance: random.Random, count: int) -> list[Death]:
    """Deaths at effects that come in any order, and at any time."""
    draws: list[Callable[[], Death]] = [
        lambda: Death(chance.randrange(len(life.effects)), "before"),
        lambda: Death(chance.randrange(len(life.effects)), "after"),
        lambda: Death(seconds=chance.uniform(0, life.seconds)),
        lambda: Death(seconds=chance.uniform(0, life.seconds)),
    ]
    if life.requests():
        draws += [
            lambda: Death(chance.choice(life.requests()), "sent", chance.uniform(0, _PAUSE)),
            lambda: Death(chance.choice(life.requests()), "after"),
        ]
    return [draws[number % len(draws)]() for number in range(count)]
