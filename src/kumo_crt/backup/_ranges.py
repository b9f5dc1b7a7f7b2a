"""Reads files that share a data object with others: neighbours with one request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Reserve, Task
from kumo_crt.backup import _sealing
from kumo_crt.backup._fetch import READINGS, DamagedError, get_object_task
from kumo_crt.backup._objects import DataObject
from kumo_crt.backup._results import SnapshotFile, StoredObject
from kumo_crt.backup._store import Store
from kumo_crt.s3._get import GetOptions

# Bytes that are read with one request, into memory.
RUN = 8 << 20
# Bytes that nobody wants are read too, if that saves a request.
_GAP = 128 << 10
_PIECES_AT_ONCE = 4


class PartsDamagedError(DamagedError):
    """An object is damaged, and it is known where.

    Attributes:
        files: Those that are; none, if it is damaged where no file is that was looked for.
    """

    def __init__(self, message: str, files: tuple[SnapshotFile, ...]) -> None:
        super().__init__("checksum", message)
        self.files = files


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours in an object.

    Attributes:
        stored: The object.
        start: Where to read from.
        stop: Up to where.
        files: What is there; files may have the same place.
    """

    stored: StoredObject
    start: int
    stop: int
    files: tuple[SnapshotFile, ...] = field(repr=False)


def runs_of(files: Iterable[SnapshotFile]) -> Iterator[Run]:
    """Puts neighbours together; a file that is larger than a run comes alone."""
    ordered = sorted(files, key=lambda file: (file.key or "", file.offset or 0))
    run: list[SnapshotFile] = []
    start = stop = 0
    for file in ordered:
        begin = file.offset or 0
        end = begin + file.stored_size
        if run and (
            file.stored != run[0].stored or begin > stop + _GAP or max(end, stop) - start > RUN
        ):
            yield Run(run[0].stored, start, stop, tuple(run))
            run = []
        if not run:
            start, stop = begin, begin
        run.append(file)
        stop = max(stop, end)
    if run:
        yield Run(run[0].stored, start, stop, tuple(run))


def read_run_task(
    store: Store,
    run: Run,
    take: Callable[[SnapshotFile, memoryview], None],
    meter: Meter | None,
) -> Task[None]:
    """Reads a run; each file is handed over once its CRC32C has been compared, opened if sealed.

    Raises:
        DamagedError: The object is not there, or has another size.
        PartsDamagedError: Files in it are not what the manifest says.
    """
    left: Sequence[SnapshotFile] = run.files
    size = run.stop - run.start
    options = GetOptions(range=(run.start, run.stop), expected_size=size)
    with (yield Reserve(size)):
        for _ in range(READINGS):
            content = memoryview(bytearray(size))
            if size:
                yield from get_object_task(store, run.stored, content, options)
            bad = []
            for file in left:
                start = (file.offset or 0) - run.start
                stored = content[start : start + file.stored_size]
                # Files that are alike have the same place: it must stay as it is for the next.
                part = opened(store, file, stored)
                if part is None:
                    bad.append(file)
                    continue
                take(file, part)
                if meter is not None:
                    meter.add(file.size)
            if not bad:
                return
            left = bad
    raise PartsDamagedError(
        f"{store.url(run.stored.key)}: the content of {len(left)} files in it is not what the "
        "manifest says. It was damaged in the store",
        tuple(left),
    )


def opened(store: Store, file: SnapshotFile, stored: memoryview) -> memoryview | None:
    """A file's content, from what is stored of it; None if that is not what the manifest says.

    What is sealed stays so if there is no key.
    """
    if _core.crc32c(stored) != file.stored_crc32c:
        return None
    if file.sealed is None or store.key is None:
        return stored
    try:
        plain = _sealing.open_memory(store.key, bytearray(stored), file.sealed.salt)
    except _core.SealError:
        return None
    return plain if _core.crc32c(plain) == file.crc32c else None


def check_object_task(store: Store, wanted: DataObject, meter: Meter | None) -> Task[None]:
    """Reads an object that holds several files, every byte.

    Raises:
        DamagedError: It is not there, or has another size.
        PartsDamagedError: Something in it is damaged.
    """
    for _ in range(READINGS):
        counted = Meter(None, 0, meter)
        crc, bad = yield from _read_all(store, wanted, counted)
        if crc == wanted.stored.crc32c and not bad:
            return
        counted.add(-counted.done)
    what = f"{len(bad)} of {len(wanted.files)} files in it that were looked at are damaged"
    raise PartsDamagedError(
        f"{store.url(wanted.key)}: the content has CRC32C {crc:08x}, the manifest says "
        f"{wanted.stored.crc32c:08x}. It was damaged in the store; {what}",
        tuple(bad),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of an object: its CRC32C, and those of what it has of each file.

    ``closed`` are files that the key does not open.
    """

    size: int
    crc32c: int
    parts: tuple[tuple[int, int, int], ...]  # index of the file, CRC32C, bytes
    closed: tuple[int, ...]


def _read_all(
    store: Store, wanted: DataObject, meter: Meter
) -> Task[tuple[int, list[SnapshotFile]]]:
    """CRC32C of the whole, and the files that have not theirs."""
    tasks = (
        _read_piece(store, wanted, start, stop, meter) for start, stop in _spans(store, wanted)
    )
    pieces: list[_Piece] = yield Gather(tasks, _PIECES_AT_ONCE)
    whole = 0
    crcs = [0] * len(wanted.files)
    closed: set[int] = set()
    for piece in pieces:
        whole = _core.crc32c_combine(whole, piece.crc32c, piece.size)
        for index, crc, size in piece.parts:
            crcs[index] = _core.crc32c_combine(crcs[index], crc, size)
        closed.update(piece.closed)
    return whole, [
        file
        for index, (file, crc) in enumerate(zip(wanted.files, crcs, strict=True))
        if file.stored_crc32c != crc or index in closed
    ]


def _spans(store: Store, wanted: DataObject) -> Iterator[tuple[int, int]]:
    """Where to cut an object: not within files that are to be opened."""
    start = 0
    if store.key is not None:
        for file in wanted.files:
            begin = file.offset or 0
            if begin > start and begin + file.stored_size - start > RUN:
                yield start, begin
                start = begin
        if start < wanted.size:
            yield start, wanted.size
        return
    for start in range(0, wanted.size, RUN):
        yield start, min(start + RUN, wanted.size)


def _read_piece(
    store: Store, wanted: DataObject, start: int, stop: int, meter: Meter
) -> Task[_Piece]:
    options = GetOptions(range=(start, stop), expected_size=stop - start)
    with (yield Reserve(stop - start)):
        content = memoryview(bytearray(stop - start))
        yield from get_object_task(store, wanted.stored, content, options)
        parts = []
        closed = []
        # Files are in order and do not overlap: those of one piece are neighbours.
        first = bisect_right(
            wanted.files, start, key=lambda file: (file.offset or 0) + file.stored_size
        )
        for index in range(first, len(wanted.files)):
            file = wanted.files[index]
            begin = file.offset or 0
            if begin >= stop:
                break
            part = content[max(begin - start, 0) : begin + file.stored_size - start]
            parts.append((index, _core.crc32c(part), len(part)))
            whole = file.sealed is not None and len(part) == file.sealed.size
            if whole and opened(store, file, part) is None:
                closed.append(index)
        meter.add(stop - start)
        return _Piece(stop - start, _core.crc32c(content), tuple(parts), tuple(closed))
