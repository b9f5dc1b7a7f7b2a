"""What backups and restores tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from kumo_crt.backup._format import _layout


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A data object as it is stored.

    Attributes:
        key: Its key, below the repository's prefix.
        size: Bytes.
        crc32c: CRC32C of all of them.
    """

    key: str
    size: int
    crc32c: int


class Sealed(NamedTuple):
    """A file as it is stored in an encrypted repository.

    Attributes:
        size: Bytes.
        crc32c: CRC32C of all of them.
        salt: What its key is made of, with the repository's.
    """

    size: int
    crc32c: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot.

    Attributes:
        path: Name in the database directory.
        kind: ``sst``, ``blob``, ``wal``, ``manifest``, ``options``, ``current``, or ``config``
            (rocksdict's own file beside them).
        size: Bytes.
        crc32c: CRC32C of the whole file; of a sealed one, only who has the key knows it.
        key: Key of its data object, below the repository's prefix; None if it is ``inline``.
        inline: Its content, for very small files; without the key, what is stored of it.
        offset: Where it begins in its data object, if that holds several files.
        name: What a data object of its own would be called, if it has none.
        container: The data object, if it is something else than the file.
        sealed: How it is stored, if the repository is encrypted.
    """

    path: str
    kind: str
    size: int
    crc32c: int
    key: str | None = None
    inline: bytes | None = field(default=None, repr=False)
    offset: int | None = None
    name: str | None = None
    container: StoredObject | None = field(default=None, repr=False)
    sealed: Sealed | None = field(default=None, repr=False)

    @property
    def stored(self) -> StoredObject:
        """Its data object."""
        return self.container or StoredObject(self.key or "", self.stored_size, self.stored_crc32c)

    @property
    def stored_size(self) -> int:
        """Bytes that are stored of it."""
        return self.size if self.sealed is None else self.sealed.size

    @property
    def stored_crc32c(self) -> int:
        """CRC32C of what is stored of it."""
        return self.crc32c if self.sealed is None else self.sealed.crc32c


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent state of a database that is stored in a repository.

    Attributes:
        id: Sorts by age.
        created_at: When the capture began, by the service's clock.
        db_id: RocksDB's identity of the database; empty if it had none.
        files: Its files.
        total_bytes: Size of all of them.
        uploaded_bytes: What the backup added to the repository: the size of new objects.
        reused_bytes: What was in the repository before.
        sequence_number: RocksDB's last sequence number in it.
        column_families: Names.
        tags: As given to `Repository.backup`.
        pinned: Whether it is pinned, and never pruned; see `Repository.pin`.
        table_entries: Entries in all tables, with deletions and older versions of keys; None if a
            table does not say.
        warnings: What makes backups of the database expensive, and damage that was met. Only
            `Repository.backup` tells it.
        resumed_bytes: Of ``uploaded_bytes``, what had been sent already: parts of uploads that an
            interrupted backup had left. Only `Repository.backup` tells it.
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
    pinned: bool = False
    table_entries: int | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)
    resumed_bytes: int = field(default=0, compare=False)

    @property
    def single_object(self) -> str | None:
        """Key of its archive, if everything is in one; see `Repository.backup`."""
        keys = self.object_keys
        return next(filter(_layout.is_archive, keys), None) if len(keys) == 1 else None

    @property
    def object_keys(self) -> frozenset[str]:
        """Keys of all data objects that it needs: what a prune keeps for it."""
        return frozenset(file.key for file in self.files if file.key is not None)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did; with ``dry_run``, what it would restore.

    A dry run reads nothing: ``downloaded_bytes``, ``kept_bytes`` and ``seconds`` are 0 then, and
    ``reused_bytes`` is what the names and sizes of the files that are there suggest.

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
        warnings: What is left to do, though the restore has succeeded: a directory that holds what
            was there before, and cannot be removed; a manifest that is lost or damaged, whose spare
            was used.
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
    warnings: tuple[str, ...] = ()
