"""Limits that are shared by everything that goes through one place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from kumo_crt._engine import Sleep, Task, Throttle
from kumo_crt._units import parse_size, read_variable


class Budget:
    """Bytes and requests a second, for all that share it, in any thread.

    Args:
        bytes_per_second: Bytes of bodies, sent and received together.
        requests_per_second: Requests.

    Raises:
        ValueError: A rate is not above 0.
    """

    def __init__(
        self, bytes_per_second: float | None = None, requests_per_second: float | None = None
    ) -> None:
        self.rates = bytes_per_second, requests_per_second  # as they were given
        self._bytes = None if bytes_per_second is None else Throttle(bytes_per_second)
        self._requests = (
            None if requests_per_second is None else Throttle(requests_per_second, "requests")
        )

    @classmethod
    def of(cls, bytes_per_second: float | None, requests_per_second: float | None) -> Budget:
        """A budget with the environment's limits where none are given.

        Raises:
            ValueError: A rate is no number above 0.
        """
        return cls(
            _rate("KUMO_CRT_MAX_BYTES_PER_SECOND", bytes_per_second, parse_size),
            _rate("KUMO_CRT_MAX_REQUESTS_PER_SECOND", requests_per_second, float),
        )

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit at all."""
        return self._bytes is None and self._requests is None

    def before(self, size: int, requests: int = 1) -> Task[None]:
        """Waits until requests may go that send or bring so many bytes."""
        pause = self._requests.count(requests) if self._requests is not None else 0.0
        if self._bytes is not None and size:
            pause = max(pause, self._bytes.count(size))
        if pause > 0:
            yield Sleep(pause)

    def after(self, surplus: int) -> None:
        """Counts what came unforeseen, or did not come: those who follow wait for it."""
        if self._bytes is not None and surplus:
            self._bytes.count(surplus)


def _rate(variable: str, value: float | None, convert: Callable[[str], float]) -> float | None:
    text = os.environ.get(variable)
    if value is not None or not text:
        return value
    return read_variable(variable, text, convert)


def size_of(body: object) -> int:
    """Bytes of what `Call.body` takes."""
    if body is None:
        return 0
    if isinstance(body, tuple):
        return int(body[2])
    return memoryview(cast("bytes", body)).nbytes
