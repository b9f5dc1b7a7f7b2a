"""What a backup costs follows what has changed, however large the database and the repository."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt._engine import Task
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._layout import Location
from kumo_crt.backup._store import _known
from kumo_crt.s3 import ObjectInfo
from tests.backup.boundaries import watched
from tests.backup.conftest import Make
from tests.backup.helpers import PREFIX, closed, key_of, manifest, put, remove, stored_files, url
from tests.support import databases
from tests.support.data import MIB
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def counted(
    s3_via_proxy: kumo_crt.S3Client, bucket: str, proxy: FaultProxy
) -> Iterator[kumo_crt.Repository]:
    """An empty repository, behind the proxy that counts what really goes over the wire."""
    with kumo_crt.Repository.create(url(bucket), client=s3_via_proxy) as created:
        yield created


def _lists(proxy: FaultProxy) -> list[str]:
    return [r.target for r in proxy.requests if "list-type=2" in r.target]


def test_unchanged_databases_in_turn(
    counted: kumo_crt.Repository, proxy: FaultProxy, make: Make
) -> None:
    """Each finds its own newest snapshot by its id, however many others have come since."""
    names = ("one_key", "plain", "blobs", "column_families", "many_files", "unflushed_wal")
    paths = [make(name) for name in names]
    first = [counted.backup(path) for path in paths]
    for path, before in zip(paths, first, strict=True):
        # One in 256 pairs looks alike by its id, and is told apart by its manifest.
        alike = sum(_layout.may_be_of(other.id, before.db_id) for other in first) - 1
        proxy.requests.clear()
        again = counted.backup(path)
        assert (again.db_id, again.uploaded_bytes) == (before.db_id, 0)
        assert len(proxy.requests) <= 10 + alike, [f"{r.method} {r.target}" for r in proxy.requests]


def test_one_that_was_not_backed_up_for_long(
    counted: kumo_crt.Repository, boto: Any, bucket: str, proxy: FaultProxy, make: Make
) -> None:
    """Its snapshot is older than those of others that are in the first listing."""
    path = make("plain")
    old = counted.backup(path)
    content = manifest(boto, bucket, old)
    past = old.created_at - timedelta(days=20)
    content["id"] = f"{past:%Y%m%dT%H%M%SZ}{old.id[16:]}"
    remove(boto, bucket, old)
    for folder in ("snapshots", "spares"):
        put(boto, bucket, f"{folder}/{content['id']}.json", closed(content))
    others = [make(name) for name in ("one_key", "blobs")]
    unlike = [o for o in others if not _layout.may_be_of(counted.backup(o).id, old.db_id)]
    for _ in range(4):
        counted.backup(unlike[0])
    proxy.requests.clear()
    assert counted.backup(path).uploaded_bytes == 0
    assert [r.target for r in proxy.requests if "/data/" in r.target] == []


def test_an_unchanged_database_of_many_files(
    counted: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    bucket: str,
    proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    path = tmp_path / "database"
    db = Rdict(str(path), databases.options(small_files=True))
    for number in range(400):
        db[b"key-%08d" % number] = databases.value_of(number, 50)
        db.flush()
    first = counted.backup(db)
    assert len(stored_files(first, "sst")) == 400
    proxy.requests.clear()
    second = counted.backup(db)
    assert second.uploaded_bytes == 0
    assert len(proxy.requests) <= 10, [f"{r.method} {r.target}" for r in proxy.requests]
    assert [r for r in proxy.requests if "/data/" in r.target] == []
    assert not any("data%2F" in target for target in _lists(proxy))

    # Also when the repository is opened for it, as by the command.
    proxy.requests.clear()
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as opened:
        assert opened.backup(db).uploaded_bytes == 0
    assert len(proxy.requests) <= 10, [f"{r.method} {r.target}" for r in proxy.requests]

    # One file more costs one object more.
    db[b"new"] = b"new"
    db.flush()
    db.close()
    proxy.requests.clear()
    third = counted.backup(path)
    new = third.object_keys - second.object_keys
    assert third.uploaded_bytes == sum(f.size for f in third.files if f.key in new)
    sent = [r for r in proxy.requests if "/data/" in r.target]
    assert {r.target.split("/data/")[1] for r in sent} == {k.removeprefix("data/") for k in new}
    assert len(proxy.requests) <= 11 + len(sent)


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_an_unchanged_database_is_hardly_read(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    path = tmp_path / "database"
    db = Rdict(str(path), databases.options())
    databases.fill(db, 0, 320, value_size=100_000)
    db.close()
    size = sum(file.stat().st_size for file in path.iterdir())
    assert size > 30 << 20
    repository.backup(path)
    repository.backup(path)  # with everything imported
    before = _bytes_read()
    assert repository.backup(path).uploaded_bytes == 0
    assert _bytes_read() - before < size / 100


def test_no_cycle_keeps_the_client_when_all_is_done(
    s3_server: S3Server, bucket: str, make: Make, tmp_path: Path
) -> None:
    """Its threads and connections would live on, and the process's exit would wait for them."""
    gc.disable()
    try:
        client = kumo_crt.S3Client(**s3_server.client_arguments())
        native = weakref.ref(client._open())
        with kumo_crt.Repository.create(url(bucket), client=client) as repository:
            repository.backup(make("one_key"))
            repository.restore(tmp_path / "restored")
            repository.verify(level="full")
            with pytest.raises(kumo_crt.SnapshotNotFoundError):
                repository.restore(tmp_path / "none", "20260101T000000Z-00000000")
        client.close()
        del client, repository
        assert native() is None
    finally:
        gc.enable()


