"""What a capture is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class CapturedFile(NamedTuple):
    """One file: its name in the database, where it can be read, and how long it is.

    Attributes:
        path: Name in the database directory.
        kind: As in `SnapshotFile`.
        number: RocksDB's number of it; 0 without one.
        source: The file to read.
        size: Its bytes.
        temporary: The source is a link or a copy of the capture's own.
        checksum: CRC32C that RocksDB recorded when it wrote the file, if it did.
        origin: The database's own file, where the source is a link or a copy.
    """

    path: str
    kind: str
    number: int
    source: Path
    size: int
    temporary: bool = False
    checksum: int | None = None
    origin: Path | None = None

    @property
    def shown(self) -> Path:
        """What to call it in messages: the database's own file, which stays."""
        return self.origin or self.source

    def release(self) -> None:
        """Gives up the file: it is no longer needed.

        A hard link that is kept holds the disk space of a file that RocksDB has deleted.
        """
        if self.temporary:
            self.source.unlink(missing_ok=True)


class Capture(NamedTuple):
    """A state of a database.

    Attributes:
        files: Its files.
        db_id: RocksDB's id of it.
        sequence_number: The last one in it, write-ahead logs included.
        column_families: Names.
        scattered: Its MANIFEST says that table files are in several directories.
        warnings: What an operator should know about it.
    """

    files: tuple[CapturedFile, ...]
    db_id: str
    sequence_number: int
    column_families: tuple[str, ...]
    scattered: bool = False
    warnings: tuple[str, ...] = ()
