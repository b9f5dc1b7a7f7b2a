"""Backups of RocksDB databases in S3; the format is in docs/format.md."""

from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import RestoreReport, Snapshot, SnapshotFile, StoredObject
from kumo_crt.backup._repository import Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kumo_crt.backup._prune_report import PruneReport
    from kumo_crt.backup._reports import (
        DoctorReport,
        DrillReport,
        Finding,
        Problem,
        Repaired,
        RepairReport,
        SnapshotHealth,
        ThawReport,
        VerifyReport,
    )

__all__ = [
    "DoctorReport",
    "DrillReport",
    "Finding",
    "Key",
    "Problem",
    "PruneReport",
    "RepairReport",
    "Repaired",
    "Repository",
    "RestoreReport",
    "Snapshot",
    "SnapshotFile",
    "SnapshotHealth",
    "StoredObject",
    "ThawReport",
    "VerifyReport",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # What a backup does not need is loaded when somebody asks for it.
        if name in __all__:
            from importlib import import_module

            module = "_prune_report" if name == "PruneReport" else "_reports"
            globals()[name] = value = getattr(import_module(f"{__name__}.{module}"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
