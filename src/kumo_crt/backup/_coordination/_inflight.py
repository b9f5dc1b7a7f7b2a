"""What is under ``inflight/``: what everybody has to know who writes (docs/format.md, "Deleting").

Leases of those who work on the repository, and notices of damage (`_notices`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._format import _documents, _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import ChecksumMismatchError, FormatError, NotFoundError

INFLIGHT = "inflight/"
BACKUP, PRUNE, SWEEP, SPARE = KINDS = ("backup", "prune", "sweep", "spare")

# A lease holds for so long, in seconds, without being renewed.
LEASE = 900.0
# And others honour it for so much longer: clocks differ, and what was signed in time may arrive
# late. S3 refuses signatures that are older than that.
MARGIN = 900.0
# Services write Last-Modified by the clocks of several machines.
_SKEW = timedelta(seconds=60)
_READERS = 8

_KEY = re.compile(r"inflight/(backup|prune|sweep|spare)-([0-9a-f]{32})-([0-9]{6})\.json")
_NOTICE = re.compile(r"inflight/damage-[0-9a-f]{32}-000000\.json")
_HASH = re.compile(r"[0-9a-f]{16}")


def grace() -> timedelta:
    """How long something has to be out of use before it is deleted: until any lease has lapsed."""
    return timedelta(seconds=LEASE + MARGIN)


def object_hash(key: str) -> str:
    """The hash of a data object's name, which it shares with its variants."""
    return hashlib.sha256(_layout.plain_name(key).encode()).hexdigest()[:16]


def part_key(kind: str, lease_id: str, number: int) -> str:
    """Key of an object of a lease, below the repository's prefix."""
    return f"{INFLIGHT}{kind}-{lease_id}-{number:06d}.json"


def notice_key(notice_id: str) -> str:
    """Key of a notice of damage, below the repository's prefix."""
    return f"{INFLIGHT}damage-{notice_id}-000000.json"


def is_ours(key: str) -> bool:
    """Whether a key is that of an object of a lease, or of a notice."""
    return any(pattern.fullmatch(key) is not None for pattern in (_KEY, _NOTICE))


class Part(NamedTuple):
    """One object of a lease."""

    key: str
    kind: str
    lease_id: str
    number: int
    written: datetime | None


@dataclass(slots=True, eq=False, repr=False)
class LeaseState:
    """A lease as a listing shows it."""

    id: str
    parts: list[Part] = field(default_factory=list)

    @property
    def kinds(self) -> set[str]:
        """What it is: a prune may be sweeping as well."""
        return {part.kind for part in self.parts}

    @property
    def began(self) -> datetime | None:
        """When its first object was written; None if the service does not say."""
        return min(self.parts, key=lambda part: part.number).written

    def has_lapsed(self, now: datetime) -> bool:
        """Whether its owner is taken for dead."""
        times = [part.written for part in self.parts if part.written is not None]
        if len(times) < len(self.parts):
            return False
        return now - max(times) > timedelta(seconds=LEASE + MARGIN)


class Content(NamedTuple):
    """What a part of a lease says."""

    objects: tuple[str, ...]
    snapshots: tuple[str, ...]
    host: str
    pid: int

    @property
    def owner(self) -> str:
        """Who that is, for messages."""
        return f"process {self.pid} on {self.host!r}"


def encode_lease(
    kind: str,
    tool: str,
    host: str,
    pid: int,
    objects: Iterable[str] = (),
    snapshots: Iterable[str] = (),
) -> bytes:
    """A part of a lease as a document."""
    document = {
        "format": "kumo-lease",
        "version": _documents.VERSION,
        "kind": kind,
        "tool": tool,
        "host": host,
        "pid": pid,
        "objects": list(objects),
        "snapshots": list(snapshots),
    }
    return _documents.encode(document)


def decode_lease(document: bytes | memoryview, where: str) -> Content:
    """Reads a part of a lease.

    Raises:
        FormatError: It is malformed, or of an unknown version.
    """
    reader = _documents.Reader(document, where, "kumo-lease")
    if reader.text("kind") not in KINDS:
        raise reader.error("kind", f"expected one of {', '.join(KINDS)}")
    snapshots = reader.texts("snapshots")
    if not all(_layout.is_snapshot_id(item) for item in snapshots):
        raise reader.error("snapshots", "expected ids of snapshots")
    content = Content(
        hashes(reader), snapshots, reader.text("host"), reader.number("pid", (1 << 63) - 1)
    )
    reader.check_crc()
    return content


def hashes(reader: _documents.Reader) -> tuple[str, ...]:
    """The member ``objects`` of a document.

    Raises:
        FormatError: They are no hashes.
    """
    found = reader.texts("objects")
    if not all(map(_HASH.fullmatch, found)):
        raise reader.error("objects", "expected hashes of 16 hexadecimal digits")
    return found


