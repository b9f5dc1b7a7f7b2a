"""Works of several clients that take turns, request by request, as a schedule says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from kumo_crt._engine import Sleep, Task
from kumo_crt.backup._coordination import _census, _inflight
from kumo_crt.backup._prune import _prune
from kumo_crt.exceptions import KumoError
from kumo_crt.s3 import S3Client
from kumo_crt.s3._context import Context

_TURN = 0.0003


class _Turns:
    """Whose turn it is; one request at a time."""

    def __init__(self, schedule: str) -> None:
        self._order = list(reversed(schedule))
        self._over: set[str] = set()
        self._lock = threading.Lock()
        self._busy = False

    def take(self, name: str) -> bool:
        """Takes the turn, if it is this one's."""
        with self._lock:
            while self._order and self._order[-1] in self._over:
                self._order.pop()
            if self._busy or (self._order and self._order[-1] != name):
                return False
            self._busy = True
            return True

    def give(self) -> None:
        """Ends a turn."""
        with self._lock:
            self._busy = False
            if self._order:
                self._order.pop()

    def end(self, name: str) -> None:
        """Takes no further turns."""
        with self._lock:
            self._over.add(name)


def run_interleaved(
    works: dict[str, tuple[S3Client, Callable[[], Any]]], schedule: str
) -> dict[str, Any]:
    """Runs works in threads; each sends its requests when it is its turn.

    Args:
        works: By a letter: the client that is used, by nobody else, and what is done.
        schedule: A letter for each request; when all are used up, everybody goes on freely.

    Returns:
        What each returned, or the error of kumo_crt that it raised.
    """
    turns = _Turns(schedule)
    names = {id(client._open().native): name for name, (client, _) in works.items()}
    outcomes: dict[str, Any] = {}
    original = Context.request

    def request(self: Context, *args: Any, **more: Any) -> Task[Any]:
        name = names.get(id(self.native))
        if name is None:
            return (yield from original(self, *args, **more))
        while not turns.take(name):
            yield Sleep(_TURN)
        try:
            return (yield from original(self, *args, **more))
        finally:
            turns.give()

    def run(name: str) -> None:
        try:
            outcomes[name] = works[name][1]()
        except KumoError as error:
            outcomes[name] = error
        finally:
            turns.end(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "request", request)
        threads = [threading.Thread(target=run, args=(name,)) for name in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outcomes) == len(works)
    return outcomes


@contextlib.contextmanager
def without_waiting(*, protect_new: bool = False) -> Iterator[None]:
    """Marks are old at once, so that one prune marks and the next deletes.

    Args:
        protect_new: Keep the rule that what is new may be a running backup's, for a service with
            one clock. Without it, only what its pin names protects what a backup needs, which is
            what most tests are about.
    """
    real = _census.read_marks

    def read_marks(store: Any) -> Task[Any]:
        marks, worthless = yield from real(store)
        later = timedelta(seconds=30)
        return [_census.Mark(m.key, m.written + later, m.objects) for m in marks], worthless

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inflight, "grace", lambda: timedelta(seconds=-60))
        patch.setattr(_census, "read_marks", read_marks)
        patch.setattr(_prune, "_TIE_PAUSE", 0.0)
        # Listings tell whole seconds.
        skew = timedelta(seconds=1) if protect_new else timedelta(hours=-1)
        patch.setattr(_inflight, "_SKEW", skew)
        yield
