"""Puts a bundle together again: from files of databases, and parts of it that are good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kumo_crt import _core
from kumo_crt._engine import Task
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._packing._packing import MAX_BUNDLE_SIZE
from kumo_crt.backup._repair._sources import Sources
from kumo_crt.backup._store._fetch import DamagedError, get_object_task
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import KumoError
from kumo_crt.s3._get import GetOptions

# Bytes that decide over a CRC32C.
_FILLER = 4


def rebuild_task(
    store: Store, wanted: DataObject, sources: Sources
) -> Task[tuple[bytearray, Path | None] | None]:
    """The content of an object, and a file that was taken for it; None if that cannot be had.

    Every file in it that a snapshot names is what the manifests say, and so is the whole object's
    CRC32C.
    """
    if wanted.size > 2 * MAX_BUNDLE_SIZE:
        return None
    content = bytearray(wanted.size)
    taken: Path | None = None
    for file in wanted.files:
        start = file.offset or 0
        stop = start + file.stored_size
        source = sources.find(file)
        if source is not None:
            part: bytes | bytearray | memoryview | None = source.read_bytes()
            if part is not None and store.key is not None:
                part = _sealing.seal_memory(store.key, part)[0]
            taken = taken or source
        else:
            part = yield from _stored_part(store, wanted, start, stop)
        if part is None or len(part) != stop - start or _core.crc32c(part) != file.stored_crc32c:
            return None
        content[start:stop] = part
    gaps = list(_gaps(wanted))
    for start, stop in gaps:
        part = yield from _stored_part(store, wanted, start, stop)
        if part is not None:
            content[start:stop] = part
    if _core.crc32c(content) != wanted.stored.crc32c:
        # What nobody names may be anything, as long as the whole is what the manifests say.
        room = next((stop for start, stop in gaps if stop - start >= _FILLER), None)
        if room is None:
            return None
        content[room - _FILLER : room] = _filler(content, room, wanted.stored.crc32c)
    return content, taken


def _gaps(wanted: DataObject) -> Iterator[tuple[int, int]]:
    """Where an object holds nothing that a snapshot names."""
    end = 0
    for file in wanted.files:
        start = file.offset or 0
        if start > end:
            yield end, start
        end = max(end, start + file.stored_size)
    if end < wanted.size:
        yield end, wanted.size


def _stored_part(
    store: Store, wanted: DataObject, start: int, stop: int
) -> Task[memoryview | None]:
    """What the object has there, good or not; None if it cannot be read."""
    part = memoryview(bytearray(stop - start))
    options = GetOptions(range=(start, stop), expected_size=stop - start)
    try:
        yield from get_object_task(store, wanted.stored, part, options)
    except (DamagedError, KumoError):
        return None
    return part


def _filler(content: bytearray, room: int, crc: int) -> bytes:
    """Four bytes that, before ``room``, give a content a CRC32C.

    A CRC is linear: which bits of it each bit changes is found out, and the equations are solved.
    """
    view = memoryview(content)
    head, tail = _core.crc32c(view[: room - _FILLER]), _core.crc32c(view[room:])
    length = len(content) - room

    def with_filler(value: int) -> int:
        filler = _core.crc32c(value.to_bytes(_FILLER, "little"))
        return _core.crc32c_combine(_core.crc32c_combine(head, filler, _FILLER), tail, length)

    base = with_filler(0)
    wanted = crc ^ base
    # Rows by their highest bit: what changes, and by which bits of the filler.
    rows: dict[int, tuple[int, int]] = {}
    for bit in range(8 * _FILLER):
        change, by = with_filler(1 << bit) ^ base, 1 << bit
        while change and (top := change.bit_length()) in rows:
            change, by = change ^ rows[top][0], by ^ rows[top][1]
        rows[change.bit_length()] = change, by
    value = 0
    while wanted:
        change, by = rows[wanted.bit_length()]
        wanted, value = wanted ^ change, value ^ by
    return value.to_bytes(_FILLER, "little")
