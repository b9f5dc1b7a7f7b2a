"""Takes hold of a consistent state of a database, as files that will not change."""

from kumo_crt.backup._capture._source import (
    capture,
    compact,
    directory_of,
    is_open_database,
)
from kumo_crt.backup._capture._state import EXTRA_CONFIG, identity_file, is_raw
from kumo_crt.backup._capture._types import Capture, CapturedFile

__all__ = [
    "EXTRA_CONFIG",
    "Capture",
    "CapturedFile",
    "capture",
    "compact",
    "directory_of",
    "identity_file",
    "is_open_database",
    "is_raw",
]
