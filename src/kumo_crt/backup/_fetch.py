"""Reads data objects, and tells damage from bad luck on the way."""

from __future__ import annotations

from pathlib import Path

from kumo_crt._engine import Meter, Task
from kumo_crt.backup._results import SnapshotFile
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ArchivedError,
    ChecksumMismatchError,
    NotFoundError,
    TransportError,
)
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._objects import head_task

# A checksum that differs may have been damaged on the way: only a second reading tells.
_READINGS = 2


class DamagedError(Exception):
    """A data object is not what the manifest says.

    Attributes:
        kind: ``missing``, ``size``, ``checksum`` or ``archived``, as in `Problem`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def fetch_task(
    store: Store, file: SnapshotFile, into: Path | Discard, meter: Meter | None
) -> Task[None]:
    """Reads a file's data object in full, and compares it with the manifest.

    Raises:
        DamagedError: It is not there, or something else.
        TransportError: It could not be read; that says nothing about it.
    """
    key = file.key or ""
    where = store.location.key(key)
    for reading in range(1, _READINGS + 1):
        counted = Meter(None, 0, meter)
        options = GetOptions(expected_size=file.size, expected_crc32c=file.crc32c, meter=counted)
        try:
            yield from get_task(store.context, store.bucket, where, into, options)
        except NotFoundError:
            raise missing(store, file) from None
        except ArchivedError as error:
            raise DamagedError("archived", f"{store.url(key)}: {error}") from error
        except (ChecksumMismatchError, TransportError) as error:
            counted.add(-counted.done)
            yield from _check_size(store, file)
            if isinstance(error, TransportError):
                raise
            if reading == _READINGS:
                raise DamagedError("checksum", str(error)) from error
        else:
            return


def _check_size(store: Store, file: SnapshotFile) -> Task[None]:
    """Says so if the service itself knows another size."""
    where = store.location.key(file.key or "")
    try:
        found = yield from head_task(store.context, store.bucket, where)
    except NotFoundError:
        raise missing(store, file) from None
    except TransportError:
        return  # then the first error is the one to tell
    if found.size != file.size:
        raise wrong_size(store, file, found.size)


def missing(store: Store, file: SnapshotFile) -> DamagedError:
    """There is no such object."""
    return DamagedError("missing", f"{store.url(file.key or '')}: the object is missing")


def wrong_size(store: Store, file: SnapshotFile, found: int) -> DamagedError:
    """The object has another size."""
    return DamagedError(
        "size", f"{store.url(file.key or '')}: {found} bytes, the manifest says {file.size}"
    )
