"""What a doctor says."""

from __future__ import annotations

from typing import Any

import kumo_crt

# Permissions that are tried, but for that to delete.
PROBES = (
    *("put", "conditional put", "head", "get", "list", "copy"),
    *("multipart", "list uploads", "abort uploads"),
)


def findings_of(report: kumo_crt.DoctorReport, check: str) -> list[tuple[str, str]]:
    """Severities and messages of a check's findings."""
    return [(item.severity, item.message) for item in report.findings if item.check == check]


def severity_of(report: kumo_crt.DoctorReport, check: str) -> str:
    """How bad the only finding of a check is."""
    ((severity, _),) = findings_of(report, check)
    return severity


def doctor_of(repository: kumo_crt.Repository, **options: Any) -> kumo_crt.DoctorReport:
    """Runs a doctor that does not measure."""
    return repository.doctor(**{"throughput_bytes": 0, **options})
