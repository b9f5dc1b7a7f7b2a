"""Known damage, where every backup looks anyway: notices under ``inflight/`` (docs/format.md).

Ledgers say the same to people. A notice is what makes a backup distrust an object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _inflight, _ledger
from kumo_crt.backup._coordination._ledger import Damage
from kumo_crt.backup._format import _documents
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import ChecksumMismatchError, FormatError, NotFoundError
from kumo_crt.s3._deletions import delete_task

# What a notice tells. Services answer 500, and go on doing so, where they find their copy rotten.
KINDS = ("missing", "size", "checksum", "unreadable")
# From this number on, they are put together into one.
_MERGE_FROM = 8
_AT_ONCE = 8
_log = logging.getLogger("kumo_crt.backup")


@dataclass(slots=True, eq=False, repr=False)
class Notices:
    """Notices that were read: what each says, by its key."""

    parts: Mapping[str, Mapping[str, Damage]] = field(default_factory=dict)

    @property
    def damaged(self) -> dict[str, Damage]:
        """What they say together, by the keys of data objects."""
        whole: dict[str, Damage] = {}
        for part in self.parts.values():
            for key, damage in part.items():
                if key not in whole or whole[key].at < damage.at:
                    whole[key] = damage
        return whole


def encode(damaged: Mapping[str, Damage], tool: str) -> bytes:
    """A notice as a document."""
    document = {
        "format": "kumo-damage",
        "version": _documents.VERSION,
        "tool": tool,
        "damaged": _ledger.encode_damaged(damaged),
    }
    return _documents.encode(document)


def decode(document: bytes | memoryview, where: str) -> dict[str, Damage]:
    """Reads a notice.

    Raises:
        FormatError: It is malformed.
    """
    reader = _documents.Reader(document, where, "kumo-damage")
    damaged = _ledger.decode_damaged(reader)
    reader.check_crc()
    return damaged


def read_task(store: Store, keys: Iterable[str]) -> Task[Notices]:
    """Reads notices; one that cannot be read is worth nothing."""
    wanted = list(keys)
    found = yield Gather((_read_one(store, key) for key in wanted), _AT_ONCE)
    pairs = zip(wanted, found, strict=True)
    return Notices({key: damaged for key, damaged in pairs if damaged is not None})


def _read_one(store: Store, key: str) -> Task[dict[str, Damage] | None]:
    try:
        document, _ = yield from store.read(key)
        return decode(document, store.url(key))
    except NotFoundError:
        return None  # taken back since it was listed
    except (FormatError, ChecksumMismatchError) as error:
        _log.warning("ignoring a notice of damage: verify anew, and delete it: %s", error)
        return None


def read_all_task(store: Store) -> Task[Notices]:
    """All notices."""
    found = yield from _inflight.look(store)
    return (yield from read_task(store, found.notices))


def add_task(store: Store, damaged: Mapping[str, Damage], tool: str) -> Task[None]:
    """Writes a notice of what no other tells yet."""
    seen: Notices = yield from read_all_task(store)
    known = seen.damaged
    new = {
        key: damage for key, damage in damaged.items() if key not in known and damage.kind in KINDS
    }
    if not new:
        return
    if len(seen.parts) < _MERGE_FROM:
        seen = Notices()
    yield from _replace(store, seen.parts, {**seen.damaged, **new}, tool)


def withdraw_task(store: Store, seen: Notices, over: Collection[str], tool: str) -> Task[None]:
    """Takes objects out of notices.

    Args:
        store: The repository.
        seen: Notices that were read *before* the objects were looked at: a later one tells of
            something that this look has not seen.
        over: Objects that are good again, or gone.
        tool: Who does it.
    """
    parts = {name: part for name, part in seen.parts.items() if not part.keys().isdisjoint(over)}
    left = {key: damage for key, damage in Notices(parts).damaged.items() if key not in over}
    yield from _replace(store, parts, left, tool)


def _replace(
    store: Store, old: Iterable[str], damaged: Mapping[str, Damage], tool: str
) -> Task[None]:
    """In this order: what is still known must be readable at every moment."""
    if damaged:
        key = _inflight.notice_key(os.urandom(16).hex())
        yield from write_new_task(store, key, encode(damaged, tool))
    yield Gather(
        (delete_task(store.context, store.bucket, store.location.key(key)) for key in old),
        _AT_ONCE,
    )


def clear_time(at: datetime, known: Damage | None) -> datetime:
    """When a good reading was, in ledgers.

    Their times have seconds, and of two within one the worse counts; this one came later.
    """
    return at if known is None else max(at, known.at) + _ledger.RESOLUTION
