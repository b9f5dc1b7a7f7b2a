"""Bytes a second, shared by many transfers."""

from __future__ import annotations

import time

from kumo_crt._engine._tasks import Sleep, Task


class Throttle:
    """Spreads bytes over time, for all tasks that share it.

    Args:
        bytes_per_second: The rate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        if not bytes_per_second > 0:
            raise ValueError(f"bytes per second is {bytes_per_second}: it must be above 0")
        self._rate = bytes_per_second
        self._free = 0.0

    def take(self, count: int) -> Task[None]:
        """Waits until ``count`` bytes may be sent."""
        now = time.monotonic()
        start = max(now, self._free)
        self._free = start + count / self._rate
        if start > now:
            yield Sleep(start - now)
