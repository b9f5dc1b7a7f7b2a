"""Clocks that go on while the machine sleeps: time that has passed, and the service's."""

from __future__ import annotations

import time
from datetime import datetime, timedelta


def boottime() -> float:
    """Seconds that also pass while the machine sleeps, as far as the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class ServiceClock:
    """The service's time: what it told once, and what has passed here since."""

    def __init__(self, told: datetime) -> None:
        self._told = told
        self._since = boottime()

    def age(self) -> float:
        """Seconds since it was told."""
        return boottime() - self._since

    def now(self) -> datetime:
        """The time."""
        return self._told + timedelta(seconds=boottime() - self._since)
