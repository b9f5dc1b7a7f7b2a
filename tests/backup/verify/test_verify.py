"""Verification in parts, over all snapshots, in other processes; what it remembers."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._coordination import _ledger
from kumo_crt.backup._store._objects import DataObject, objects_of
from kumo_crt.backup._verify import _job, _selection
from kumo_crt.backup._verify._selection import Subset, select
from tests.backup.conftest import Make
from tests.backup.helpers import (
    delete,
    flipped,
    get,
    key_of,
    keys,
    put,
    remove,
    replace_manifest,
    stored_files,
    url,
)
from tests.support import databases
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _two_snapshots(
    repository: kumo_crt.Repository, path: Path
) -> tuple[kumo_crt.Snapshot, kumo_crt.Snapshot]:
    """Two snapshots that have most files in common."""
    first = repository.backup(path)
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 10_000, 10_050)
    db.close()
    return first, repository.backup(path)


def _objects(*snapshots: kumo_crt.Snapshot) -> dict[str, int]:
    return {key_of(f): f.size for snapshot in snapshots for f in stored_files(snapshot)}


# -- selection ------------------------------------------------------------------------------------


def _files(sizes: list[int]) -> list[DataObject]:
    return objects_of(
        kumo_crt.SnapshotFile(f"{n:06d}.sst", "sst", size, 0, key=f"data/00/sst-{n}-{size}.sst")
        for n, size in enumerate(sizes, 1)
    )


@pytest.mark.parametrize("of", [1, 2, 7])
def test_parts_are_disjoint_and_all(of: int) -> None:
    files = _files([100] * 50)
    parts = [select(files, Subset(n, of), None, lambda _: None) for n in range(1, of + 1)]
    assert sorted((f for part in parts for f in part), key=files.index) == files
    # Nor do they change when others come and go.
    some = files[::3]
    assert select(some, Subset(1, of), None, lambda _: None) == [f for f in parts[0] if f in some]


@pytest.mark.parametrize("of", [1, 3, 7, 100])
@pytest.mark.parametrize("sizes", [[100] * 20, [10_000, *[1] * 30], [0, 0, 0], list(range(40))])
def test_the_oldest_parts_come_round_in_as_many_runs(of: int, sizes: list[int]) -> None:
    files = _files(sizes)
    read: dict[str, datetime] = {}
    for run in range(of):
        chosen = select(files, Subset(None, of), None, read.get)
        assert sum(f.size for f in chosen) >= sum(sizes) / of
        read |= {f.key: datetime(2026, 1, 1 + run % 28, run // 28, tzinfo=UTC) for f in chosen}
    assert {f.key for f in files if f.size and f.key not in read} == set()


def test_no_more_than_so_many_bytes() -> None:
    files = _files([10, 20, 30, 1000])
    read = {f.key: datetime(2026, 1, day, tzinfo=UTC) for day, f in enumerate(files[:3], 1)}
    assert select(files, None, 500, read.get) == [files[3]]  # never read: the first, though large
    read[files[3].key] = datetime(2026, 2, 1, tzinfo=UTC)
    assert select(files, None, 35, read.get) == files[:2]
    assert select(files, None, 10_000, read.get) == files


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "x/3", "1", "1/2/3", "oldest/0", "", "-1/2"])
def test_subsets_that_are_none(repository: kumo_crt.Repository, text: str) -> None:
    with pytest.raises(ValueError, match="expected n/t"):
        repository.verify(level="full", subset=text)


# -- all snapshots, in parts -----------------------------------------------------------------------


@pytest.mark.usefixtures("each_alone")
def test_every_object_of_all_snapshots_once(repository: kumo_crt.Repository, make: Make) -> None:
    first, second = _two_snapshots(repository, make("many_files"))
    objects = _objects(first, second)
    for level in ("quick", "stored", "full"):
        report = repository.verify("all", level=level)
        assert report.ok
        assert (report.snapshots, report.files) == (2, len(objects))
    assert report.bytes_read == sum(objects.values())
    parts = [repository.verify("all", level="full", subset=(n, 3)) for n in (1, 2, 3)]
    assert sum(part.files for part in parts) == len(objects)
    assert all(part.total_files == len(objects) for part in parts)
    assert sum(part.bytes_read for part in parts) == sum(objects.values())


@pytest.mark.usefixtures("each_alone")
def test_cron_walks_the_whole_repository(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    make: Make,
    bucket: str,
) -> None:
    first, second = _two_snapshots(repository, make("many_files"))
    objects = _objects(first, second)
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as other:
        for _ in range(4):
            health = other.health()
            assert None in [item.last_verified for item in health]
            assert other.verify("all", level="full", subset="oldest/4").recorded
    counts = [proxy.count("GET", key) for key in objects if "sst" in key]
    assert min(counts) == 1
    # The last run goes on with the first ones, to have its share of the bytes.
    assert sum(counts) < 1.2 * len(counts)
    health = repository.health()
    assert [item.snapshot.id for item in health] == [first.id, second.id]
    assert all(item.last_verified is not None for item in health)
    assert all(0 <= item.age_seconds < 300 for item in health)
    # And round again, with those that are oldest.
    report = repository.verify("all", level="full", max_bytes=max(objects.values()))
    assert 0 < report.bytes_read <= max(objects.values())


def test_what_is_recorded(
    repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str
) -> None:
    snapshot = repository.backup(make("plain"))
    repository.verify(level="quick")
    repository.verify(level="stored")
    assert not repository.verify(level="full", record=False).recorded
    assert keys(boto, bucket, "health/") == set()
    assert repository.verify(level="full").recorded
    (name,) = keys(boto, bucket, "health/")
    assert re.fullmatch(r"health/[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\.json", name)
    document = json.loads(get(boto, bucket, name))
    assert (document["format"], document["version"]) == ("kumo-health", 1)
    assert [len(group["objects"]) for group in document["reads"]] == [len(_objects(snapshot))]
    assert document["damaged"] == document["drills"] == []


def test_many_ledgers_become_one(
    repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str
) -> None:
    first, second = _two_snapshots(repository, make("many_files"))
    n = 0
    while len(keys(boto, bucket, "health/")) < 16:
        n += 1
        repository.verify("all", level="full", subset=(n % 8 + 1, 8))
    before = repository.health()
    assert all(item.last_verified is not None for item in before)
    # Of what is gone nothing needs to be remembered.
    remove(boto, bucket, second)
    put(boto, bucket, "health/20200101T000000Z-00000000.json", b"no ledger at all")
    # A part that is empty: names are random, but parts are many.
    assert repository.verify(level="full", subset=(1, 999_999_999), record=True).recorded is False
    assert repository.verify(level="full", subset=(1, 2)).recorded
    left = sorted(keys(boto, bucket, "health/"))
    assert left[0] == "health/20200101T000000Z-00000000.json"  # not read, so not deleted
    (merged,) = left[1:]
    document = json.loads(get(boto, bucket, merged))
    hashes = [name for group in document["reads"] for name in group["objects"]]
    assert len(hashes) == len(set(hashes)) == len(_objects(first))
    # Since when every byte is known to be good: what was read least recently, now or before.
    oldest = datetime.fromisoformat(min(group["at"] for group in document["reads"]))
    assert before[0].last_verified is not None
    assert before[0].last_verified <= oldest
    assert repository.health()[0].last_verified == oldest


def test_ledgers_that_become_one_while_they_are_read(
    repository: kumo_crt.Repository,
    make: Make,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Damage that is known stays known: its ledger was listed, and gone when it was to be read."""
    snapshot = repository.backup(make("plain"))
    key = key_of(stored_files(snapshot, "sst")[0])
    put(boto, bucket, key, b"x" * len(get(boto, bucket, key)))
    assert not repository.verify(level="full").ok
    while len(keys(boto, bucket, "health/")) < 16:
        repository.verify(level="full", record=True)
    listing = _ledger._names
    armed = [True]

    def listed(store: Any) -> Any:
        names = yield from listing(store)
        if armed:
            armed.pop()
            with kumo_crt.Repository.open(url(bucket), client=repository._client) as other:
                other.verify(level="full", record=True)
        return names

    monkeypatch.setattr(_ledger, "_names", listed)
    (health,) = repository.health()
    assert not armed
    assert len(keys(boto, bucket, "health/")) == 1
    assert health.damaged == (key,)


