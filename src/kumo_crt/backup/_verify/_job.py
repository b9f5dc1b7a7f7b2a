"""Checks data objects one by one: here, or in a worker that was handed a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from kumo_crt import _engine, _runtime
from kumo_crt._config import Settings
from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._layout import Location
from kumo_crt.backup._format._results import SnapshotFile
from kumo_crt.backup._store._fetch import DamagedError, fetch_task, missing, wrong_size
from kumo_crt.backup._store._objects import DataObject
from kumo_crt.backup._store._ranges import PartsDamagedError, check_object_task
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import NotFoundError, S3Error
from kumo_crt.s3._budget import Budget
from kumo_crt.s3._context import Context
from kumo_crt.s3._get import Discard
from kumo_crt.s3._head import head_task
from kumo_crt.s3._retry import Retries

# A job is about as many bytes or objects: enough to be worth its own connections.
_JOB_BYTES = 256 << 20
_JOB_OBJECTS = 256
INTERNAL_ERROR = 500
# And there are at least this many, where there are objects enough: workers end together then.
_JOBS = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is wrong with an object.

    Attributes:
        kind: As in `Problem`; None if nothing is.
        message: What was found.
        files: Those of its files that are damaged; None if all are.
    """

    kind: str | None = None
    message: str = ""
    files: tuple[SnapshotFile, ...] | None = None


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Some objects to check, for any process that can reach the service.

    It only reads, so it may be run more than once.

    Attributes:
        settings: Of the client to make; credentials that were given to it are among them.
        location: Where the repository is.
        level: ``stored`` or ``full``.
        objects: What is expected.
        concurrency: Objects at once.
        key: The repository's, if it is encrypted and the key is at hand.
        rates: Bytes and requests a second, at most.
    """

    settings: Settings = field(repr=False)
    location: Location
    level: str
    objects: tuple[DataObject, ...] = field(repr=False)
    concurrency: int
    key: Key | None = field(default=None, repr=False)
    rates: tuple[float | None, float | None] = (None, None)

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(item.size for item in self.objects) if self.level == "full" else 0


def run_job(job: VerifyJob) -> list[Outcome]:
    """Checks the objects of a job, with a client of its own."""
    retries = Retries(job.settings)
    native, budget = _runtime.new_client(job.settings), Budget(*job.rates)
    context = Context(native, job.settings, retries, budget, persistent=True)
    store = Store(context, job.location, key=job.key)
    task = check_task(store, job.level, job.objects, job.concurrency, None)
    return _engine.run(task, job.settings.max_connections)


def split(objects: list[DataObject]) -> Iterator[tuple[DataObject, ...]]:
    """Cuts a list of objects into the portions of jobs."""
    share = min(_JOB_BYTES, max(1, sum(item.size for item in objects) // _JOBS))
    portion: list[DataObject] = []
    size = 0
    for item in objects:
        portion.append(item)
        size += item.size
        if size >= share or len(portion) >= _JOB_OBJECTS:
            yield tuple(portion)
            portion, size = [], 0
    if portion:
        yield tuple(portion)


def check_task(
    store: Store, level: str, objects: Iterable[DataObject], concurrency: int, meter: Meter | None
) -> Task[list[Outcome]]:
    """Checks objects; the outcomes are in their order."""
    check = _stored if level == "stored" else _full
    found: list[Outcome] = yield Gather(
        (_counted(check, store, item, meter) for item in objects), concurrency
    )
    return found


def _counted(
    check: Callable[[Store, DataObject, Meter | None], Task[None]],
    store: Store,
    item: DataObject,
    meter: Meter | None,
) -> Task[Outcome]:
    if meter is None:
        return (yield from _checked(check(store, item, None)))
    own = Meter(None, 0, meter)
    outcome = yield from _checked(check(store, item, own))
    meter.add(item.size - own.done)  # damaged or not, it is done with
    return outcome


def _checked(task: Task[None]) -> Task[Outcome]:
    try:
        yield from task
    except PartsDamagedError as damage:
        return Outcome(damage.kind, str(damage), damage.files)
    except DamagedError as damage:
        return Outcome(damage.kind, str(damage))
    except S3Error as error:
        # A service that finds its own copy rotten answers so, however often it is asked. That is
        # one object's trouble; of a service that is overloaded (503) the whole run has to know.
        if error.status != INTERNAL_ERROR:
            raise
        return Outcome("unreadable", f"the service cannot read it: {error}")
    return Outcome()


def _stored(store: Store, item: DataObject, meter: Meter | None) -> Task[None]:
    try:
        found = yield from head_task(store.context, store.bucket, store.location.key(item.key))
    except NotFoundError:
        raise missing(store, item.stored) from None
    if meter is not None:
        meter.add(item.size)
    if found.size != item.size:
        raise wrong_size(store, item.stored, found.size)
    if found.checksum_crc32c is None:
        raise DamagedError(
            "unverifiable",
            f"{store.url(item.key)}: the service tells no CRC32C of it: verify with level 'full'",
        )
    if found.checksum_crc32c != item.stored.crc32c:
        raise DamagedError(
            "checksum",
            f"{store.url(item.key)}: CRC32C {found.checksum_crc32c:08x}, the manifest says "
            f"{item.stored.crc32c:08x}",
        )


def _full(store: Store, item: DataObject, meter: Meter | None) -> Task[None]:
    if item.is_file:
        return fetch_task(store, item.files[0], Discard(), meter)
    return check_object_task(store, item, meter)
