"""What those tell that look after a repository: loaded with the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kumo_crt.backup._format._results import Snapshot


@dataclass(frozen=True, slots=True)
class ThawReport:
    """What is known of a snapshot's archived objects after copies were asked for.

    Attributes:
        snapshot: Id of the snapshot, or ``"all"``.
        ready: Everything can be read now.
        requested: Objects that a copy was asked for now.
        requested_bytes: Size of them.
        ongoing: Objects whose copy had been asked for before and is not there yet.
        thawed: Archived objects of which there is a copy.
        objects: Objects of the snapshot, or of all.
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
        snapshot: Id of the newest snapshot that it is in.
        path: File of the database; empty if the manifest itself is damaged.
        key: Key of the object.
        kind: ``missing``, ``size``, ``checksum``, ``unverifiable``, ``unreadable`` (the
            service itself fails at it), ``archived`` or ``manifest``;
            of a drill also ``restore``, ``open``, ``content``, ``rto`` or ``age``.
        message: What was found and what was expected.
        snapshots: Ids of all snapshots that it is in, oldest first.
        column_family: Column family of the file, where that is known.
        smallest_key: Smallest key in the file. Of a blob file, smallest of all tables that may
            refer to it.
        largest_key: Largest key in it.
    """

    snapshot: str
    path: str
    key: str
    kind: str
    message: str
    snapshots: tuple[str, ...] = ()
    column_family: str | None = None
    smallest_key: bytes | None = None
    largest_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `Repository.verify` looked at, and found.

    Attributes:
        ok: There are no problems.
        snapshot: Id of the snapshot, or ``"all"``.
        level: ``quick``, ``stored``, ``full`` or ``restore``.
        files: Number of files that were checked, each once, however many snapshots it is in. Very
            small ones are part of the manifest, and counted by level ``restore`` alone.
        bytes_read: Bytes that were read for it and found good.
        problems: What is wrong.
        seconds: Duration.
        total_files: Number of files that could have been checked.
        snapshots: Number of snapshots they are in.
        recorded: What was read has been written to the repository.
        warnings: What does no harm, and should be put right: spare manifests that are missing.
    """

    ok: bool
    snapshot: str
    level: str
    files: int
    bytes_read: int
    problems: tuple[Problem, ...]
    seconds: float
    total_files: int = 0
    snapshots: int = 1
    recorded: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DrillReport:
    """A snapshot that was restored to a scratch directory and read to its end.

    Attributes:
        ok: There are no problems.
        snapshot: Id of the snapshot.
        created_at: When it was taken, by the service's clock.
        age_seconds: How old it was: what would be lost if it were needed now (recovery point).
        recovery_seconds: From the first request to an open database (recovery time).
        restore_seconds: The part of it that was downloading.
        open_seconds: The part of it that RocksDB took to open it, write-ahead logs replayed.
        scan_seconds: Reading every entry afterwards.
        files: Number of files.
        total_bytes: Size of them.
        entries: Number of entries by column family.
        checksums: CRC32C of all entries by column family, see docs/format.md.
        sequence_number: RocksDB's last sequence number in it.
        compared: An earlier drill of the same snapshot was there to compare with.
        problems: What is wrong, or beyond a limit that was given.
        recorded: The drill, or the damage that it met, has been written to the repository. So
            is that it failed at what it found; then nothing counts as verified by it.
    """

    ok: bool
    snapshot: str
    created_at: datetime
    age_seconds: float
    recovery_seconds: float
    restore_seconds: float
    open_seconds: float
    scan_seconds: float
    files: int
    total_bytes: int
    entries: Mapping[str, int]
    checksums: Mapping[str, int]
    sequence_number: int
    compared: bool
    problems: tuple[Problem, ...]
    recorded: bool


@dataclass(frozen=True, slots=True)
class SnapshotHealth:
    """How fresh a snapshot is, and when it was last looked at.

    Attributes:
        snapshot: The snapshot.
        age_seconds: Its age by the service's clock.
        last_verified: Since when every object of it has been read in full; None if one never was.
        last_drill: When it was last restored for a drill, with success.
        damaged: Objects of it that were found damaged and not read since.
        drill_failed: When a drill failed, if none has succeeded since. Not at damaged objects
            alone: ``damaged`` tells them until they are repaired.
        drill_problem: Kind of the problem: ``restore``, ``open`` or ``content``.
    """

    snapshot: Snapshot
    age_seconds: float
    last_verified: datetime | None
    last_drill: datetime | None
    damaged: tuple[str, ...]
    drill_failed: datetime | None = None
    drill_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Repaired:
    """A data object that was brought back.

    Attributes:
        key: Its key.
        path: File of the database.
        kind: What had been wrong with it.
        size: Bytes.
        source: The file that it was sent from; of several one, and none if parts of the object
            itself were enough.
        quarantine: Key of the copy of what had been there; None if there was nothing, or nothing
            that could be read.
        files: Files in it that snapshots name.
    """

    key: str
    path: str
    kind: str
    size: int
    source: str
    quarantine: str | None = None
    files: int = 1


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What `Repository.repair` did.

    Attributes:
        ok: Nothing is damaged any more, as far as was looked (with ``dry_run``: would be).
        repaired: What was brought back, read again in full and found good.
        remaining: Damage that no source had a file for.
        sound: Objects that were reported as damaged and are not.
        uploaded_bytes: What was sent.
        dry_run: Nothing was done.
        seconds: Duration.
        manifests: Ids of snapshots whose manifests were lost or damaged, and put back.
        spares: Ids of snapshots whose spare manifests were lost or damaged, and written anew.
        warnings: What could not be done, and is no damage.
    """

    ok: bool
    repaired: tuple[Repaired, ...]
    remaining: tuple[Problem, ...]
    sound: int
    uploaded_bytes: int
    dry_run: bool
    seconds: float
    manifests: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `Repository.doctor` has looked at.

    Attributes:
        severity: ``ok``, ``info``, ``warning`` or ``error``.
        check: What was looked at.
        message: What was found.
        fix: What to do about it; empty if there is nothing to do.
    """

    severity: str
    check: str
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What `Repository.doctor` found.

    Attributes:
        ok: There is no finding of severity ``error``.
        findings: All of them, the worst first.
        seconds: Duration.
    """

    ok: bool
    findings: tuple[Finding, ...]
    seconds: float