@dataclass(slots=True, eq=False, repr=False)
class Listed:
    """What a listing shows: every lease, by its id, and the keys of notices, and of all else."""

    leases: dict[str, LeaseState] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def look(store: Store) -> Task[Listed]:
    """Lists leases and notices; nobody heeds what else is there."""
    start = len(store.location.prefix)
    found = Listed()
    for item in (yield from store.list_all(INFLIGHT)):
        key = item.key[start:]
        match = _KEY.fullmatch(key)
        if match is not None:
            kind, lease_id, number = match.groups()
            part = Part(key, kind, lease_id, int(number), item.last_modified)
            found.leases.setdefault(lease_id, LeaseState(lease_id)).parts.append(part)
        elif _NOTICE.fullmatch(key):
            found.notices.append(key)
        else:
            found.strangers.append(key)
    return found


def list_leases(store: Store) -> Task[dict[str, LeaseState]]:
    """Every lease, by its id."""
    return (yield from look(store)).leases


def parts_of(leases: Iterable[LeaseState], kind: str) -> Iterator[Part]:
    """Parts of one kind."""
    return (part for lease in leases for part in lease.parts if part.kind == kind)


def read_parts(store: Store, parts: Iterable[Part]) -> Task[dict[str, Content]]:
    """What parts of leases say, by their keys; without those that are gone by now.

    Raises:
        FormatError: One cannot be read.
    """
    wanted = list(parts)
    found: list[Content | None] = yield Gather((_read(store, part) for part in wanted), _READERS)
    pairs = zip(wanted, found, strict=True)
    return {part.key: content for part, content in pairs if content is not None}


def _read(store: Store, part: Part) -> Task[Content | None]:
    where = store.url(part.key)
    try:
        document, _ = yield from store.read(part.key)
        return decode_lease(document, where)
    except NotFoundError:
        return None
    except (ChecksumMismatchError, FormatError) as error:
        raise FormatError(f"{error}. {remedy(part.kind, where)}") from error


def remedy(kind: str, where: str) -> str:
    """What to do about a part of a lease that cannot be read."""
    who = "repair of manifests" if kind == SPARE else kind
    return (
        f"It says what a {who} that is running, or has been killed, relies on or deletes: if "
        f"there is none, delete {where}"
    )


class Protection(NamedTuple):
    """What running backups may come to name.

    Attributes:
        objects: Hashes of data objects.
        since: What was written from then on may belong to one of them; None: no backup runs.
    """

    objects: frozenset[str]
    since: datetime | None

    def covers(self, key: str, written: datetime | None) -> bool:
        """Whether a data object has to stay."""
        if self.since is not None and (written is None or written >= self.since):
            return True
        return bool(self.objects) and object_hash(key) in self.objects


def read_protection(store: Store, leases: Iterable[LeaseState], now: datetime) -> Task[Protection]:
    """Reads the pins of backups that have not lapsed.

    Raises:
        FormatError: One cannot be read.
    """
    running = [lease for lease in leases if BACKUP in lease.kinds and not lease.has_lapsed(now)]
    contents = yield from read_parts(store, parts_of(running, BACKUP))
    began = [lease.began for lease in running]
    since: datetime | None = None
    if running:
        # Without a time from the service, everything may be new.
        known = [moment for moment in began if moment is not None]
        since = (
            min(known) - _SKEW
            if len(known) == len(began)
            else datetime.min.replace(tzinfo=now.tzinfo)
        )
    objects: Any = (item for content in contents.values() for item in content.objects)
    return Protection(frozenset(objects), since)


def read_unfinished(
    store: Store,
    leases: Iterable[LeaseState],
    now: datetime,
    kinds: Collection[str] = (BACKUP, SPARE),
) -> Task[frozenset[str]]:
    """Ids of snapshots whose manifest or spare somebody is writing: they must not be deleted.

    A spare that came after its manifest has been deleted would tell that the manifest was lost.

    Args:
        store: The repository.
        leases: As listed.
        now: The service's time.
        kinds: Of leases that count.

    Raises:
        FormatError: A lease cannot be read.
    """
    parts = [
        part
        for lease in leases
        if not lease.has_lapsed(now)
        for part in lease.parts
        if part.kind in kinds
    ]
    contents = yield from read_parts(store, parts)
    return frozenset(item for content in contents.values() for item in content.snapshots)


def read_sweeps(
    store: Store, leases: Iterable[LeaseState], seen: Iterable[str] = ()
) -> Task[tuple[frozenset[str], frozenset[str]]]:
    """What is being deleted now: hashes of data objects, and ids of snapshots.

    Args:
        store: The repository.
        leases: As listed.
        seen: Keys of sweeps that need not be read again.

    Raises:
        FormatError: A sweep cannot be read.
    """
    known = frozenset(seen)
    wanted = (part for part in parts_of(leases, SWEEP) if part.key not in known)
    contents = (yield from read_parts(store, wanted)).values()
    objects = frozenset(item for content in contents for item in content.objects)
    snapshots = frozenset(item for content in contents for item in content.snapshots)
    return objects, snapshots
