"""Remembers what was read, and when: the ledgers under ``health/`` (docs/format.md)."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._documents import (
    VERSION,
    Reader,
    encode,
    is_number,
    parse_time,
    time_text,
)
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    FormatError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._deletions import delete_many_task

HEALTH = "health/"
# Of the times in ledgers.
RESOLUTION = timedelta(seconds=1)
# From this number on, they are put together into one.
_MERGE_FROM = 16
_CONCURRENCY = 8
_ATTEMPTS = 3
# Problems of drills that no damaged object explains.
FAULTS = ("restore", "open", "content")
_HASH = re.compile(r"[0-9a-f]{16}")
_log = logging.getLogger("kumo_crt.backup")


@dataclass(frozen=True, slots=True)
class Damage:
    """What was wrong with an object when it was last looked at."""

    at: datetime
    kind: str


@dataclass(frozen=True, slots=True)
class FamilyContent:
    """What a drill found in a column family: entries, and the CRC32C over all of them."""

    entries: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class Drilled:
    """A snapshot that was restored and read."""

    at: datetime
    families: Mapping[str, FamilyContent]


@dataclass(frozen=True, slots=True)
class FailedDrill:
    """A drill that failed at what it found, not at damaged objects: the kind of its problem."""

    at: datetime
    kind: str


@dataclass(slots=True)
class Ledger:
    """What all ledgers say together.

    Attributes:
        reads: When an object was last read in full, by `object_hash`.
        damaged: Objects that were found damaged and not read since, by key.
        drills: The last good drill of each snapshot.
        failed_drills: The last one of each that failed.
    """

    reads: dict[str, datetime] = field(default_factory=dict)
    damaged: dict[str, Damage] = field(default_factory=dict)
    drills: dict[str, Drilled] = field(default_factory=dict)
    failed_drills: dict[str, FailedDrill] = field(default_factory=dict)

    def last_read(self, key: str) -> datetime | None:
        """When an object was last read in full."""
        return self.reads.get(object_hash(key))

    def oldest_read(self, keys: Iterable[str]) -> datetime | None:
        """Since when all these objects have been read; None if one never was."""
        times = [self.last_read(key) for key in keys]
        known = [time for time in times if time is not None]
        return min(known) if known and len(known) == len(times) else None

    def known_damage(self) -> dict[str, Damage]:
        """Damage that no later reading has contradicted."""
        return {
            key: damage
            for key, damage in self.damaged.items()
            if (read := self.last_read(key)) is None or read <= damage.at
        }

    def failed_drill(self, snapshot: str) -> FailedDrill | None:
        """The last drill of a snapshot, if it failed."""
        failed, good = self.failed_drills.get(snapshot), self.drills.get(snapshot)
        return failed if failed is None or good is None or good.at <= failed.at else None

    def has_rotten_tables(self, db_id: str) -> bool:
        """Whether a drill of a database found what RocksDB cannot read, and none succeeded since.

        None of the same or a later snapshot, that is. It may have been of another database, as ids
        of snapshots tell few from each other.
        """
        good = [(d.at, i) for i, d in self.drills.items() if _layout.may_be_of(i, db_id)]
        return any(
            not any(i >= snapshot and (at, i) > (failed.at, snapshot) for at, i in good)
            for snapshot, failed in self.failed_drills.items()
            if failed.kind in ("open", "content") and _layout.may_be_of(snapshot, db_id)
        )

    def add(self, other: Ledger) -> None:
        """Takes over what is newer in another one."""
        for name, at in other.reads.items():
            if name not in self.reads or self.reads[name] < at:
                self.reads[name] = at
        for key, damage in other.damaged.items():
            if key not in self.damaged or self.damaged[key].at < damage.at:
                self.damaged[key] = damage
        for snapshot, drilled in other.drills.items():
            if snapshot not in self.drills or self.drills[snapshot].at < drilled.at:
                self.drills[snapshot] = drilled
        for snapshot, failed in other.failed_drills.items():
            known = self.failed_drills.get(snapshot)
            if known is None or known.at < failed.at:
                self.failed_drills[snapshot] = failed

    def only(self, keys: set[str], snapshots: set[str]) -> Ledger:
        """Without what is known of objects and snapshots that are gone."""
        hashes = {object_hash(key) for key in keys}
        return Ledger(
            {name: at for name, at in self.reads.items() if name in hashes},
            {key: damage for key, damage in self.known_damage().items() if key in keys},
            {name: drilled for name, drilled in self.drills.items() if name in snapshots},
            {name: f for name in snapshots if (f := self.failed_drill(name)) is not None},
        )


def object_hash(key: str) -> str:
    """What stands for an object in a ledger."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def encode_ledger(ledger: Ledger, repository_id: str, tool: str) -> bytes:
    """A ledger as a document."""
    by_time: dict[datetime, list[str]] = {}
    for name, at in ledger.reads.items():
        by_time.setdefault(at, []).append(name)
    document = {
        "format": "kumo-health",
        "version": VERSION,
        "repository_id": repository_id,
        "tool": tool,
        "reads": [
            {"at": time_text(at), "objects": sorted(names)} for at, names in sorted(by_time.items())
        ],
        "damaged": encode_damaged(ledger.damaged),
        "drills": [
            {
                "at": time_text(drilled.at),
                "snapshot": snapshot,
                "column_families": {
                    name: {"entries": found.entries, "crc32c": f"{found.crc32c:08x}"}
                    for name, found in drilled.families.items()
                },
            }
            for snapshot, drilled in sorted(ledger.drills.items())
        ],
        "failed_drills": [
            {"at": time_text(failed.at), "snapshot": snapshot, "kind": failed.kind}
            for snapshot, failed in sorted(ledger.failed_drills.items())
        ],
    }
    return encode(document)