def test_a_small_single_object_is_asked_for_only_where_one_is_known(
    counted: kumo_crt.Repository, proxy: FaultProxy, make: Make
) -> None:
    """Below 1 MiB: an unchanged one costs a HEAD, not its body; a new one costs no HEAD."""
    path = make("plain")
    counted.backup(path)  # what is said of files of their own has no part in it
    for unchanged in (False, True, True):
        proxy.requests.clear()
        snapshot = counted.backup(path, single_object=True)
        (key,) = snapshot.object_keys
        size = snapshot.uploaded_bytes + snapshot.reused_bytes
        assert snapshot.reused_bytes == (size if unchanged else 0)
        assert 500_000 < size < MIB
        asked = [r.method for r in proxy.requests if r.target.endswith(key)]
        assert asked == (["HEAD"] if unchanged else ["PUT"])
        assert len(proxy.requests) <= 12  # the third reads three manifests
        sent = sum(r.size for r in proxy.requests) - (0 if unchanged else size)
        assert 0 < sent < 20_000  # pin, manifest and spare
    db = Rdict(str(path), databases.options())
    db[b"new"] = b"new"
    db.close()
    proxy.requests.clear()
    (other,) = counted.backup(path, single_object=True).object_keys
    assert other != key
    assert [r.method for r in proxy.requests if "/data/" in r.target] == ["PUT"]


def test_a_small_single_object_that_is_gone_is_sent_again(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    (key,) = repository.backup(path, single_object=True).object_keys
    for content in (None, b"something else"):
        boto.delete_object(Bucket=bucket, Key=f"{PREFIX}/{key}")
        if content is not None:
            boto.put_object(Bucket=bucket, Key=f"{PREFIX}/{key}", Body=content)
        assert repository.backup(path, single_object=True).reused_bytes == 0
        assert repository.verify(level="full").ok


# -- the newest snapshot of very many -------------------------------------------------------------

_NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def _id(moment: datetime, number: int = 0) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}-{number:08x}"


