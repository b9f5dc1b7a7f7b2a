"""A database that is being written to while it is backed up."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.helpers import leftovers
from tests.support import databases
from tests.support.databases import Entry

Write = tuple[int, str, bytes, bytes | None]


class Writer:
    """Puts and deletes in two column families, and remembers under which sequence number."""

    def __init__(self, path: Path, *, blobs: bool = False) -> None:
        self.db = Rdict(str(path), databases.options(small_files=not blobs, blobs=blobs))
        self.families = {
            "default": self.db,
            "users": self.db.create_column_family("users", databases.options(blobs=blobs)),
        }
        self.log: list[Write] = []
        self._size = 2_000 if blobs else 300
        self._rng = random.Random(11)

    def write(self) -> None:
        """One write; each takes one sequence number."""
        name = self._rng.choice(("default", "users"))
        key = b"key-%04d" % self._rng.randrange(3_000)
        if self._rng.random() < 0.2:
            value = None
            self.families[name].delete(key)
        else:
            value = self._rng.randbytes(self._size)
            self.families[name][key] = value
        self.log.append((self.db.latest_sequence_number(), name, key, value))

    def truth(self, sequence_number: int) -> list[Entry]:
        """What the database held after the write with this sequence number."""
        state: dict[tuple[str, bytes], bytes] = {}
        for number, name, key, value in list(self.log):
            if number > sequence_number:
                break
            state.pop((name, key), None)
            if value is not None:
                state[name, key] = value
        return [(name, key, value) for (name, key), value in sorted(state.items())]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Writes on a thread of its own."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def loop() -> None:
            try:
                while not stop.wait(0.0002):
                    for _ in range(5):
                        self.write()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert failures == []

    def close(self) -> None:
        self.families["users"].close()
        self.db.close()


@pytest.mark.servers("seaweed-http", "seaweed-https")
@pytest.mark.parametrize("blobs", [False, True], ids=["ssts", "blobs"])
def test_restored_content_is_the_truth_of_one_moment(
    repository: kumo_crt.Repository, tmp_path: Path, blobs: bool
) -> None:
    path = tmp_path / "db"
    writer = Writer(path, blobs=blobs)
    for _ in range(2_000):
        writer.write()
    snapshots = []
    with writer.running():
        for _ in range(3):
            before = writer.db.latest_sequence_number()
            snapshot = repository.backup(writer.db)
            after = writer.db.latest_sequence_number()
            assert before <= snapshot.sequence_number <= after
            snapshots.append(snapshot)
    for _ in range(10):
        writer.write()
    numbers = [number for number, *_ in writer.log]
    assert numbers == sorted(set(numbers))
    assert leftovers(tmp_path) == []
    writer.close()
    assert numbers[-1] > snapshots[-1].sequence_number
    assert snapshots[0].sequence_number < snapshots[-1].sequence_number
    for snapshot in snapshots:
        target = tmp_path / snapshot.id
        repository.restore(target, snapshot.id)
        assert databases.read_all(target) == writer.truth(snapshot.sequence_number)
    assert repository.verify(level="full").ok


@pytest.mark.servers("seaweed-http")
def test_unflushed_writes_are_in_it(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    db = Rdict(str(tmp_path / "db"), databases.options())
    databases.fill(db, 0, 100)
    snapshot = repository.backup(db)
    db.close()
    assert snapshot.sequence_number == 100
    repository.restore(tmp_path / "restored")
    assert len(databases.read_all(tmp_path / "restored")) == 100


@pytest.mark.servers("seaweed-http")
def test_compaction_may_delete_files_that_are_being_sent(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    db = Rdict(str(tmp_path / "db"), databases.options(small_files=True))
    for start in range(0, 1_000, 100):
        databases.fill(db, 0, start + 100)  # overlapping, or files would only be moved
        db.flush()
    compacted: list[int] = []

    def compact(done: int, total: int) -> None:
        # The first call: the checkpoint is taken, most files are still to be sent.
        if not compacted:
            compacted.append(done)
            db.compact_range(None, None)

    snapshot = repository.backup(db, progress=compact, max_concurrency=1)
    live = {item["name"].lstrip("/") for item in db.live_files()}
    db.close()
    names = {file.path for file in snapshot.files if file.kind == "sst"}
    assert len(names) >= 10
    assert names.isdisjoint(live)
    repository.restore(tmp_path / "restored")
    assert len(databases.read_all(tmp_path / "restored")) == 1_000
