"""What the synchronous and the asynchronous client have in common."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from kumo_crt import _config, _runtime
from kumo_crt._config import Settings
from kumo_crt._engine import Room, room_of_process
from kumo_crt.s3._context import Context
from kumo_crt.s3._methods import presented
from kumo_crt.s3._retry import Retries

P = ParamSpec("P")


def _settings(
    resolve: Callable[P, Settings],
) -> Callable[[Callable[[Any, Settings], None]], Callable[Concatenate[Any, P], None]]:
    """Gives a constructor the arguments that settings are made of, which are told in one place."""

    def decorate(make: Callable[[Any, Settings], None]) -> Callable[Concatenate[Any, P], None]:
        def __init__(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:  # noqa: N807
            make(self, resolve(*args, **kwargs))

        return presented(__init__, resolve, "None")

    return decorate


class ClientBase:
    """Settings, and a native client from the constructor to the end."""

    _context: Context | None = None

    @_settings(_config.resolve)
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        room = Room if settings.own_memory else room_of_process
        self._room = room(settings.memory_limit)
        self._pid = os.getpid()
        self._context = Context(_runtime.new_client(settings), settings, Retries(settings))
        _runtime.register(self)

    def _open(self) -> Context:
        context = self._context
        if context is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this {type(self).__name__} was made before the process forked, and its threads "
                "are the parent's: make the first client after the fork, or start workers with "
                "'spawn'"
            )
        return context

    def _close_at_once(self) -> None:
        """Closes without waiting for anything; at interpreter exit, or when nobody has."""
        self._context = None

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._context is not None:
            what = repr(self)
            self._close_at_once()
            _warn(f"unclosed {what}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        settings = self._settings
        where = settings.endpoint_url or "AWS"
        state = "" if self._context is not None else " closed"
        return f"<kumo_crt.{type(self).__name__} {where} region={settings.region}{state}>"
