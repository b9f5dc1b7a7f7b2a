"""The public functions."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kumo_crt import _core
from kumo_crt._engine import Meter
from kumo_crt.backup._format._layout import Location
from kumo_crt.backup._local._room import check_space, room_in
from kumo_crt.backup._local._scratch import scratch
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import NotFoundError, SnapshotNotFoundError
from kumo_crt.export import _receive
from kumo_crt.export._results import ENCODINGS, ExportInfo, ExportReport, ImportReport
from kumo_crt.export._send import ExportPlan, check_free, export_task
from kumo_crt.export._source import Range, opened
from kumo_crt.s3 import S3Client
from kumo_crt.s3._budget import Budget

Progress = Callable[[int, int], object]
_FILE_BYTES = 64 << 20
# Each holds a file on the disk, which a database's machine may not have much of.
_CONCURRENCY = 4

_FULL = (
    "make room, or name another temporary directory (TMPDIR), and run it again: an export is "
    "written there before it is sent, a few files at once (max_concurrency, "
    "--max-concurrency). Nothing of it was kept"
)
_FULL_BESIDE = (
    "make room and run it again: all files of an import are brought beside the database before it "
    "takes them in. The database is as it was"
)


def export(
    source: object,
    url: str,
    *,
    client: S3Client | None = None,
    column_family: str = "default",
    prefix: bytes | None = None,
    start: bytes | None = None,
    stop: bytes | None = None,
    encoding: str = "sst",
    live: bool = False,
    data_paths: Sequence[str | os.PathLike[str]] = (),
    file_bytes: int = _FILE_BYTES,
    progress: Progress | None = None,
    max_bytes_per_second: float | None = None,
    max_requests_per_second: float | None = None,
    max_concurrency: int | None = None,
    dry_run: bool = False,
) -> ExportReport:
    """Stores the keys and values of a column family, or of a range of it.

    They are those of one moment, however long it takes. Needs rocksdict. Interrupted, it leaves no
    export; what a killed one has sent is removed by the next one to the same URL.

    Args:
        source: An open `rocksdict.Rdict` of plain bytes, or the directory of a database.
        url: ``s3://bucket/prefix``, where there is no export yet.
        client: The client to use; else one of its own, set up from the environment.
        column_family: Name of the column family.
        prefix: Only keys that begin so.
        start: Only keys from this one on.
        stop: Only keys before this one.
        encoding: ``"sst"``: files that RocksDB takes in without writing them again. ``"jsonl"``: a
            line of JSON for each key.
        live: The directory's database may be open, in another process or here.
        data_paths: See `Repository.backup`.
        file_bytes: How many bytes of keys and values go into a file.
        progress: Called with bytes sent and 0, as nobody knows the total.
        max_bytes_per_second: Limit; else that of ``KUMO_CRT_MAX_BYTES_PER_SECOND``.
        max_requests_per_second: Limit; else that of ``KUMO_CRT_MAX_REQUESTS_PER_SECOND``.
        max_concurrency: Files at once, each of which takes its room in the temporary directory; 4.
        dry_run: Only read, tell how much it would be, and look whether the URL is free.

    Raises:
        RepositoryError: There is an export at the URL, or the source cannot be exported.
        RepositoryLockedError: The directory's database is open, and ``live`` is not set.
        NotFoundError: There is no such bucket.
    """
    begun = time.monotonic()
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r}: choose one of {', '.join(ENCODINGS)}")
    if file_bytes < 1:
        raise ValueError(f"file_bytes is {file_bytes}: it must be at least 1")
    keys = Range.of(prefix, start, stop)
    location = Location.parse(url)
    budget = Budget.of(max_bytes_per_second, max_requests_per_second)
    with (
        room_in(tempfile.gettempdir(), _FULL),
        _client(client) as used,
        opened(source, column_family, keys, live=live, data_paths=data_paths) as found,
        contextlib.closing(found.entries) as entries,
        scratch(Path(tempfile.gettempdir()), "kumo-export-") as place,
    ):
        info = ExportInfo(
            url=url,
            created_at=datetime.now(UTC).replace(microsecond=0),  # as the manifest has it
            encoding=encoding,
            column_family=column_family,
            db_id=found.db_id,
            start=keys.start,
            stop=keys.stop,
            entries=0,
            total_bytes=0,
            files=(),
        )
        store = _store(used, location, budget)
        if dry_run:
            used._run(check_free(store))
            info = _count(info, entries)
        else:
            plan = ExportPlan(
                store=store,
                entries=entries,
                info=info,
                scratch=place,
                file_bytes=file_bytes,
                concurrency=_at_once(max_concurrency),
                meter=Meter(progress, 0),
                tool=f"kumo_crt {_core.build_info()['version']}",
            )
            info = used._run(export_task(plan))
    return ExportReport(info, time.monotonic() - begun)


def import_(
    url: str,
    target: object,
    *,
    client: S3Client | None = None,
    column_family: str | None = None,
    add: bool = False,
    progress: Progress | None = None,
    max_bytes_per_second: float | None = None,
    max_requests_per_second: float | None = None,
    max_concurrency: int | None = None,
    dry_run: bool = False,
) -> ImportReport:
    """Brings an export into a database, at once: all keys are there afterwards, or none.

    Everything is downloaded and checked first, beside the database. Needs rocksdict.

    Args:
        url: URL of the export.
        target: An open `rocksdict.Rdict` of plain bytes, or a directory: of a closed database, or
            one that does not exist, for a new database.
        client: The client to use; else one of its own, set up from the environment.
        column_family: Where to; else where the keys came from. It is made if needed.
        add: The column family may have keys: those of the export are added to them, and win.
        progress: Called with bytes done and total, ten times a second at most.
        max_bytes_per_second: See `export`.
        max_requests_per_second: See `export`.
        max_concurrency: Files at once; 4.
        dry_run: Only read the manifest and look at the target.

    Raises:
        SnapshotNotFoundError: There is no export at the URL.
        NotFoundError: There is no such bucket.
        IntegrityError: It is damaged.
        FormatError: Its manifest is not one that this kumo_crt knows.
        RepositoryLockedError: The target's database is open elsewhere.
        RepositoryError: The target cannot be imported into.
    """
    begun = time.monotonic()
    at_once = _at_once(max_concurrency)
    budget = Budget.of(max_bytes_per_second, max_requests_per_second)
    with _client(client) as used, contextlib.ExitStack() as stack:
        info = inspect(url, client=used)
        name = info.column_family if column_family is None else column_family
        if dry_run and isinstance(target, str | os.PathLike) and _receive.is_fresh(Path(target)):
            path = str(Path(target).absolute())
            return ImportReport(info, path, name, time.monotonic() - begun)
        stack.enter_context(room_in("the database's file system", _FULL_BESIDE))
        found = stack.enter_context(_receive.target_of(target))
        _receive.check_family(found, name, add=add)
        if not dry_run:
            check_space(found.path, info.total_bytes)
            place = stack.enter_context(_receive.scratch_beside(found.path))
            store = _store(used, Location.parse(url), budget)
            meter = Meter(progress, info.total_bytes)
            tables = used._run(_receive.download_task(store, info, place, at_once, meter))
            _receive.take_in(found, name, tables)
    return ImportReport(info, str(found.path), name, time.monotonic() - begun)


def inspect(url: str, *, client: S3Client | None = None) -> ExportInfo:
    """What an export holds.

    Args:
        url: URL of the export.
        client: The client to use; else one of its own, set up from the environment.

    Raises:
        SnapshotNotFoundError: There is no export at the URL.
        NotFoundError: There is no such bucket.
        FormatError: Its manifest is not one that this kumo_crt knows.
    """
    location = Location.parse(url)
    with _client(client) as used:
        store = _store(used, location)
        try:
            return used._run(_receive.read_manifest_task(store, url))
        except NotFoundError as error:
            if error.code == "NoSuchBucket":
                raise
            raise SnapshotNotFoundError(
                f"{location}: there is no export here: look at the URL"
            ) from None


def _count(info: ExportInfo, entries: Iterator[tuple[bytes, bytes]]) -> ExportInfo:
    """What an export would hold; bytes are those of keys and values."""
    count = size = 0
    for key, value in entries:
        count += 1
        size += len(key) + len(value)
    return replace(info, entries=count, total_bytes=size)


def _at_once(wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"max_concurrency is {wanted}: it must be at least 1")
    return wanted or _CONCURRENCY


def _store(client: S3Client, location: Location, budget: Budget | None = None) -> Store:
    context = client._open() if budget is None else client._open().within(budget)
    # Long work: it waits for a service that is started again.
    return Store(replace(context, persistent=True), location)


@contextlib.contextmanager
def _client(client: S3Client | None) -> Iterator[S3Client]:
    if client is not None:
        yield client
        return
    with S3Client() as own:
        yield own
