"""Checks data objects one by one: here, or in a worker that was handed a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kumo_crt import _engine, _runtime
from kumo_crt._config import Settings
from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._fetch import DamagedError, fetch_task, missing, wrong_size
from kumo_crt.backup._layout import Location
from kumo_crt.backup._results import SnapshotFile
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import NotFoundError, S3Error
from kumo_crt.s3._context import Context
from kumo_crt.s3._get import Discard
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._retry import Retries

# A job is about as many bytes or objects: enough to be worth its own connections.
_JOB_BYTES = 256 << 20
_JOB_OBJECTS = 256
_INTERNAL_ERROR = 500
# And there are at least this many, where there are objects enough: workers end together then.
_JOBS = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is wrong with an object; ``kind`` is None if nothing is."""

    kind: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Some objects to check, for any process that can reach the service.

    It only reads, so it may be run more than once.

    Attributes:
        settings: Of the client to make; credentials that were given to it are among them.
        location: Where the repository is.
        level: ``stored`` or ``full``.
        files: What is expected.
        concurrency: Objects at once.
    """

    settings: Settings = field(repr=False)
    location: Location
    level: str
    files: tuple[SnapshotFile, ...] = field(repr=False)
    concurrency: int


def run_job(job: VerifyJob) -> list[Outcome]:
    """Checks the objects of a job, with a client of its own."""
    context = Context(_runtime.new_client(job.settings), job.settings, Retries(job.settings))
    store = Store(context, job.location)
    task = check_task(store, job.level, job.files, job.concurrency, None)
    return _engine.run(task, job.settings.max_connections)


def split(files: list[SnapshotFile]) -> Iterator[tuple[SnapshotFile, ...]]:
    """Cuts a list of files into the portions of jobs."""
    share = min(_JOB_BYTES, max(1, sum(file.size for file in files) // _JOBS))
    portion: list[SnapshotFile] = []
    size = 0
    for file in files:
        portion.append(file)
        size += file.size
        if size >= share or len(portion) >= _JOB_OBJECTS:
            yield tuple(portion)
            portion, size = [], 0
    if portion:
        yield tuple(portion)


def check_task(
    store: Store, level: str, files: Iterable[SnapshotFile], concurrency: int, meter: Meter | None
) -> Task[list[Outcome]]:
    """Checks objects; the outcomes are in the order of the files."""
    check = _stored if level == "stored" else _full
    found: list[Outcome] = yield Gather(
        (_checked(check(store, file, meter)) for file in files), concurrency
    )
    return found


def _checked(task: Task[None]) -> Task[Outcome]:
    try:
        yield from task
    except DamagedError as damage:
        return Outcome(damage.kind, str(damage))
    except S3Error as error:
        # A service that finds its own copy rotten answers so, however often it is asked. That is
        # one object's trouble; of a service that is overloaded (503) the whole run has to know.
        if error.status != _INTERNAL_ERROR:
            raise
        return Outcome("unreadable", f"the service cannot read it: {error}")
    return Outcome()


def _stored(store: Store, file: SnapshotFile, meter: Meter | None) -> Task[None]:
    key = file.key or ""
    try:
        found = yield from head_task(store.context, store.bucket, store.location.key(key))
    except NotFoundError:
        raise missing(store, file) from None
    if meter is not None:
        meter.add(file.size)
    if found.size != file.size:
        raise wrong_size(store, file, found.size)
    if found.checksum_crc32c is None:
        raise DamagedError(
            "unverifiable",
            f"{store.url(key)}: the service tells no CRC32C of it: verify with level 'full'",
        )
    if found.checksum_crc32c != file.crc32c:
        raise DamagedError(
            "checksum",
            f"{store.url(key)}: CRC32C {found.checksum_crc32c:08x}, the manifest says "
            f"{file.crc32c:08x}",
        )


def _full(store: Store, file: SnapshotFile, meter: Meter | None) -> Task[None]:
    return fetch_task(store, file, Discard(), meter)
