"""Reads data objects, and tells damage from bad luck on the way."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from kumo_crt._engine import Gather, Meter, Reserve, Task
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed, SnapshotFile, StoredObject
from kumo_crt.backup._store import _opening
from kumo_crt.backup._store._opening import Piece
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    ArchivedError,
    ChecksumMismatchError,
    EncryptionKeyError,
    NotFoundError,
    S3Error,
    TransportError,
)
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._results import GetResult

# A checksum that differs may have been damaged on the way: only a second reading tells.
READINGS = 2
_MAX_SPAN = 64 << 20
_SPAN_UNIT = 1 << 20
# Status of an answer to a range that begins behind the end.
_NO_SUCH_RANGE = 416


class DamagedError(Exception):
    """A data object is not what the manifest says.

    Attributes:
        kind: ``missing``, ``size``, ``checksum`` or ``archived``, as in `Problem`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def span_of(store: Store, size: int, total: int, at_once: int) -> int:
    """How many bytes of a file to ask for at once, where many files are read.

    Few requests cost the service less. But there have to be enough of them for all connections, and
    small ones for what is left at the end. And what fails is asked for again.

    Args:
        store: Where they are.
        size: Bytes of the file.
        total: Bytes of all files.
        at_once: Files that are read at once.
    """
    settings = store.context.settings
    connections = settings.max_connections
    wanted = min(total // (4 * connections), size * at_once // connections, _MAX_SPAN)
    return max(settings.part_size, -(-wanted // _SPAN_UNIT) * _SPAN_UNIT)


def fetch_task(
    store: Store,
    file: SnapshotFile,
    into: Path | Discard,
    meter: Meter | None,
    span: int | None = None,
) -> Task[None]:
    """Reads a file from its data object, and compares it with the manifest.

    ``span`` is how many bytes to ask for at once; None: the client's part size. A sealed file is
    opened if the key is at hand; without it, only what is stored can be compared.

    Raises:
        EncryptionKeyError: The content is wanted, and there is no key.
        DamagedError: It is not there, or something else.
        TransportError: It could not be read; that says nothing about it.
    """
    if file.sealed is not None and store.key is not None:
        yield from _open_task(store, file, file.sealed, store.key, into, meter)
        return
    if file.sealed is not None and isinstance(into, Path):
        raise EncryptionKeyError(f"{store.url(file.stored.key)}: needs the key to be read")
    if not file.size and isinstance(into, Path):
        into.write_bytes(b"")
    part = None if file.offset is None else (file.offset, file.offset + file.stored_size)
    if not file.stored_size and part is not None:
        return  # there is no such range
    for reading in range(1, READINGS + 1):
        counted = Meter(None, 0, meter)
        options = GetOptions(
            range=part,
            expected_size=file.stored_size,
            expected_crc32c=file.stored_crc32c,
            span=span,
            meter=counted,
        )
        try:
            yield from get_object_task(store, file.stored, into, options)
        except (ChecksumMismatchError, TransportError) as error:
            counted.add(-counted.done)
            if isinstance(error, TransportError):
                raise
            if reading == READINGS:
                raise DamagedError("checksum", str(error)) from error
        else:
            return


def _open_task(
    store: Store,
    file: SnapshotFile,
    sealed: Sealed,
    key: Key,
    into: Path | Discard,
    meter: Meter | None,
) -> Task[None]:
    """Reads and opens a sealed file piece by piece."""
    with contextlib.ExitStack() as stack:
        opened: io.FileIO | None = None
        if isinstance(into, Path):
            opened = stack.enter_context(open(into, "wb", buffering=0))
        problem: str | None = None
        for _ in range(READINGS):
            counted = Meter(None, 0, meter)
            tasks = (
                _open_piece_task(store, file, sealed, key, span, opened, counted)
                for span in _opening.spans(sealed.size)
            )
            pieces: list[Piece] = yield Gather(tasks, _opening.PIECES_AT_ONCE)
            problem = _opening.judge(file, key, pieces)
            if problem is None:
                return
            counted.add(-counted.done)
    raise DamagedError("checksum", f"{store.url(file.stored.key)}: {problem}")


def _open_piece_task(
    store: Store,
    file: SnapshotFile,
    sealed: Sealed,
    key: Key,
    span: tuple[int, int],
    into: io.FileIO | None,
    meter: Meter,
) -> Task[Piece]:
    start, stop = span
    base = file.offset or 0
    options = GetOptions(range=(base + start, base + stop), expected_size=stop - start)
    with (yield Reserve(stop - start)):
        content = memoryview(bytearray(stop - start))
        yield from get_object_task(store, file.stored, content, options)
        piece, plain = _opening.open_piece(key, sealed, content, start)
        if into is not None:
            _write(into, plain, _opening.plain_offset(start))
        meter.add(len(plain) if into is not None else stop - start)
        return piece


def _write(into: io.FileIO, content: memoryview, offset: int) -> None:
    try:
        while content:
            count = os.pwrite(into.fileno(), content, offset)
            content, offset = content[count:], offset + count
    except OSError as error:
        error.filename = str(into.name)
        raise


def get_object_task(
    store: Store, stored: StoredObject, into: object, options: GetOptions
) -> Task[GetResult]:
    """Reads a data object, or a part of it.

    Raises:
        DamagedError: It is not there, cannot be read, or has another size.
        ChecksumMismatchError: It is not what the options say.
    """
    where = store.location.key(stored.key)
    if options.range is not None:
        options = options._replace(object_size=stored.size)
    try:
        return (yield from get_task(store.context, store.bucket, where, into, options))
    except NotFoundError:
        raise missing(store, stored) from None
    except ArchivedError as error:
        raise DamagedError("archived", f"{store.url(stored.key)}: {error}") from error
    except (ChecksumMismatchError, TransportError, S3Error) as error:
        if isinstance(error, S3Error) and error.status != _NO_SUCH_RANGE:
            raise
        yield from _check_size(store, stored)
        raise


def _check_size(store: Store, stored: StoredObject) -> Task[None]:
    """Says so if the service itself knows another size."""
    from kumo_crt.s3._head import head_task  # rarely needed

    try:
        found = yield from head_task(store.context, store.bucket, store.location.key(stored.key))
    except NotFoundError:
        raise missing(store, stored) from None
    except TransportError:
        return  # then the first error is the one to tell
    if found.size != stored.size:
        raise wrong_size(store, stored, found.size)


def missing(store: Store, stored: StoredObject) -> DamagedError:
    """There is no such object."""
    return DamagedError("missing", f"{store.url(stored.key)}: the object is missing")


def wrong_size(store: Store, stored: StoredObject, found: int) -> DamagedError:
    """The object has another size."""
    return DamagedError(
        "size", f"{store.url(stored.key)}: {found} bytes, the manifest says {stored.size}"
    )
