"""What data objects are called: by identity where RocksDB gives one, else by content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kumo_crt import _core
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import SnapshotFile

if TYPE_CHECKING:
    from kumo_crt.backup._capture import CapturedFile

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SESSION = re.compile(r"[A-Z0-9]{20}")
_VARIANT = re.compile(r"\.[0-9a-f]{8}")
_BY_CONTENT = re.compile(r"sst-[0-9a-f]{64}-")
# What RocksDB gives as the database of files that an SstFileWriter made, to be ingested.
_WRITER = "SST Writer"
_HEAD = 4096
_TAIL = 65536
_BLOCK = 1 << 20


def object_name(file: CapturedFile, db_id: str, key: Key | None = None) -> str:
    """The name of a file's data object, see docs/format.md; reads at most the ends of data files.

    Args:
        file: The file.
        db_id: RocksDB's id of the database.
        key: The repository's, if it is encrypted.

    Raises:
        OSError: The file cannot be read.
    """
    return examine(file, db_id, key)[0]


def examine(file: CapturedFile, db_id: str, key: Key | None = None) -> tuple[str, int | None]:
    """The name of a file's data object, and the number of entries of a table, if it says so.

    Raises:
        OSError: The file cannot be read.
    """
    if file.kind == "sst":
        try:
            found = _core.sst_properties(file.source)
        except _core.RocksDBFormatError:
            # Its content decides then; RocksDB is the judge of whether it is damaged.
            return f"sst-{_content_name(file, key)}-{file.size}.sst", None
        identity = _sst_identity(file, found) or _content_name(file, key)
        return f"sst-{identity}-{file.size}.sst", found.num_entries
    return _other_name(file, db_id, key), None


def _content_name(file: CapturedFile, key: Key | None) -> str:
    return _sealing.name_of(key, sha256_of(file.source))


def _other_name(file: CapturedFile, db_id: str, key: Key | None) -> str:
    if file.kind == "blob" and db_id:
        ends = _sealing.name_of(key, _ends(file))
        return f"blob-{db_id}-{file.number}-{ends}-{file.size}.blob"
    suffix = ".blob" if file.kind == "blob" else ""
    return f"{file.kind}-{_content_name(file, key)}-{file.size}{suffix}"


def is_name_of(wanted: SnapshotFile, file: CapturedFile, key: Key | None) -> bool:
    """Whether a file of a snapshot has a name that this file's identity or content may give.

    Of blob files that cannot be told: their names hold the moment they were written.
    """
    if file.kind == "blob":
        return True
    expected = wanted.name or (wanted.key or "").rpartition("/")[2]
    name = object_name(file, "", key)
    if _BY_CONTENT.match(expected):
        # So it may be called by an earlier version of this module, which knew fewer identities.
        name = f"sst-{_content_name(file, key)}-{file.size}.sst"
    # A name that was taken has something behind it.
    return expected == name or (
        expected.startswith(name) and _VARIANT.fullmatch(expected[len(name) :]) is not None
    )


def _sst_identity(file: CapturedFile, found: _core.SstProperties) -> str | None:
    # Not complete: a file that ingestion has written its sequence number into, too.
    if not (found.identity_complete and _SESSION.fullmatch(found.db_session_id)):
        return None
    number = found.original_file_number
    if found.db_id == _WRITER:
        # Each writer is a session of its own; the file's number in the database is another.
        return f"external-{found.db_session_id}-{number}"
    if number != file.number or not _ID.fullmatch(found.db_id):
        return None
    return f"{found.db_id}-{found.db_session_id}-{number}"


def _ends(file: CapturedFile) -> str:
    import hashlib  # loads OpenSSL, which little else needs

    digest = hashlib.sha256()
    with open(file.source, "rb", buffering=0) as opened:
        digest.update(os.pread(opened.fileno(), _HEAD, 0))
        digest.update(os.pread(opened.fileno(), _TAIL, max(0, file.size - _TAIL)))
        # Two databases restored from one snapshot go on with the same id and the same numbers:
        # their blob files may differ in the middle alone. Hard links share the time.
        digest.update(b"%d" % os.fstat(opened.fileno()).st_mtime_ns)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    import hashlib

    with open(path, "rb", buffering=0) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def crc32c_of(path: Path) -> int:
    """CRC32C of a file's content."""
    value = 0
    block = bytearray(_BLOCK)
    view = memoryview(block)
    with open(path, "rb", buffering=0) as opened:
        while count := opened.readinto(block):
            value = _core.crc32c(view[:count], value)
    return value
