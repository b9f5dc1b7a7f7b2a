"""What exports and imports tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

ENCODINGS = ("sst", "jsonl")


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export.

    Attributes:
        key: Key of its object, below the export's URL.
        size: Bytes.
        crc32c: CRC32C of the whole file.
        entries: Keys in it.
    """

    key: str
    size: int
    crc32c: int
    entries: int


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What an export holds, as its manifest says.

    Attributes:
        url: Where it is.
        created_at: When it was begun, by the clock of the machine that made it.
        encoding: ``"sst"`` or ``"jsonl"``.
        column_family: Where its keys come from.
        db_id: RocksDB's identity of the database; empty if it had none.
        start: First key that could be in it; None: from the beginning.
        stop: First key behind it; None: to the end.
        entries: Number of keys.
        total_bytes: Size of its files; of a dry run, of its keys and values.
        files: Its files, in the order of their keys; none of a dry run.
    """

    url: str
    created_at: datetime
    encoding: str
    column_family: str
    db_id: str
    start: bytes | None
    stop: bytes | None
    entries: int
    total_bytes: int
    files: tuple[ExportedFile, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export` did.

    Attributes:
        info: The export.
        seconds: Duration.
    """

    info: ExportInfo
    seconds: float


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What `import_` did.

    Attributes:
        info: The export that was imported.
        target: The database's directory.
        column_family: Where the keys are now.
        seconds: Duration.
    """

    info: ExportInfo
    target: str
    column_family: str
    seconds: float
