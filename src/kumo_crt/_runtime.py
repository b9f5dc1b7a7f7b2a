"""The native runtime's life: made with the first client, ended at interpreter exit."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Protocol

from kumo_crt import _core, _engine, _logging
from kumo_crt._config import Settings
from kumo_crt.exceptions import CredentialsError

# What everything that the exit may wait for gets together; below the five seconds promised.
_EXIT_SECONDS = 4.0
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_lock = threading.Lock()
_registered = False


class _Closable(Protocol):
    def _close_at_once(self) -> None: ...


_clients: weakref.WeakSet[_Closable] = weakref.WeakSet()


def new_client(settings: Settings) -> _core.Client:
    """Makes a native client, and the runtime if this is the first.

    Raises:
        CredentialsError: The profile cannot be used.
        ValueError: The CA file holds no certificate, or another setting is refused.
    """
    global _registered
    _logging.start()
    with _lock:
        if not _registered:
            _registered = True
            atexit.register(_at_exit)
    try:
        return _native(settings)
    except _core.CrtError as error:
        if error.name.startswith("AWS_AUTH") or settings.profile is not None:
            raise CredentialsError(
                f"{error}. Is there such a profile, with credentials, in ~/.aws/config "
                "(AWS_CONFIG_FILE) or ~/.aws/credentials (AWS_SHARED_CREDENTIALS_FILE)?"
            ) from None
        hint = ". It has to hold certificates, as PEM" if settings.ca_file else ""
        raise ValueError(f"{error}{hint}") from None


def _native(settings: Settings) -> _core.Client:
    key, secret, token = _static_credentials(settings)
    asks = not settings.anonymous and key is None
    plain = (settings.endpoint_url or "").startswith("http://")
    return _core.Client(
        region=settings.region,
        ca_file=settings.ca_file,
        verify=settings.verify,
        anonymous=settings.anonymous,
        access_key_id=key,
        secret_access_key=secret,
        session_token=token,
        profile=settings.profile,
        proxy=settings.proxy or "",
        max_connections=settings.max_connections,
        event_loops=settings.event_loops,
        connect_timeout_ms=round(settings.connect_timeout * 1000),
        stall_timeout_s=round(settings.request_timeout),
        tls_at_once=asks or not plain or bool(settings.ca_file),
    )


def _static_credentials(settings: Settings) -> tuple[str | None, str | None, str | None]:
    """The given ones, or the environment's, which are first in the chain and need no requests."""
    if settings.access_key_id is None and settings.profile is None and not settings.anonymous:
        key, secret, token = (os.environ.get(name) or None for name in _CREDENTIALS)
        if key and secret:
            return key, secret, token
    return settings.access_key_id, settings.secret_access_key, settings.session_token


def register(client: _Closable) -> None:
    """Remembers a client, to close it at exit if nobody has."""
    _clients.add(client)


def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS
    _engine.begin_exit()
    for client in list(_clients):
        client._close_at_once()
    _engine.finish_background()
    _core.shutdown(max(0.0, deadline - time.monotonic()))
    _logging.join(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    atexit.unregister(_at_exit)
    _logging.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
