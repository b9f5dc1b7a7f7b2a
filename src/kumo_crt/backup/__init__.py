"""Backups of RocksDB databases in S3; the format is in docs/format.md."""

from kumo_crt.backup._repository import Repository
from kumo_crt.backup._results import (
    Problem,
    RestoreReport,
    Snapshot,
    SnapshotFile,
    ThawReport,
    VerifyReport,
)

__all__ = [
    "Problem",
    "Repository",
    "RestoreReport",
    "Snapshot",
    "SnapshotFile",
    "ThawReport",
    "VerifyReport",
]
