"""Looks for damage, as thoroughly as asked."""

from __future__ import annotations

import time
from collections.abc import Callable

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup import _layout
from kumo_crt.backup._results import Problem, Snapshot, SnapshotFile, VerifyReport
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    FormatError,
    NotFoundError,
    SnapshotNotFoundError,
    TransportError,
)
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._objects import head_task

LEVELS = ("quick", "stored", "full")


def verify_task(
    store: Store,
    snapshot_id: str,
    level: str,
    concurrency: int,
    progress: Callable[[int, int], object] | None,
) -> Task[VerifyReport]:
    """Checks one snapshot; damage is reported, not raised."""
    started = time.monotonic()
    bytes_read = 0
    problems: list[Problem] = []
    files: list[SnapshotFile] = []
    try:
        snapshot: Snapshot = yield from store.snapshot(snapshot_id)
    except NotFoundError:
        raise SnapshotNotFoundError(
            f"{store.location}: there is no snapshot {snapshot_id}"
        ) from None
    except FormatError as error:
        key = _layout.snapshot_key(snapshot_id)
        problems.append(Problem(snapshot_id, "", key, "manifest", str(error)))
    else:
        files = [file for file in snapshot.files if file.key is not None]
        meter = Meter(progress, sum(file.size for file in files))
        if level == "quick":
            problems = yield from _quick(store, snapshot_id, files, meter)
        else:
            check = _stored if level == "stored" else _full
            found = yield Gather(
                (check(store, snapshot_id, file, meter) for file in files), concurrency
            )
            problems = [problem for problem in found if problem is not None]
            bytes_read = sum(file.size for file in files) if level == "full" else 0
        meter.flush()
    return VerifyReport(
        ok=not problems,
        snapshot=snapshot_id,
        level=level,
        files=len(files),
        bytes_read=bytes_read,
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )


def _quick(
    store: Store, snapshot_id: str, files: list[SnapshotFile], meter: Meter
) -> Task[list[Problem]]:
    """One listing for all: a thousand objects a request."""
    listed = yield from store.list_all(_layout.DATA)
    sizes = {item.key: item.size for item in listed}
    problems = []
    for file in files:
        size = sizes.get(store.location.key(file.key or ""))
        if size is None:
            problems.append(_missing(store, snapshot_id, file))
        elif size != file.size:
            problems.append(_wrong_size(store, snapshot_id, file, size))
        meter.add(file.size)
    return problems


def _problem(
    store: Store, snapshot_id: str, file: SnapshotFile, kind: str, message: str
) -> Problem:
    key = file.key or ""
    return Problem(snapshot_id, file.path, key, kind, f"{store.url(key)}: {message}")


def _missing(store: Store, snapshot_id: str, file: SnapshotFile) -> Problem:
    return _problem(store, snapshot_id, file, "missing", "there is no such object")


def _wrong_size(store: Store, snapshot_id: str, file: SnapshotFile, size: int) -> Problem:
    message = f"{size} bytes, the manifest says {file.size}"
    return _problem(store, snapshot_id, file, "size", message)


def _stored(
    store: Store, snapshot_id: str, file: SnapshotFile, meter: Meter
) -> Task[Problem | None]:
    try:
        found = yield from head_task(
            store.context, store.bucket, store.location.key(file.key or "")
        )
    except NotFoundError:
        return _missing(store, snapshot_id, file)
    meter.add(file.size)
    if found.size != file.size:
        return _wrong_size(store, snapshot_id, file, found.size)
    if found.checksum_crc32c is None:
        message = "the service tells no CRC32C of it: verify with level 'full'"
        return _problem(store, snapshot_id, file, "unverifiable", message)
    if found.checksum_crc32c != file.crc32c:
        message = f"CRC32C {found.checksum_crc32c:08x}, the manifest says {file.crc32c:08x}"
        return _problem(store, snapshot_id, file, "checksum", message)
    return None


def _full(store: Store, snapshot_id: str, file: SnapshotFile, meter: Meter) -> Task[Problem | None]:
    options = GetOptions(expected_crc32c=file.crc32c, meter=meter)
    key = store.location.key(file.key or "")
    try:
        found = yield from get_task(store.context, store.bucket, key, Discard(), options)
    except NotFoundError:
        return _missing(store, snapshot_id, file)
    except ChecksumMismatchError as error:
        return Problem(snapshot_id, file.path, file.key or "", "checksum", str(error))
    except TransportError as error:
        if "announced" not in str(error):
            raise
        return Problem(snapshot_id, file.path, file.key or "", "size", str(error))
    if found.size != file.size:
        return _wrong_size(store, snapshot_id, file, found.size)
    return None
