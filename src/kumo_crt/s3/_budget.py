"""Limits that are shared by everything that goes through one place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from kumo_crt._engine import Sleep, Task, Throttle
from kumo_crt._units import parse_size, read_variable

_BYTES = "KUMO_CRT_MAX_BYTES_PER_SECOND"
_REQUESTS = "KUMO_CRT_MAX_REQUESTS_PER_SECOND"
# Of the environment's limits, which are the whole process's: by variable and rate.
_of_process: dict[tuple[str, float], Throttle] = {}
# In a child, a lock of a thread of the parent's would never be given back.
os.register_at_fork(after_in_child=_of_process.clear)


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

        Those are shared by all budgets of the process that have them from there.

        Raises:
            ValueError: A rate is no number above 0.
        """
        found = cls(
            _rate(_BYTES, bytes_per_second, parse_size),
            _rate(_REQUESTS, requests_per_second, float),
        )
        of_bytes, of_requests = found.rates
        if bytes_per_second is None and of_bytes is not None and found._bytes is not None:
            found._bytes = _of_process.setdefault((_BYTES, of_bytes), found._bytes)
        if requests_per_second is None and of_requests is not None and found._requests is not None:
            found._requests = _of_process.setdefault((_REQUESTS, of_requests), found._requests)
        return found

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
