"""A database whose content at any sequence number is known exactly.

One thread writes numbered batches, and a batch follows from its number alone. RocksDB gives every
operation one sequence number and applies a batch as a whole, so the sequence number of a snapshot
tells which batches are in it: all up to the one that ended with that number. Replaying them,
without the database, gives the truth to compare a restored database with.
"""

from __future__ import annotations

import bisect
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kumo_crt.cli._errors import CommandError
from kumo_crt.cli._signals import deferred

FAMILIES = ("default", "users", "events")
_BASE_PUTS = {"default": 24, "users": 24, "events": 16}
_LIVE_PUTS = {"default": 10, "users": 5, "events": 10}
_LIVE_DELETES = 4
_RANGE_EVERY, _RANGE_LENGTH = 16, 8
_HOT_SHARE = 0.05
_SIZES = (512, 7680)
# One value of three is text; LZ4 leaves about this much of it.
_TEXT_RATIO = 0.06
_TEXT = b'{"id": %d, "name": "kumo", "state": "active", "tags": ["a", "b"], "note": ""}\n'

Truth = dict[str, dict[int, int]]


class Operation(NamedTuple):
    """One operation of a batch.

    Attributes:
        family: Column family.
        key: Number of the key, or of the first one of a range.
        value: Number of the value; None deletes.
        end: For a range that is deleted: number of the key after its last.
    """

    family: str
    key: int
    value: int | None = None
    end: int | None = None


def key_of(family: str, number: int) -> bytes:
    """The key of a number; keys sort as their numbers do."""
    return b"%s:%012d" % (family.encode(), number)