class _Listing:
    """Stands in for `Store`: a listing of ids that are made up, a thousand a page."""

    location = Location("bucket", "kv/")

    def __init__(self, moments: list[datetime]) -> None:
        self.ids = sorted(_id(moment, n % 0xFFF) for n, moment in enumerate(moments))
        self.requests = 0

    def list_page(
        self, relative: str, start_after: str | None = None, token: str | None = None
    ) -> Task[tuple[list[ObjectInfo], str | None]]:
        self.requests += 1
        yield from ()
        keys = [f"{relative}{snapshot_id}.json" for snapshot_id in self.ids]
        after = token or start_after
        page = [key for key in keys if after is None or key > after][:1000]
        more = page[-1] if page and page[-1] != keys[-1] else None
        return [ObjectInfo(f"kv/{key}", 1, "", None) for key in page], more


def _run(task: Task[Any]) -> Any:
    with pytest.raises(StopIteration) as end:
        next(task)
    return end.value.value


def _every(step: timedelta, count: int, newest: timedelta = timedelta(0)) -> list[datetime]:
    return [_NOW - newest - number * step for number in range(count)]


@pytest.mark.parametrize(
    ("moments", "requests"),
    [
        pytest.param([], 3, id="none"),
        pytest.param(_every(timedelta(days=1), 1), 1, id="one"),
        pytest.param(_every(timedelta(days=1), 5_000), 1, id="daily"),
        pytest.param(_every(timedelta(hours=1), 50_000), 1, id="hourly"),
        pytest.param(_every(timedelta(days=7), 1_000, timedelta(days=6)), 2, id="weekly"),
        pytest.param(_every(timedelta(minutes=1), 20_000), 2, id="every minute"),
        pytest.param(_every(timedelta(seconds=1), 100_000), 4, id="every second"),
        pytest.param(_every(timedelta(hours=1), 900, timedelta(days=900)), 3, id="long ago"),
        pytest.param([_NOW + timedelta(days=n) for n in range(300)], 1, id="in the future"),
        pytest.param(_every(timedelta(0), 3_000), 8, id="thousands in one second"),
    ],
)
def test_the_newest_of_very_many(moments: list[datetime], requests: int) -> None:
    for off in (timedelta(0), timedelta(hours=-20), timedelta(hours=20)):
        listing: Any = _Listing(moments)
        found = _run(_known.latest_id(listing, _NOW + off))
        assert found == (listing.ids[-1] if moments else None)
        # A clock that is off costs requests, and nothing else.
        assert off or listing.requests <= requests


def test_a_backup_beside_a_thousand_snapshots(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str, make: Make
) -> None:
    path = make("one_key")
    first = repository.backup(path)
    old = [_id(moment) for moment in _every(timedelta(days=1), 1_100, timedelta(days=1))]

    def put(snapshot_id: str) -> None:
        s3.put_object(bucket, f"{PREFIX}/snapshots/{snapshot_id}.json", b"")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, old))
    with watched(s3) as watch:
        second = repository.backup(path)
    assert second.uploaded_bytes == 0
    assert {key_of(f) for f in stored_files(second)} == {key_of(f) for f in stored_files(first)}
    assert len(watch.sent) <= 10
    assert repository.verify().snapshot == second.id


@pytest.mark.parametrize("connections", [1, 16])
def test_a_restore_asks_for_as_few_pieces_as_keep_its_connections_busy(
    s3_server: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path, connections: int
) -> None:
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, part_size=5 * MIB, max_connections=connections
    )
    database, target = tmp_path / "database", tmp_path / "restored"
    with Rdict(str(database)) as db:
        for number in range(42):
            db[b"%d" % number] = os.urandom(MIB)
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.create(url(bucket), client=client) as repository,
    ):
        snapshot = repository.backup(database)
        proxy.requests.clear()
        repository.restore(target)
        [file] = stored_files(snapshot, "sst")
        asked = [r for r in proxy.requests if file.key and r.target.endswith(file.key)]
    assert 42 * MIB < file.size < 43 * MIB
    assert len(asked) == (4 if connections == 1 else 9)  # of 11 MiB, and of 5
    assert (target / file.path).read_bytes() == (database / file.path).read_bytes()
