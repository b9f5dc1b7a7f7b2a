"""A lease that this process holds: written, renewed while work goes on, given up at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from kumo_crt import _core, _runtime
from kumo_crt._engine import Cancelled, Gather, Sleep, Task
from kumo_crt.backup._coordination import _clock, _inflight
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import KumoError, LeaseExpiredError
from kumo_crt.s3._context import Context
from kumo_crt.s3._deletions import delete_many_task, delete_task
from kumo_crt.s3._retry import Retries

_log = logging.getLogger("kumo_crt.backup")
T = TypeVar("T")
# Parts of a lease's time after which it is renewed, and a failed renewal tried again.
_RENEW = 1 / 3
_RETRY = 1 / 60


class _OverError(Exception):
    """Ends what ran beside a task that has its result."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


def beside(task: Task[T], companion: Task[object]) -> Task[T]:
    """Runs a task, and for as long a companion, which is cancelled then.

    If the companion fails, the task is cancelled, and the companion's error raised.
    """

    def main() -> Task[None]:
        raise _OverError((yield from task))

    try:
        yield Gather([main(), companion], 2)
    except _OverError as over:
        result: T = over.result
        return result
    raise AssertionError("unreachable")


def _own_connection(context: Context) -> Context:
    """A connection that nothing else uses: all others may be busy with large parts on a slow line.

    Made only for work that takes so long that its lease has to be renewed.
    """
    settings = replace(context.settings, max_connections=1)
    return Context(_runtime.new_client(settings), settings, Retries(settings), urgent=True)


