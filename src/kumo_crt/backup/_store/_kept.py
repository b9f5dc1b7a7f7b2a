"""Whether the service has kept what it said to have stored."""

from __future__ import annotations

from collections.abc import Iterable

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format._results import StoredObject
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import NotFoundError
from kumo_crt.s3._head import head_task

_HEADS_AT_ONCE = 16


class Kept:
    """How much the answers are worth that some work gets for what it sends.

    One that tells the CRC32C comes from who has the object. One without may come from whatever
    listens at that address while the service is away; and a service that has been away may have
    come back without what it had not yet brought to its disk.

    Args:
        store: Where it sends to; from now on, failures count.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = store.context.retries.outages
        self._unconfirmed: set[str] = set()

    def heard(self, key: str, confirmed: bool) -> None:
        """Notes an answer: whether it told the checksum of what was sent."""
        if not confirmed:
            self._unconfirmed.add(key)

    def is_certain(self, key: str) -> bool:
        """Whether an object that was sent is there, by the answers alone."""
        away = self._store.context.retries.outages != self._before
        return not away and key not in self._unconfirmed

    def lost(self, objects: Iterable[StoredObject]) -> Task[list[str]]:
        """Keys of those objects that are not there, of all that is not certain.

        Called again, it asks again only after a further outage.

        Args:
            objects: All that was sent.
        """
        outages = self._store.context.retries.outages
        doubtful = [item for item in objects if not self.is_certain(item.key)]
        found = (yield from missing_task(self._store, doubtful)) if doubtful else []
        # One while it was asked counts, for the next time.
        self._before = outages
        self._unconfirmed.difference_update(item.key for item in doubtful)
        return found


def missing_task(store: Store, objects: Iterable[StoredObject]) -> Task[list[str]]:
    """Keys of those objects that are gone, or of another size."""

    def look(wanted: StoredObject) -> Task[str | None]:
        key = wanted.key
        try:
            found = yield from head_task(store.context, store.bucket, store.location.key(key))
        except NotFoundError:
            return key
        return None if found.size == wanted.size else key

    found: list[str | None] = yield Gather(
        (look(item) for item in dict.fromkeys(objects)), _HEADS_AT_ONCE
    )
    return [key for key in found if key is not None]