def test_readers_may_verify_too(s3: kumo_crt.S3Client, bucket: str, make: Make, boto: Any) -> None:
    with kumo_crt.Repository.create(url(bucket), client=s3, environment="prod") as repository:
        repository.backup(make("plain"))
    with kumo_crt.Repository.open(url(bucket), client=s3, environment="dev") as other:
        report = other.verify(level="full")
        assert (report.ok, report.recorded) == (True, False)
        for demanded in (
            lambda: other.verify(level="full", record=True),
            lambda: other.verify(level="restore", record=True),
            lambda: other.drill(record=True),
        ):
            with pytest.raises(kumo_crt.EnvironmentMismatchError, match=r"'prod'.*'dev'"):
                demanded()
    assert keys(boto, bucket, "health/") == set()


def test_combinations_that_make_no_sense(repository: kumo_crt.Repository, make: Make) -> None:
    repository.backup(make("one_key"))
    for options in (
        {"level": "stored", "max_bytes": 1},
        {"level": "quick", "subset": "oldest/2"},
        {"level": "full", "max_bytes": 0},
        {"level": "restore", "subset": "1/2"},
    ):
        with pytest.raises(ValueError, match=r"level|max_bytes"):
            repository.verify(**options)


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_alone")
def test_damage_is_told_by_keys_and_snapshots(
    repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str
) -> None:
    path = make("many_files")
    first, second = _two_snapshots(repository, path)
    shared = next(f for f in stored_files(first, "sst") if f.key in _objects(second))
    new = next(f for f in stored_files(second, "sst") if f.key not in _objects(first))
    state = _core.read_manifest(path / _core.read_current(path / "CURRENT"))
    for file in (shared, new):
        put(boto, bucket, key_of(file), flipped(get(boto, bucket, key_of(file))))
    for snapshot in ("latest", "all", second.id):
        report = repository.verify(snapshot, level="full")
        problems = {problem.key: problem for problem in report.problems}
        assert set(problems) == {shared.key, new.key}
        assert problems[key_of(shared)].snapshots == (first.id, second.id)
        assert problems[key_of(new)].snapshots == (second.id,)
        for file in (shared, new):
            sst = next(s for s in state.sst_files if f"{s.number:06d}.sst" == file.path)
            problem = problems[key_of(file)]
            assert (problem.smallest_key, problem.largest_key) == (
                sst.smallest_key,
                sst.largest_key,
            )
            assert problem.smallest_key is not None
            assert problem.smallest_key.startswith(b"key-")
            assert (problem.column_family, problem.path) == ("default", file.path)
    health = repository.health()
    assert health[0].damaged == (shared.key,)
    assert set(health[1].damaged) == {shared.key, new.key}
    assert health[0].last_verified is None