def value_of(number: int) -> bytes:
    """The value of a number; no two are alike, some compress well and most do not at all."""
    seed = number.to_bytes(8, "big")
    size = random.Random(number).randint(*_SIZES)  # noqa: S311 - has to be repeatable
    if number % 3 == 0:
        line = _TEXT % number
        return (line * (size // len(line) + 1))[:size]
    return hashlib.shake_128(seed).digest(size)


@dataclass(frozen=True)
class Plan:
    """What the batches of a workload are.

    Attributes:
        base_batches: So many first batches fill the database; later ones change it.
    """

    base_batches: int

    @classmethod
    def for_size(cls, size: int) -> Plan:
        """A plan whose base takes about so many bytes on disk."""
        mean = sum(_SIZES) / 2 * (2 + _TEXT_RATIO) / 3
        return cls(max(1, round(size / (mean * sum(_BASE_PUTS.values())))))

    def batch(self, number: int) -> list[Operation]:
        """The operations of a batch."""
        return list(self._base(number) if number < self.base_batches else self._live(number))

    def _base(self, number: int) -> Iterator[Operation]:
        value = number * 1000
        for family, puts in _BASE_PUTS.items():
            for key in range(number * puts, (number + 1) * puts):
                yield Operation(family, key, value)
                value += 1

    def _live(self, number: int) -> Iterator[Operation]:
        """Changes what was written last, as users do, appends events and deletes."""
        chance = random.Random(number)  # noqa: S311 - has to be repeatable
        round_number = number - self.base_batches
        value = number * 1000

        def hot(family: str) -> int:
            keys = self.base_batches * _BASE_PUTS[family]
            return chance.randrange(keys - max(1, int(keys * _HOT_SHARE)), keys)

        for family, puts in _LIVE_PUTS.items():
            first = self.base_batches * _BASE_PUTS[family] + round_number * puts
            for i in range(puts):
                yield Operation(family, first + i if family == "events" else hot(family), value)
                value += 1
        for _ in range(_LIVE_DELETES):
            yield Operation("users", hot("users"))
        if round_number % _RANGE_EVERY == _RANGE_EVERY - 1:
            begin = hot("default")
            yield Operation("default", begin, end=begin + _RANGE_LENGTH)

    def truth(self, batches: int) -> Truth:
        """The content after so many batches: number of the value by family and key."""
        content: Truth = {family: {} for family in FAMILIES}
        for number in range(batches):
            for operation in self.batch(number):
                family = content[operation.family]
                if operation.value is not None:
                    family[operation.key] = operation.value
                else:
                    for key in range(operation.key, operation.end or operation.key + 1):
                        family.pop(key, None)
        return content


def _options(size: int) -> Any:
    from rocksdict import DBCompressionType, Options

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_compression_type(DBCompressionType.lz4())
    table = min(max(size // 40, 1 << 20), 32 << 20)
    options.set_write_buffer_size(table)
    options.set_target_file_size_base(table)
    return options


class Workload:
    """An open database, and who writes to it.

    Args:
        path: Directory of the database, which does not exist yet.
        size: How many bytes it should take on disk at first.
    """

    def __init__(self, path: Path, size: int) -> None:
        from rocksdict import Rdict

        self.plan = Plan.for_size(size)
        self.bytes_written = 0
        # A writer at work, not one that fills the disk.
        self._rate = max(size / 40, 2_000_000)
        options = _options(size)
        self.db = Rdict(str(path), options, column_families=dict.fromkeys(FAMILIES, options))
        self._handles = {f: self.db.get_column_family_handle(f) for f in FAMILIES}
        self._start_sequence = self.db.latest_sequence_number()
        # Sequence number after each batch. Appended to by the one writing thread only.
        self._ends: list[int] = []
        self._closed = False
        self._stopping = False
        self._wake = threading.Event()  # ends a pause
        self._hurry = 0  # do not pause before so many batches are written
        self._progress = threading.Condition()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def batches(self) -> int:
        """How many batches are written."""
        return len(self._ends)

    @property
    def sequence_number(self) -> int:
        """The sequence number after the last batch."""
        return self._ends[-1] if self._ends else self._start_sequence

    def write_next(self) -> None:
        """Writes one batch; only ever called by one thread at a time.

        Raises:
            CommandError: The sequence numbers are not what the batches explain.
        """
        from rocksdict import WriteBatch

        operations = self.plan.batch(len(self._ends))
        batch = WriteBatch(raw_mode=True)
        for operation in operations:
            handle = self._handles[operation.family]
            key = key_of(operation.family, operation.key)
            if operation.value is not None:
                value = value_of(operation.value)
                batch.put(key, value, handle)
                self.bytes_written += len(key) + len(value)
            elif operation.end is not None:
                batch.delete_range(key, key_of(operation.family, operation.end), handle)
            else:
                batch.delete(key, handle)
        expected = self.sequence_number + len(operations)
        self.db.write(batch)
        if (now := self.db.latest_sequence_number()) != expected:
            raise CommandError(
                f"after batch {len(self._ends)} the database is at sequence number {now}, "
                f"{expected} was expected: is somebody else writing to it?"
            )
        self._ends.append(now)

    def start(self) -> None:
        """Starts the thread that goes on writing."""
        thread = threading.Thread(target=self._run, name="kumo-demo-writer", daemon=True)
        with deferred():  # a thread that is half started cannot be joined
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                begun, before = time.monotonic(), self.bytes_written
                self.write_next()
                with self._progress:
                    self._progress.notify_all()
                if self.batches >= self._hurry:
                    due = begun + (self.bytes_written - before) / self._rate
                    self._wake.wait(max(0.0, due - time.monotonic()))
                    self._wake.clear()
        except BaseException as error:
            self._error = error
            with self._progress:
                self._progress.notify_all()

    def write_more(self, batches: int) -> None:
        """Has the thread write so many batches without pausing, and waits for them."""
        self._hurry = wanted = self.batches + batches
        self._wake.set()
        with self._progress:
            # With a limit, so that Ctrl-C is answered.
            while self.batches < wanted and self._error is None:
                self._progress.wait(0.1)
        self.check()

    def check(self) -> None:
        """Raises what stopped the thread, if anything did.

        Raises:
            CommandError: It did not go on.
        """
        if self._error is not None:
            raise CommandError(f"writing to the database failed: {self._error}") from self._error

    def stop(self) -> None:
        """Stops the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stops the thread and closes the database; further calls do nothing."""
        self.stop()
        if self._closed:
            return
        self._closed = True
        # RocksDB stays open for as long as a handle lives.
        self._handles.clear()
        self.db.close()

    def live_files(self) -> tuple[int, int]:
        """Number and bytes of the SST files."""
        files = self.db.live_files()
        return len(files), sum(int(file["size"]) for file in files)

    def truth_at(self, sequence_number: int) -> Truth:
        """The content at a sequence number.

        Raises:
            CommandError: No batch ends with it: a batch was torn.
        """
        if sequence_number == self._start_sequence:
            return self.plan.truth(0)
        index = bisect.bisect_left(self._ends, sequence_number)
        if index == len(self._ends) or self._ends[index] != sequence_number:
            raise CommandError(
                f"the snapshot ends with sequence number {sequence_number}, "
                "which is not the end of any batch that was written"
            )
        return self.plan.truth(index + 1)


def compare(path: Path, truth: Truth, sequence_number: int) -> tuple[int, int]:
    """Opens a database and compares every key and value with the truth.

    Returns:
        Number of keys, and bytes of keys and values.

    Raises:
        CommandError: Something differs.
    """
    from rocksdict import Options, Rdict

    options = Options(raw_mode=True)
    options.create_if_missing(False)
    families = Rdict.list_cf(str(path), options)
    if sorted(families) != sorted(truth):
        raise CommandError(f"column families {sorted(families)}, expected {sorted(truth)}")
    db = Rdict(str(path), options, column_families=dict.fromkeys(families, options))
    try:
        if (found := db.latest_sequence_number()) != sequence_number:
            raise CommandError(
                f"the database is at sequence number {found}, expected {sequence_number}"
            )
        keys = size = 0
        for family, content in truth.items():
            for length in _compare_family(db, family, content):
                keys += 1
                size += length
        return keys, size
    finally:
        db.close()


def _compare_family(db: Any, family: str, content: dict[int, int]) -> Iterator[int]:
    """Yields the size of each entry that is as it should be."""
    handle = db if family == "default" else db.get_column_family(family)
    entries = iter(handle.items())
    for number in sorted(content):
        key, value = next(entries, (None, None))
        wanted = key_of(family, number)
        if key != wanted:
            raise CommandError(f"column family {family}: found key {key!r}, expected {wanted!r}")
        if value != value_of(content[number]):
            raise CommandError(f"column family {family}: key {key!r} has another value")
        yield len(key) + len(value)
    if (more := next(entries, None)) is not None:
        raise CommandError(f"column family {family}: found key {more[0]!r}, expected no more")
