"""What is measured, of whom, and what kumo_crt is to reach."""

from __future__ import annotations

from dataclasses import dataclass, field

KUMO = "kumo_crt"
OBJECT_CLIENTS = (
    KUMO,
    "awscrt",
    "boto3",
    "boto3-crt",
    "obstore",
    "obstore-unsigned",
    "pyarrow",
    "minio",
    "s3torchconnector",
    "s5cmd",
    "rclone",
)
CRC_CLIENTS = (KUMO, "awscrt", "crc32c", "google-crc32c", "anycrc", "fastcrc")
IMPORT_CLIENTS = (KUMO, "awscrt", "boto3", "obstore", "pyarrow", "minio", "s3torchconnector")
# Clients that are names of lower-bound loops.
BOUND = "bound:"


@dataclass(frozen=True)
class Metric:
    """A figure of a measurement."""

    title: str
    higher_is_better: bool = False
    digits: int = 2


METRICS = {
    "cpu_seconds": Metric("CPU s"),
    "wall_seconds": Metric("wall s"),
    "peak_rss_growth_mib": Metric("peak RSS + MiB", digits=0),
    "requests_per_second": Metric("requests/s", higher_is_better=True, digits=0),
    "p50_us": Metric("p50 µs", digits=0),
    "gib_per_second": Metric("GiB/s", higher_is_better=True, digits=1),
    "nanoseconds": Metric("ns", digits=0),
    "milliseconds": Metric("ms", digits=1),
}


@dataclass(frozen=True)
class Target:
    """A demand: kumo_crt's metric, divided by another's or as it is, is on this side of a limit.

    Attributes:
        level: ``must`` or ``aim``.
        limit: Largest value, or smallest where higher is better.
        against: A client, a bound, or ``fastest`` of the others; empty for the figure itself.
        metric: The figure, where it is not the case's own.
    """

    level: str
    limit: float
    against: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Case:
    """One row of the table of targets.

    Attributes:
        action: What the worker does; see `suite.actions`.
        checksum: Whether kumo_crt sends and checks a checksum.
    """

    name: str
    title: str
    action: str
    metric: str
    clients: tuple[str, ...]
    bounds: tuple[str, ...] = ()
    tls: bool = False
    checksum: bool = True
    targets: tuple[Target, ...] = field(default=())

    @property
    def per_gib(self) -> bool:
        """Whether times are stated for one GiB."""
        return self.metric == "cpu_seconds"


def _bound(name: str) -> str:
    return BOUND + name


_SCRIPTED = tuple(c for c in OBJECT_CLIENTS if c not in ("s5cmd", "rclone"))
_SMALL = tuple(c for c in _SCRIPTED if c != "boto3-crt")
_FASTEST = (Target("must", 1.0, "fastest"), Target("aim", 1.3, "fastest"))

CASES = (
    Case(
        "upload-file",
        "Upload a file of {size}",
        "upload_file",
        "cpu_seconds",
        OBJECT_CLIENTS,
        bounds=("upload-file", "upload-file-crc"),
        targets=(
            Target("must", 0.55, "awscrt"),
            Target("must", 1.6, _bound("upload-file-crc")),
            Target("must", 100, metric="peak_rss_growth_mib"),
            Target("aim", 1.25, _bound("upload-file-crc")),
        ),
    ),
    Case(
        "upload-files",
        "Upload 64 files, {size} together",
        "upload_files",
        "cpu_seconds",
        OBJECT_CLIENTS,
        targets=(
            Target("must", 0.55, "awscrt"),
            Target("must", 0.65, "obstore"),
            Target("aim", 0.6, "obstore-unsigned"),
        ),
    ),
    Case(
        "upload-memory",
        "Upload {size} from memory",
        "upload_memory",
        "cpu_seconds",
        _SCRIPTED,
        bounds=("upload-memory", "upload-memory-crc"),
        targets=(
            Target("must", 0.40, "awscrt"),
            Target("must", 1.2, _bound("upload-memory-crc")),
            Target("must", 64, metric="peak_rss_growth_mib"),
            Target("aim", 1.05, _bound("upload-memory-crc")),
        ),
    ),
    Case(
        "upload-memory-unchecked",
        "Upload {size} from memory, no checksum",
        "upload_memory",
        "cpu_seconds",
        (KUMO, "obstore-unsigned"),
        bounds=("upload-memory",),
        checksum=False,
        targets=(Target("aim", 1.0, "obstore-unsigned"),),
    ),
    Case(
        "upload-file-tls",
        "Upload a file of {size} over TLS",
        "upload_file",
        "cpu_seconds",
        OBJECT_CLIENTS,
        tls=True,
        targets=(
            Target("must", 0.55, "awscrt"),
            Target("must", 1.3, "obstore-unsigned"),
            Target("aim", 0.75, "obstore-unsigned"),
        ),
    ),
    Case(
        "upload-memory-tls",
        "Upload {size} from memory over TLS",
        "upload_memory",
        "cpu_seconds",
        _SCRIPTED,
        tls=True,
        targets=(
            Target("must", 0.55, "awscrt"),
            Target("must", 1.3, "obstore-unsigned"),
            Target("aim", 1.0, "obstore-unsigned"),
        ),
    ),
    Case(
        "download-file",
        "Download {size} to a file, validated where the client can",
        "download_file",
        "cpu_seconds",
        OBJECT_CLIENTS,
        bounds=("download-file", "download-file-crc"),
        targets=(
            Target("must", 0.60, "awscrt"),
            Target("must", 0.8, "obstore"),
            Target("aim", 1.2, _bound("download-file")),
        ),
    ),
    Case(
        "download-memory",
        "Download {size} into the caller's memory",
        "download_memory",
        "cpu_seconds",
        _SCRIPTED,
        bounds=("download-discard", "download-memory-crc"),
        targets=(
            Target("must", 0.5, "awscrt"),
            Target("aim", 1.3, _bound("download-discard")),
        ),
    ),
    *(
        Case(
            f"small-async-{operation}",
            f"{operation.upper()} objects of 4 KiB, 32 in flight",
            f"small_async_{operation}",
            "requests_per_second",
            _SMALL,
            targets=(
                Target("must", 3, "awscrt"),
                Target("must", 3, "boto3"),
                Target("must", 1, "obstore"),
                Target("aim", 2, "obstore"),
            ),
        )
        for operation in ("put", "get")
    ),
    *(
        Case(
            f"small-sync-{operation}",
            f"{operation.upper()} objects of 4 KiB, one after the other",
            f"small_sync_{operation}",
            "p50_us",
            _SMALL,
            bounds=(f"small-{operation}",),
            targets=(Target("must", 1, "awscrt"), Target("aim", 1, "obstore")),
        )
        for operation in ("put", "get")
    ),
    Case(
        "crc32c-large",
        "CRC32C of {size}, from memory that is in no cache",
        "crc_large",
        "gib_per_second",
        CRC_CLIENTS,
        targets=_FASTEST,
    ),
    Case(
        "crc32c-small",
        "CRC32C of 1 KiB, in the cache",
        "crc_small",
        "nanoseconds",
        CRC_CLIENTS,
        targets=(Target("must", 1.0, "fastest"), Target("aim", 1 / 1.3, "fastest")),
    ),
    Case(
        "import",
        "Import the module",
        "import_time",
        "milliseconds",
        IMPORT_CLIENTS,
        targets=(Target("must", 60), Target("aim", 30)),
    ),
)
