"""Backups of RocksDB databases in S3; the format is in docs/format.md."""

from kumo_crt.backup._prune_report import PruneReport
from kumo_crt.backup._repository import Repository
from kumo_crt.backup._results import (
    DoctorReport,
    DrillReport,
    Finding,
    Problem,
    Repaired,
    RepairReport,
    RestoreReport,
    Snapshot,
    SnapshotFile,
    SnapshotHealth,
    ThawReport,
    VerifyReport,
)

__all__ = [
    "DoctorReport",
    "DrillReport",
    "Finding",
    "Problem",
    "PruneReport",
    "RepairReport",
    "Repaired",
    "Repository",
    "RestoreReport",
    "Snapshot",
    "SnapshotFile",
    "SnapshotHealth",
    "ThawReport",
    "VerifyReport",
]
