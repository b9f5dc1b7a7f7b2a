"""What a transfer counts, and whom it tells."""

from __future__ import annotations

import time
from collections.abc import Callable


class Meter:
    """Counts bytes done and tells a callback, at most ten times a second and at the end.

    Args:
        callback: Called with bytes done and bytes in total.
        total: Bytes in total; 0 where that is not known.
        parent: A meter that counts the same bytes, among others'.
    """

    def __init__(
        self,
        callback: Callable[[int, int], object] | None,
        total: int,
        parent: Meter | None = None,
    ) -> None:
        self.done = 0
        self.total = total
        self._parent = parent
        self._callback = callback
        self._next = 0.0
        self._told = -1

    def add(self, count: int) -> None:
        """Counts ``count`` more bytes; less than none when a transfer starts again."""
        self.done += count
        if self._parent is not None:
            self._parent.add(count)
        if self._callback is not None:
            now = time.monotonic()
            if now >= self._next:
                self._next = now + 0.1
                self.flush()

    def expect(self, total: int) -> None:
        """Sets the total, if it is not known yet."""
        self.total = self.total or total

    def flush(self) -> None:
        """Tells the callback where things stand, if it does not know yet."""
        if self._callback is not None and self._told != self.done:
            self._told = self.done
            self._callback(self.done, self.total)
