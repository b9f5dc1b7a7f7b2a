"""Reads files that share a data object with others: neighbours with one request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Reserve, Task
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._results import SnapshotFile, StoredObject
from kumo_crt.backup._store import _opening
from kumo_crt.backup._store._fetch import READINGS, DamagedError, get_object_task
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._opening import Piece
from kumo_crt.backup._store._store import Store
from kumo_crt.s3._get import GetOptions

# Bytes that are read with one request, into memory.
RUN = 8 << 20
# Bytes that nobody wants are read too, if that saves a request.
_GAP = 128 << 10


class PartsDamagedError(DamagedError):
    """An object is damaged, and it is known where.

    Attributes:
        files: Those that are; none, if it is damaged where no file is that was looked for.
    """

    def __init__(self, message: str, files: tuple[SnapshotFile, ...]) -> None:
        super().__init__("checksum", message)
        self.files = files


class Run(NamedTuple):
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
    files: tuple[SnapshotFile, ...]


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
    if crc == wanted.stored.crc32c:
        path, problem = next((file.path, problem) for file, problem in bad.items())
        message = f"{what}, {path} the first of them: {problem}"
    else:
        message = (
            f"the content has CRC32C {crc:08x}, the manifest says {wanted.stored.crc32c:08x}. It "
            f"was damaged in the store; {what}"
        )
    raise PartsDamagedError(f"{store.url(wanted.key)}: {message}", tuple(bad))


class _Portion(NamedTuple):
    """A portion of an object: its CRC32C, and what it has of each file, by the file's number."""

    size: int
    crc32c: int
    pieces: tuple[tuple[int, Piece], ...]


def _read_all(
    store: Store, wanted: DataObject, meter: Meter
) -> Task[tuple[int, dict[SnapshotFile, str]]]:
    """CRC32C of the whole, and what is wrong with files."""
    tasks = (
        _read_portion(store, wanted, start, stop, meter) for start, stop in _spans(store, wanted)
    )
    portions: list[_Portion] = yield Gather(tasks, _opening.PIECES_AT_ONCE)
    whole = 0
    pieces: list[list[Piece]] = [[] for _ in wanted.files]
    for portion in portions:
        whole = _core.crc32c_combine(whole, portion.crc32c, portion.size)
        for index, piece in portion.pieces:
            pieces[index].append(piece)
    problems = (
        (file, _opening.judge(file, store.key, found))
        for file, found in zip(wanted.files, pieces, strict=True)
    )
    return whole, {file: problem for file, problem in problems if problem is not None}


def _spans(store: Store, wanted: DataObject) -> Iterator[tuple[int, int]]:
    """Where to cut an object: files that are to be opened only between their chunks."""
    start = 0
    for file in wanted.files if store.key is not None else ():
        begin = file.offset or 0
        stop = begin + file.stored_size
        large = file.stored_size > RUN
        if begin > start and (begin if large else stop) - start > (_GAP if large else RUN):
            yield start, begin
            start = begin
        if large:
            for _, last in _opening.spans(file.stored_size):
                yield start, begin + last
                start = begin + last
    while start < wanted.size:
        yield start, min(start + RUN, wanted.size)
        start += RUN


def _read_portion(
    store: Store, wanted: DataObject, start: int, stop: int, meter: Meter
) -> Task[_Portion]:
    options = GetOptions(range=(start, stop), expected_size=stop - start)
    with (yield Reserve(stop - start)):
        content = memoryview(bytearray(stop - start))
        yield from get_object_task(store, wanted.stored, content, options)
        pieces = []
        # Files are in order and do not overlap: those of one portion are neighbours.
        first = bisect_right(
            wanted.files, start, key=lambda file: (file.offset or 0) + file.stored_size
        )
        for index in range(first, len(wanted.files)):
            file = wanted.files[index]
            begin = file.offset or 0
            if begin >= stop:
                break
            part = content[max(begin - start, 0) : begin + file.stored_size - start]
            if file.sealed is None or store.key is None:
                piece = Piece(len(part), _core.crc32c(part))
            else:
                # A copy: what other snapshots say of this place may be something else.
                part = memoryview(bytearray(part))
                piece, _ = _opening.open_piece(store.key, file.sealed, part, max(start - begin, 0))
            pieces.append((index, piece))
        meter.add(stop - start)
        return _Portion(stop - start, _core.crc32c(content), tuple(pieces))