def encode_damaged(damaged: Mapping[str, Damage]) -> list[dict[str, str]]:
    """The member ``damaged`` of a document."""
    return [
        {"at": time_text(damage.at), "key": key, "kind": damage.kind}
        for key, damage in sorted(damaged.items())
    ]


def decode(document: bytes | memoryview, where: str) -> Ledger:
    """Reads a ledger.

    Raises:
        FormatError: It is malformed.
    """
    reader = Reader(document, where, "kumo-health")
    ledger = Ledger()
    for field_name, entry in _entries(reader, "reads"):
        names = entry.get("objects")
        if not isinstance(names, list):
            raise reader.error(field_name, "expected a list of objects")
        at = _time(reader, field_name, entry)
        for name in names:
            if not isinstance(name, str) or not _HASH.fullmatch(name):
                raise reader.error(field_name, "expected 16 hexadecimal digits")
            if name not in ledger.reads or ledger.reads[name] < at:
                ledger.reads[name] = at
    ledger.damaged = decode_damaged(reader)
    for field_name, entry in _entries(reader, "drills"):
        snapshot, families = entry.get("snapshot"), entry.get("column_families")
        if not isinstance(snapshot, str) or not isinstance(families, dict):
            raise reader.error(field_name, "expected a snapshot and its column families")
        contents = {name: _family(reader, field_name, f) for name, f in families.items()}
        ledger.drills[snapshot] = Drilled(_time(reader, field_name, entry), contents)
    if reader.value("failed_drills") is not None:  # those of older versions have none
        for field_name, entry in _entries(reader, "failed_drills"):
            snapshot, kind = entry.get("snapshot"), entry.get("kind")
            if not isinstance(snapshot, str) or not isinstance(kind, str) or not _is_word(kind):
                raise reader.error(field_name, "expected a snapshot and a kind")
            ledger.failed_drills[snapshot] = FailedDrill(_time(reader, field_name, entry), kind)
    reader.check_crc()
    return ledger


def decode_damaged(reader: Reader) -> dict[str, Damage]:
    """The member ``damaged`` of a document.

    Raises:
        FormatError: It is malformed.
    """
    damaged = {}
    for field_name, entry in _entries(reader, "damaged"):
        key, kind = entry.get("key"), entry.get("kind")
        if not isinstance(key, str) or not isinstance(kind, str) or not _layout.is_data_key(key):
            raise reader.error(field_name, "expected a key and a kind")
        damaged[key] = Damage(_time(reader, field_name, entry), kind[:40])
    return damaged


