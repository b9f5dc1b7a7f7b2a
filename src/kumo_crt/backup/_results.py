"""What the repository tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot.

    Attributes:
        path: Name in the database directory.
        kind: ``sst``, ``blob``, ``wal``, ``manifest``, ``options`` or ``current``.
        size: Bytes.
        crc32c: CRC32C of the whole file.
        key: Key of its data object, below the repository's prefix; None if it is ``inline``.
        inline: Its content, for very small files.
    """

    path: str
    kind: str
    size: int
    crc32c: int
    key: str | None = None
    inline: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent state of a database that is stored in a repository.

    Attributes:
        id: Sorts by age.
        created_at: When the capture began, by the service's clock.
        db_id: RocksDB's identity of the database; empty if it had none.
        files: Its files.
        total_bytes: Size of all of them.
        uploaded_bytes: What the backup sent.
        reused_bytes: What was in the repository before.
        sequence_number: RocksDB's last sequence number in it.
        column_families: Names.
        tags: As given to `Repository.backup`.
    """

    id: str
    created_at: datetime
    db_id: str
    files: tuple[SnapshotFile, ...] = field(repr=False)
    total_bytes: int
    uploaded_bytes: int
    reused_bytes: int
    sequence_number: int
    column_families: tuple[str, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        snapshot: Id of the snapshot.
        target: The directory that holds the database now.
        files: Number of files.
        total_bytes: Size of all of them.
        downloaded_bytes: What came over the network.
        kept_bytes: What an interrupted restore had already brought, checked again.
        seconds: Duration.
        reused_bytes: What was taken over from the database that was there (``delta``), checked.
        column_families: Names of those that the restored database has.
    """

    snapshot: str
    target: str
    files: int
    total_bytes: int
    downloaded_bytes: int
    kept_bytes: int
    seconds: float
    reused_bytes: int = 0
    column_families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ThawReport:
    """What is known of a snapshot's archived objects after copies were asked for.

    Attributes:
        snapshot: Id of the snapshot.
        ready: Everything can be read now.
        requested: Objects that a copy was asked for now.
        requested_bytes: Size of them.
        ongoing: Objects whose copy had been asked for before and is not there yet.
        thawed: Archived objects of which there is a copy.
        objects: Objects of the snapshot.
        days: For how long the copies stay.
        tier: How fast they come.
    """

    snapshot: str
    ready: bool
    requested: int
    requested_bytes: int
    ongoing: int
    thawed: int
    objects: int
    days: int
    tier: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Damage that `Repository.verify` found.

    Attributes:
        snapshot: Id of the snapshot.
        path: File of the database; empty if the manifest itself is damaged.
        key: Key of the object.
        kind: ``missing``, ``size``, ``checksum``, ``unverifiable`` or ``manifest``.
        message: What was found and what was expected.
    """

    snapshot: str
    path: str
    key: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `Repository.verify` looked at, and found.

    Attributes:
        ok: There are no problems.
        snapshot: Id of the snapshot.
        level: ``quick``, ``stored`` or ``full``.
        files: Number of files that were checked.
        bytes_read: Bytes that were downloaded for it.
        problems: What is wrong.
        seconds: Duration.
    """

    ok: bool
    snapshot: str
    level: str
    files: int
    bytes_read: int
    problems: tuple[Problem, ...]
    seconds: float