class Lease:
    """A lease of this process.

    Args:
        store: The repository.
        kind: One of `_inflight.KINDS`.
        what: What is done under it, for messages.
        consequence: What that means for the work when the lease is lost.
    """

    def __init__(self, store: Store, kind: str, what: str, consequence: str) -> None:
        self.id = os.urandom(16).hex()
        self.kind = kind
        # It must not stand in a queue while its time runs out.
        ahead = replace(store.context, budget=None, urgent=True)
        self._store = store._replace(context=ahead)
        # Of what works under it; renewals get their own.
        self._retries = store.context.retries
        self._is_apart = False
        self._what = what
        self._consequence = consequence
        self._numbers = 0
        # Keys that were written, or may have been, and are still to be deleted.
        self._keys: list[str] = []
        self._first: str | None = None
        self._renewal: str | None = None
        self._since = 0.0
        self._written: datetime | None = None
        self._is_left = False

    # -- holding it ------------------------------------------------------------------------

    def acquire(self, objects: Iterable[str] = (), snapshots: Iterable[str] = ()) -> Task[None]:
        """Writes the first part; from then on the lease holds."""
        self._first = yield from self.write(self.kind, objects, snapshots)

    def write(
        self, kind: str, objects: Iterable[str] = (), snapshots: Iterable[str] = ()
    ) -> Task[str]:
        """Writes a further part, which renews the lease too; returns its key.

        Raises:
            LeaseExpiredError: It has lapsed: others may have acted on that.
        """
        is_held = bool(self._keys)
        if is_held:
            self.check()
        key = _inflight.part_key(kind, self.id, self._numbers)
        self._numbers += 1
        document = _inflight.encode_lease(
            kind,
            f"kumo_crt {_core.build_info()['version']}",
            "".join(c for c in os.uname().nodename[:255] if c.isprintable()),
            os.getpid(),
            objects,
            snapshots,
        )
        begun = _clock.boottime()
        self._keys.append(key)
        result = yield from write_new_task(self._store, key, document)
        stood_still = is_held and self.outlived(result.server_time)
        self._since = begun
        self._written = result.server_time
        if stood_still:
            # As in a virtual machine that is paused: its own clock pauses, too.
            raise self.expired("by the service's clock, it was not renewed for too long")
        return key

    def erase(self, key: str) -> Task[None]:
        """Deletes a part."""
        full = self._store.location.key(key)
        yield from delete_task(self._store.context, self._store.bucket, full)
        if key in self._keys:
            self._keys.remove(key)

    def sweeping(
        self, task: Task[T], objects: Iterable[str] = (), snapshots: Iterable[str] = ()
    ) -> Task[T]:
        """Runs a task that deletes what it says, under a sweep that says so.

        If the task fails, the sweep stays: a deletion that was sent may still take effect. So
        may one that was sent again as no answer came; but ids of snapshots do not come back.
        """
        outages = self._retries.outages
        hashes = list(objects)
        key = yield from self.write(_inflight.SWEEP, hashes, snapshots)
        self._keys.remove(key)
        result = yield from task
        if not hashes or self._retries.outages == outages:
            yield from self.erase(key)
        return result

    def keep(self, task: Task[T]) -> Task[T]:
        """Runs a task and renews the lease beside it.

        Raises:
            LeaseExpiredError: It could not be renewed in time; the task was cancelled.
        """
        return (yield from beside(task, self._renewing()))

    def _renewing(self) -> Task[None]:
        wait = _inflight.LEASE * _RENEW
        failure: KumoError | None = None
        while True:
            yield Sleep(wait)
            # The process may have stood still: what has lapsed is not to look as if it had held.
            self.check(failure)
            try:
                yield from self.renew()
                wait, failure = _inflight.LEASE * _RENEW, None
            except LeaseExpiredError:
                raise
            except KumoError as error:
                self.check(error)
                _log.warning("a lease was not renewed, trying again: %s", error)
                wait, failure = _inflight.LEASE * _RETRY, error

    def renew(self) -> Task[None]:
        """Renews the lease; a renewal before this one is deleted."""
        if not self._is_apart:
            context = _own_connection(self._store.context)
            self._store = self._store._replace(context=context)
            self._is_apart = True
        key = yield from self.write(self.kind)
        older, self._renewal = self._renewal, key
        if older is not None:
            yield from self.erase(older)

    def leave(self) -> None:
        """Lets the lease lapse by itself, whatever happens to the process.

        For requests whose outcome is not known: they may still take effect for as long as their
        signature is valid, and what they rely on has to be protected until then.
        """
        self._is_left = True

    def release(self) -> Task[None]:
        """Deletes all parts, if it was not left to lapse. What cannot be deleted lapses, too."""
        if self._is_left:
            return
        keys = [self._store.location.key(key) for key in self._keys]
        context, bucket = self._store.context, self._store.bucket
        try:
            if len(keys) == 1:
                yield from delete_task(context, bucket, keys[0])
            elif keys:
                yield from delete_many_task(context, bucket, keys)
        except KumoError as error:
            _log.warning("a lease could not be deleted, and will lapse: %s", error)
        self._keys.clear()

    def during(self, task: Task[T]) -> Task[T]:
        """Runs a task that may acquire this lease, and releases it in any case."""
        try:
            result = yield from task
        except (Exception, Cancelled):
            yield from self.release()
            raise
        yield from self.release()
        return result

    # -- relying on it ---------------------------------------------------------------------

    def check(self, cause: BaseException | None = None) -> None:
        """Makes sure that it holds, by this machine's clock.

        Raises:
            LeaseExpiredError: It does not any more.
        """
        passed = _clock.boottime() - self._since
        if passed > _inflight.LEASE:
            raise self.expired(f"it was last renewed {passed:.0f} s ago") from cause

    def is_listed(self, leases: dict[str, _inflight.LeaseState]) -> bool:
        """Whether its first part is where it was put."""
        mine = leases.get(self.id)
        return mine is not None and any(part.key == self._first for part in mine.parts)

    def outlived(self, moment: datetime | None) -> bool:
        """Whether others may have taken it for dead at a moment of the service's clock."""
        if moment is None or self._written is None:
            return False
        return (moment - self._written).total_seconds() > _inflight.LEASE

    def expired(self, why: str) -> LeaseExpiredError:
        """The error that ends the work."""
        return LeaseExpiredError(
            f"{self._store.location}: {self._what} was stopped: its lease ran out ({why}). "
            f"{self._consequence}"
        )
