"""So much a second, shared by many tasks, also of several threads."""

from __future__ import annotations

import threading
import time

from kumo_crt._engine._tasks import Sleep, Task


class Throttle:
    """Spreads bytes, or other things, over time, for all tasks that share it.

    Args:
        per_second: The rate.
        unit: What is counted, for messages.
    """

    def __init__(self, per_second: float, unit: str = "bytes") -> None:
        if not per_second > 0:
            raise ValueError(f"{unit} per second is {per_second}: it must be above 0")
        self._rate = per_second
        self._free = 0.0
        self._lock = threading.Lock()

    def take(self, count: int) -> Task[None]:
        """Waits until ``count`` more may go."""
        pause = self.count(count)
        if pause > 0:
            yield Sleep(pause)

    def count(self, count: int) -> float:
        """Counts what goes, less than none for what did not; tells the seconds it has to wait."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + count / self._rate
            return start - now