def _is_word(text: str) -> bool:
    return re.fullmatch("[a-z_]{1,40}", text) is not None


def _entries(reader: Reader, name: str) -> Iterable[tuple[str, dict[str, Any]]]:
    entries = reader.value(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise reader.error(name, "expected a list of objects")
    return ((f"{name}[{index}]", entry) for index, entry in enumerate(entries))


def _time(reader: Reader, name: str, entry: Mapping[str, Any]) -> datetime:
    at = parse_time(entry.get("at"))
    if at is None:
        raise reader.error(f"{name}.at", "expected a time such as 2026-11-23T06:00:00Z")
    return at


def _family(reader: Reader, name: str, entry: object) -> FamilyContent:
    if isinstance(entry, dict):
        entries, crc = entry.get("entries"), entry.get("crc32c")
        if (
            is_number(entries, 1 << 62)
            and isinstance(crc, str)
            and re.fullmatch("[0-9a-f]{8}", crc)
        ):
            return FamilyContent(entries, int(crc, 16))
    raise reader.error(name, "expected entries and crc32c")


def _names(store: Store) -> Task[list[str]]:
    found = yield from store.list_all(HEALTH)
    start = len(store.location.key(""))
    names = (item.key[start:] for item in found)
    return sorted(
        name
        for name in names
        if _layout.is_snapshot_id(name.removeprefix(HEALTH).removesuffix(".json"))
    )


def _read_one(store: Store, name: str) -> Task[Ledger | None]:
    try:
        document, _ = yield from store.read(name)
        return decode(document, store.url(name))
    except NotFoundError:
        return None  # put together with others since it was listed
    except (FormatError, ChecksumMismatchError) as error:
        _log.warning("ignoring a ledger of what was read: %s", error)
        return None


def _read(store: Store, names: list[str]) -> Task[tuple[Ledger, list[str]]]:
    """What ledgers say, and the names of those that could be read."""
    found = yield Gather((_read_one(store, name) for name in names), _CONCURRENCY)
    whole = Ledger()
    for ledger in found:
        if ledger is not None:
            whole.add(ledger)
    return whole, [name for name, ledger in zip(names, found, strict=True) if ledger is not None]


def read_task(store: Store) -> Task[Ledger]:
    """What is known of a repository's health."""
    ledger = Ledger()
    seen: set[str] = set()
    while True:
        new = [name for name in (yield from _names(store)) if name not in seen]
        found, there = yield from _read(store, new)
        ledger.add(found)
        seen.update(new)
        # Those that are gone have been put together since: what was in them is in a newer one.
        if len(there) == len(new):
            return ledger


def record_task(store: Store, new: Ledger, at: datetime, tool: str) -> Task[None]:
    """Adds to what is known; puts the ledgers together when they have become many."""
    names = yield from _names(store)
    done: list[str] = []
    if len(names) >= _MERGE_FROM:
        merged, done = yield from _read(store, names)
        merged.add(new)
        new = yield from _without_the_gone(store, merged)
    for attempt in range(1, _ATTEMPTS + 1):
        newest = names[-1].removeprefix(HEALTH).removesuffix(".json") if names else None
        name = f"{HEALTH}{_layout.new_snapshot_id(at, newest)}.json"
        terms = store.terms
        document = encode_ledger(new, terms.repository_id if terms is not None else "", tool)
        try:
            yield from write_new_task(store, name, document)
        except PreconditionFailedError:
            if attempt == _ATTEMPTS:
                raise
        else:
            break
    if done:
        yield from delete_many_task(
            store.context, store.bucket, [store.location.key(name) for name in done]
        )


def _without_the_gone(store: Store, ledger: Ledger) -> Task[Ledger]:
    keys: set[str] = set()
    ids = yield from store.snapshot_ids()
    try:
        for snapshot_id in ids:
            snapshot = yield from store.snapshot(snapshot_id)
            keys.update(file.key for file in snapshot.files if file.key is not None)
    except (FormatError, NotFoundError):
        return ledger  # what is not known to be gone is kept
    return ledger.only(keys, set(ids))