def test_damage_that_is_gone_again(
    repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str
) -> None:
    file = stored_files(repository.backup(make("plain")), "sst")[0]
    content = get(boto, bucket, key_of(file))
    delete(boto, bucket, key_of(file))
    assert [p.kind for p in repository.verify(level="quick").problems] == ["missing"]
    assert repository.health()[0].damaged == (file.key,)
    put(boto, bucket, key_of(file), content)
    # Ledgers tell time by the second.
    while repository.health()[0].damaged:
        assert repository.verify(level="full").ok


def test_blob_files(repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str) -> None:
    file = stored_files(repository.backup(make("blobs")), "blob")[0]
    delete(boto, bucket, key_of(file))
    (problem,) = repository.verify().problems
    assert (problem.path, problem.column_family) == (file.path, "default")
    assert problem.smallest_key is not None
    assert problem.largest_key is not None
    assert problem.smallest_key <= b"key-%08d" % 200 <= b"key-%08d" % 299 <= problem.largest_key


@pytest.mark.usefixtures("each_alone")
def test_one_damaged_manifest_among_others(
    repository: kumo_crt.Repository, make: Make, boto: Any, bucket: str
) -> None:
    first, second = _two_snapshots(repository, make("many_files"))
    replace_manifest(boto, bucket, first, b"{}")
    report = repository.verify("all", level="full")
    assert [(p.kind, p.snapshots) for p in report.problems] == [("manifest", (first.id,))]
    assert report.files == len(_objects(second))


