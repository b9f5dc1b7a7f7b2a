"""Names and keys of the repository format (docs/format.md)."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from kumo_crt import _core
from kumo_crt.exceptions import SnapshotNotFoundError

CONFIG_KEY = "kumo-repository.json"
DATA = "data/"
SNAPSHOTS = "snapshots/"
SPARES = "spares/"
MAX_FILE_SIZE = 48_800_000_000_000
INLINE_LIMIT = 4096

# Of the 1024 bytes of a key: what is left is for the names of objects.
_MAX_PREFIX = 512
_ID_TIME = "%Y%m%dT%H%M%SZ"
_SNAPSHOT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_SUFFIX = re.compile(r"\.[0-9a-f]{8}$")
_DATA_KEY = re.compile(r"data/([0-9a-f]{2})/([A-Za-z0-9._-]{1,400})")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,399}")
_FILE_NAMES = {
    "sst": re.compile(r"[0-9]{6,20}\.sst|[0-9]{6,20}\.ldb"),
    "blob": re.compile(r"[0-9]{6,20}\.blob"),
    "wal": re.compile(r"[0-9]{6,20}\.log"),
    "manifest": re.compile(r"MANIFEST-[0-9]{6,20}"),
    "options": re.compile(r"OPTIONS-[0-9]{6,20}"),
    "current": re.compile(r"CURRENT"),
    # What rocksdict keeps beside RocksDB's files: without it a database opens in another mode.
    "config": re.compile(r"rocksdict-config\.json"),
}
KINDS = tuple(_FILE_NAMES)


def no_snapshot(where: Location, snapshot_id: str) -> SnapshotNotFoundError:
    """The error for an id that names no snapshot."""
    return SnapshotNotFoundError(
        f"{where}: there is no snapshot {snapshot_id}: snapshots() and kumo-crt snapshots tell "
        "those that there are"
    )


def no_snapshot_yet(where: Location) -> SnapshotNotFoundError:
    """The error where there is no snapshot at all."""
    return SnapshotNotFoundError(f"{where}: there is no snapshot yet: make a backup first")


class Location(NamedTuple):
    """Where a repository is: bucket, and prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Location:
        """Reads ``s3://bucket/prefix``.

        Raises:
            TypeError: It is no text.
            ValueError: It is something else.
        """
        if not isinstance(url, str):
            raise TypeError(f"url: expected s3://bucket/prefix, not {type(url).__name__}")
        parts = urlsplit(url, allow_fragments=False)
        if "@" in parts.netloc:
            # What stands before it may be a password: it is not repeated.
            raise ValueError("repository URL with a user: expected s3://bucket/prefix")
        if "?" in url:
            raise ValueError(f"repository {url!r}: '?' is not possible in s3://bucket/prefix")
        try:
            url.encode()
        except UnicodeEncodeError:
            raise ValueError(f"repository {url!r}: is not UTF-8, as all keys are") from None
        if parts.scheme != "s3" or not parts.netloc:
            raise ValueError(f"repository {url!r}: expected s3://bucket/prefix")
        prefix = parts.path.strip("/")
        if any(segment in ("", ".", "..") for segment in prefix.split("/")) and prefix:
            raise ValueError(f"repository {url!r}: empty, '.' and '..' segments are not possible")
        if len(prefix.encode()) > _MAX_PREFIX:
            raise ValueError(
                f"repository {url!r}: {len(prefix.encode())} bytes behind the bucket, and "
                f"{_MAX_PREFIX} are possible: S3's keys have 1024 at most"
            )
        return cls(parts.netloc, prefix + "/" if prefix else "")

    def key(self, relative: str) -> str:
        """The full key of something in the repository."""
        return self.prefix + relative

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def data_key(name: str) -> str:
    """Key of a data object, below the repository's prefix."""
    import hashlib  # loads OpenSSL, which restores do not need

    return f"{DATA}{hashlib.sha256(name.encode()).hexdigest()[:2]}/{name}"


def is_data_key(key: str) -> bool:
    """Whether a key from a manifest is one that the format allows."""
    match = _DATA_KEY.fullmatch(key)
    return match is not None and not match[2].startswith(".")


def is_data_name(name: str) -> bool:
    """Whether a data object may be called so."""
    return _NAME.fullmatch(name) is not None


def is_archive(key: str) -> bool:
    """Whether a data object is called what archives are called."""
    return key.rpartition("/")[2].startswith("archive-")


def plain_name(key: str) -> str:
    """A data object's name, without the suffix that variants of it have."""
    return _SUFFIX.sub("", key.rpartition("/")[2])


def snapshot_key(snapshot_id: str) -> str:
    """Key of a manifest, below the repository's prefix."""
    return f"{SNAPSHOTS}{snapshot_id}.json"


def spare_key(snapshot_id: str) -> str:
    """Key of the spare of a manifest, below the repository's prefix."""
    return f"{SPARES}{snapshot_id}.json"


def new_snapshot_id(now: datetime, newest: str | None, db_id: str | None = None) -> str:
    """An id that sorts after the newest one, also within one second of the service's clock.

    Args:
        now: The service's time.
        newest: Id of the newest snapshot, if there is one.
        db_id: Of the database that it is of.
    """
    time = f"{now.astimezone(UTC):{_ID_TIME}}"
    count = 0
    if newest is not None and newest[:16] >= time:
        time = newest[:16]
        count = int(newest[17:20], 16) + 1
        if count > 0xFFF:
            # Made while the service's clock was ahead, which it may have been by years.
            with contextlib.suppress(ValueError, OverflowError):
                following = datetime.strptime(time, _ID_TIME) + timedelta(seconds=1)
                time, count = f"{following:{_ID_TIME}}", 0
            count = min(count, 0xFFF)
    mark = "" if db_id is None else _mark(db_id)
    return f"{time}-{count:03x}{mark}{os.urandom(3).hex()[len(mark) : 5]}"


def _mark(db_id: str) -> str:
    return f"{_core.crc32c(db_id.encode()) & 0xFF:02x}"


def may_be_of(snapshot_id: str, db_id: str) -> bool:
    """Whether a snapshot is likely to be of a database, by its id."""
    return snapshot_id[20:22] == _mark(db_id)


def is_snapshot_id(text: str) -> bool:
    """Whether this has the form of a snapshot's id."""
    return _SNAPSHOT_ID.fullmatch(text) is not None


def is_file_name(kind: str, path: str) -> bool:
    """Whether RocksDB gives such a name to a file of this kind."""
    return _FILE_NAMES[kind].fullmatch(path) is not None
