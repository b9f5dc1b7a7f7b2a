"""RocksDB data to AWS and back, safely and fast.

`S3Client` moves objects, `AsyncS3Client` does so for asyncio; `Repository` keeps backups of RocksDB
databases, and `export` moves their keys and values; `crc32`, `crc32c` and `crc64nvme` are the
checksums that S3 stores; `event_stream` is AWS's format for messages in a stream. What can go wrong
is in `kumo_crt.exceptions`.
"""

from __future__ import annotations

from kumo_crt import _core
from kumo_crt._core import (
    crc32,
    crc32_combine,
    crc32c,
    crc32c_combine,
    crc64nvme,
    crc64nvme_combine,
)

# `typing` has this name too, but takes longer to load than all that is loaded here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kumo_crt import backup as backup
    from kumo_crt import event_stream as event_stream
    from kumo_crt import exceptions as exceptions
    from kumo_crt import export as export
    from kumo_crt import s3 as s3
    from kumo_crt.backup import (
        DoctorReport,
        DrillReport,
        Finding,
        Key,
        Problem,
        PruneReport,
        Repaired,
        RepairReport,
        Repository,
        RestoreReport,
        Snapshot,
        SnapshotFile,
        SnapshotHealth,
        StoredObject,
        ThawReport,
        VerifyReport,
    )
    from kumo_crt.exceptions import (
        AccessDeniedError,
        ArchivedError,
        ChecksumMismatchError,
        CredentialsError,
        EncryptionKeyError,
        EnvironmentMismatchError,
        ExpiredCredentialsError,
        FormatError,
        IntegrityError,
        KumoError,
        LeaseExpiredError,
        NotFoundError,
        PreconditionFailedError,
        RepositoryError,
        RepositoryLockedError,
        S3Error,
        SnapshotNotFoundError,
        ThrottledError,
        TransportError,
    )
    from kumo_crt.s3 import (
        AsyncS3Client,
        DeleteResult,
        GetResult,
        HeadResult,
        ObjectInfo,
        PutResult,
        S3Client,
        UploadInfo,
        VersionInfo,
    )

# Where the other public names are. Loaded when one is asked for: a program that imports kumo_crt
# for a checksum, or only in case, does not pay for the S3 client.
_MODULES = ("exceptions", "s3", "backup", "event_stream", "export")

__version__: str = _core.build_info()["version"]


def build_info() -> dict[str, Any]:
    """What this build is made of.

    Returns:
        ``version``; ``libraries``: version of every native library linked; ``source``:
        ``"bundled"`` or ``"system"``, with ``origin`` naming it; ``features`` compiled in
        (``request_body``: aws-c-s3 offers it, though uploads are not copied without it either;
        ``tls_records``: s2n is linked statically, so that TLS sends several records in one write;
        ``event_stream_checks_lengths``); ``cpu_features`` that checksums use;
        ``warnings``: what is wrong with it.

    Warns:
        RuntimeWarning: aws-c-event-stream is older than 0.6.0, whose decoder can be made to write
            beyond its buffer (CVE-2026-5190). `event_stream.Decoder` cannot, as it checks lengths
            itself; other users of that library in the process are not protected.
    """
    import warnings

    info = _core.build_info()
    info["warnings"] = []
    if not info["features"]["event_stream_checks_lengths"]:
        message = (
            f"aws-c-event-stream {info['libraries']['aws-c-event-stream']} has a decoder overflow "
            "(CVE-2026-5190), mended in 0.6.0: build against a newer one. kumo_crt.event_stream "
            "checks every length before that decoder sees it, and refuses header names of more "
            "than 127 bytes"
        )
        info["warnings"].append(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return info


__all__ = [
    "AccessDeniedError",
    "ArchivedError",
    "AsyncS3Client",
    "ChecksumMismatchError",
    "CredentialsError",
    "DeleteResult",
    "DoctorReport",
    "DrillReport",
    "EncryptionKeyError",
    "EnvironmentMismatchError",
    "ExpiredCredentialsError",
    "Finding",
    "FormatError",
    "GetResult",
    "HeadResult",
    "IntegrityError",
    "Key",
    "KumoError",
    "LeaseExpiredError",
    "NotFoundError",
    "ObjectInfo",
    "PreconditionFailedError",
    "Problem",
    "PruneReport",
    "PutResult",
    "RepairReport",
    "Repaired",
    "Repository",
    "RepositoryError",
    "RepositoryLockedError",
    "RestoreReport",
    "S3Client",
    "S3Error",
    "Snapshot",
    "SnapshotFile",
    "SnapshotHealth",
    "SnapshotNotFoundError",
    "StoredObject",
    "ThawReport",
    "ThrottledError",
    "TransportError",
    "UploadInfo",
    "VerifyReport",
    "VersionInfo",
    "__version__",
    "build_info",
    "crc32",
    "crc32_combine",
    "crc32c",
    "crc32c_combine",
    "crc64nvme",
    "crc64nvme_combine",
    "event_stream",
    "export",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        for module in _MODULES if name in __all__ else ():
            loaded = import_module(f"{__name__}.{module}")
            if hasattr(loaded, name):
                globals()[name] = value = getattr(loaded, name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