# -- workers --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_alone")
def test_in_other_processes(
    repository: kumo_crt.Repository,
    make: Make,
    boto: Any,
    bucket: str,
    s3_server: S3Server,
) -> None:
    first, second = _two_snapshots(repository, make("many_files"))
    objects = _objects(first, second)
    good, bad, gone = stored_files(second, "sst")[:3]
    put(boto, bucket, key_of(bad), flipped(get(boto, bucket, key_of(bad))))
    delete(boto, bucket, key_of(gone))
    seen: list[tuple[int, int]] = []
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as executor:
        report = repository.verify(
            "all",
            level="full",
            executor=executor,
            progress=lambda done, total: seen.append((done, total)),
        )
        stored = repository.verify(level="stored", executor=executor)
    assert {(p.key, p.kind) for p in report.problems} == {
        (bad.key, "checksum"),
        (gone.key, "missing"),
    }
    assert {p.key for p in stored.problems} == {bad.key, gone.key}
    assert report.files == len(objects)
    assert report.bytes_read == sum(objects.values()) - bad.size - gone.size
    assert report.recorded
    assert seen[-1] == (sum(objects.values()), sum(objects.values()))
    assert good.key not in {p.key for p in report.problems}


class _Twice(concurrent.futures.Executor):
    """Runs everything twice, out of order, and what it is given has to be pickled."""

    def __init__(self) -> None:
        self.jobs: list[bytes] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        self.jobs.append(pickle.dumps((fn, args)))
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        for _ in range(2):
            function, arguments = pickle.loads(self.jobs[-1])
            result = pickle.loads(pickle.dumps(function(*arguments)))
        future.set_result(result)
        return future


@pytest.mark.usefixtures("each_alone")
def test_jobs_may_run_twice_and_tell_no_secrets(
    repository: kumo_crt.Repository, make: Make, s3_server: S3Server
) -> None:
    snapshot = repository.backup(make("many_files"))
    executor = _Twice()
    report = repository.verify(level="full", executor=executor)
    assert report.ok
    assert report.files == len(_objects(snapshot))
    assert len(executor.jobs) > 4
    for job in executor.jobs:
        _, (argument,) = pickle.loads(job)
        assert isinstance(argument, _job.VerifyJob)
        assert s3_server.secret_access_key not in repr(argument)
        assert s3_server.secret_access_key not in repr(argument.settings)


def test_a_worker_that_fails(repository: kumo_crt.Repository, make: Make) -> None:
    repository.backup(make("plain"))

    class Broken(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any, **kw: Any) -> concurrent.futures.Future[Any]:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_exception(concurrent.futures.BrokenExecutor("a worker died"))
            return future

    with pytest.raises(concurrent.futures.BrokenExecutor):
        repository.verify(level="full", executor=Broken())


def test_jobs_hold_everything_once() -> None:
    for sizes in ([], [5], [0] * 1000, [1 << 30] * 3, [1] * 700, [1 << 20, *[10] * 100]):
        files = _files(sizes)
        portions = list(_job.split(files))
        assert [file for portion in portions for file in portion] == files
        assert all(portions)
        assert all(len(portion) <= 256 for portion in portions)


def test_hashes_of_parts_are_fixed() -> None:
    """Another version must walk the same parts."""
    assert _selection.part_of("data/1f/sst-example-1.sst", 1000) == 632
