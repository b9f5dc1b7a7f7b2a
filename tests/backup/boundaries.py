"""Stops at every request that a client sends: to look, to do something else first, or to die."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import kumo_crt
from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _lease
from kumo_crt.s3._context import Context


@dataclass(frozen=True)
class Sent:
    """A request: the S3 operation, and the key (of a listing: its prefix)."""

    operation: str
    key: str


class Killed(BaseException):
    """Stands in for kill -9: nothing that the client still wants to send is sent."""


@dataclass
class Boundaries:
    """Requests of one client; ``before`` is called ahead of each, with its number from 0."""

    before: Callable[[int, Sent], None] = lambda number, sent: None
    sent: list[Sent] = field(default_factory=list)
    dead: bool = False

    def kill(self) -> None:
        """Ends the client, as far as the service can tell."""
        self.dead = True
        raise Killed

    def arrive(self, sent: Sent) -> None:
        """A request is about to be sent."""
        if self.dead:
            raise Killed
        self.sent.append(sent)
        self.before(len(self.sent) - 1, sent)


@contextlib.contextmanager
def watched(
    client: kumo_crt.S3Client,
    before: Callable[[int, Sent], None] = lambda number, sent: None,
) -> Iterator[Boundaries]:
    """Watches the requests of a client; others' are not touched."""
    watch = Boundaries(before)
    native = client._open().native
    original = Context.request

    def request(self: Context, operation: str, method: str, *args: Any, **more: Any) -> Task[Any]:
        if self.native is native:
            prefix = dict(more.get("query") or ()).get("prefix", "")
            watch.arrive(Sent(operation, args[1] if len(args) > 1 else prefix))
        return (yield from original(self, operation, method, *args, **more))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "request", request)
        # Renewals of leases go over the same client, to be watched too.
        patch.setattr(_lease, "_own_connection", lambda context: context)
        yield watch
