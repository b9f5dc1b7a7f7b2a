"""Threads and waits that hold where gevent has patched the standard library, and elsewhere."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any


def patched() -> Any:
    """Gevent's ``monkey`` module, if it has made greenlets of threads; else None."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def wait_in_hub(descriptor: int, timeout: float) -> None:
    """Lets gevent's other greenlets run until a descriptor is readable, for some time.

    Its own ``select`` and ``poll`` will not do: they end by an exception, which Ctrl-C at the same
    time leaves to strike later, anywhere.
    """
    hub_module = importlib.import_module("gevent.hub")
    loop = hub_module.get_hub().loop
    waiter = hub_module.Waiter()
    readable, late = loop.io(descriptor, 1), loop.timer(timeout)
    try:
        readable.start(waiter.switch, None)
        late.start(waiter.switch, None)
        waiter.get()
    finally:
        for watcher in (readable, late):
            watcher.stop()
            watcher.close()


class SystemThread:
    """A daemon thread of the operating system: one that may block without stopping a hub.

    Args:
        function: What it does.
        name: Its name, where it can have one.
    """

    def __init__(self, function: Callable[[], None], name: str) -> None:
        monkey = patched()
        self._thread: threading.Thread | None = None
        if monkey is None:
            self._thread = threading.Thread(target=function, name=name, daemon=True)
            self._thread.start()
            return
        start, lock = monkey.get_original("_thread", ["start_new_thread", "allocate_lock"])
        self._over = lock()
        self._over.acquire()

        def run() -> None:
            try:
                function()
            finally:
                self._over.release()

        start(run, ())

    def join(self, timeout: float) -> None:
        """Waits for its end, for some time."""
        if self._thread is not None:
            self._thread.join(timeout)
        elif self._over.acquire(timeout=timeout):
            self._over.release()
