"""Pruning: what goes, what stays, what is told; and every way in which it is disturbed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup import _census, _inflight, _prune, _sweep
from kumo_crt.backup._inflight import LeaseState, Part
from kumo_crt.backup._store import Store
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    content_of,
    delete,
    flipped,
    get,
    key_of,
    keys,
    manifest_key,
    open_uploads,
    put,
    stored_files,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.support import databases
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def at_once() -> Iterator[None]:
    """One prune marks, the next deletes."""
    with without_waiting():
        yield


def _generations(repository: kumo_crt.Repository, path: Path, count: int) -> list[Any]:
    """Snapshots of a database that is compacted in between: they share no table file."""
    snapshots = []
    for number in range(count):
        db = Rdict(str(path), databases.options(small_files=True))
        databases.fill(db, 100 * number, 100 * number + 150)
        db.compact_range(None, None)
        db.close()
        snapshots.append(repository.backup(path))
    return snapshots


def _ids(repository: kumo_crt.Repository) -> list[str]:
    return [snapshot.id for snapshot in repository.snapshots()]


def _named(repository: kumo_crt.Repository) -> set[str]:
    return {key for snapshot in repository.snapshots() for key in snapshot.object_keys}


def _all_good(repository: kumo_crt.Repository) -> None:
    for snapshot in repository.snapshots():
        assert repository.verify(snapshot.id, level="full").ok


# -- what it does ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_snapshots_then_data(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("one_key")
    first, second, third = _generations(repository, path, 3)
    data = keys(boto, bucket, "data/")
    planned = repository.prune(keep_last=2, dry_run=True)
    assert keys(boto, bucket, "data/") == data
    assert _ids(repository) == [first.id, second.id, third.id]

    done = repository.prune(keep_last=2)
    assert done.removed == planned.removed == (first.id,)
    assert done.kept == planned.kept == {second.id: ("last",), third.id: ("last",)}
    assert _ids(repository) == [second.id, third.id]
    superfluous = first.object_keys - second.object_keys - third.object_keys
    sizes = {file.key: file.size for file in stored_files(first)}
    for report in (planned, done):
        assert report.deleted_objects == 0
        assert report.pending_objects == len(superfluous)
        assert report.pending_bytes == sum(sizes[key] for key in superfluous)
        assert report.pending_until is not None
    assert keys(boto, bucket, "data/") == data  # marked, not deleted
    assert len(keys(boto, bucket, "marks/")) == 1

    planned = repository.prune(dry_run=True)
    done = repository.prune()
    for report in (planned, done):
        assert report.removed == ()
        assert report.kept == {second.id: ("no rule",), third.id: ("no rule",)}
        assert report.deleted_objects == len(superfluous)
        assert report.deleted_bytes == sum(sizes[key] for key in superfluous)
        assert (report.pending_objects, report.pending_until) == (0, None)
    assert keys(boto, bucket, "data/") == _named(repository) == data - superfluous
    assert keys(boto, bucket, "marks/") == keys(boto, bucket, "inflight/") == set()
    _all_good(repository)
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == content_of(path)


def test_marks_have_to_be_half_an_hour_old(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    first, _ = _generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    data = keys(boto, bucket, "data/")
    for _ in range(3):
        report = repository.prune()
        assert report.deleted_objects == 0
        assert report.pending_objects == len(data - _named(repository)) > 0
        assert report.pending_until is not None
        left = report.pending_until - datetime.now(UTC)
        assert timedelta(minutes=29) < left < timedelta(minutes=31)
    assert keys(boto, bucket, "data/") == data
    assert len(keys(boto, bucket, "marks/")) == 1


def test_wait_does_both_steps(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = _generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    superfluous = len(keys(boto, bucket, "data/") - _named(repository))
    monkeypatch.setattr(_inflight, "grace", lambda: timedelta(seconds=0.5))
    told: list[tuple[int, int]] = []
    report = repository.prune(wait=True, progress=lambda *args: told.append(args))
    assert report.deleted_objects == superfluous > 0
    assert report.pending_objects == 0
    assert told[-1] == (1 + superfluous, 1 + superfluous)
    assert keys(boto, bucket, "data/") == _named(repository)
    assert keys(boto, bucket, "marks/") == keys(boto, bucket, "inflight/") == set()


@pytest.mark.usefixtures("at_once")
def test_databases_are_kept_by_themselves(repository: kumo_crt.Repository, make: Make) -> None:
    kept = []
    for name in ("plain", "one_key", "blobs"):
        path = make(name)
        repository.backup(path)
        kept.append(repository.backup(path).id)
    report = repository.prune(keep_last=1)
    assert _ids(repository) == kept == list(report.kept)
    assert len(report.removed) == 3
    _all_good(repository)


@pytest.mark.usefixtures("at_once")
def test_what_killed_backups_left_is_collected(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.backup(make("one_key"))

    def die(number: int, sent: Sent) -> None:
        if "/snapshots/" in sent.key and sent.operation == "PutObject":
            watch.kill()

    with pytest.raises(Killed), watched(s3, die) as watch:
        repository.backup(make("plain"))
    left = keys(boto, bucket, "data/") - _named(repository)
    assert left
    # Its pin protects it until it lapses, and so does the rule about what is new.
    for _ in range(2):
        report = repository.prune()
        assert report.protected_objects == len(left)
        assert report.deleted_objects == report.pending_objects == 0
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    assert repository.prune().pending_objects == len(left)
    assert keys(boto, bucket, "inflight/") == set()
    assert repository.prune().deleted_objects == len(left)
    assert keys(boto, bucket, "data/") == _named(repository)


@pytest.mark.usefixtures("at_once")
def test_a_mark_is_for_the_object_that_was_there(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """An object that came later under the same name has its own half hour."""
    first, _ = _generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    repository.prune()
    victim = key_of(stored_files(first, "sst")[0])
    content = get(boto, bucket, victim)
    (mark,) = keys(boto, bucket, "marks/")
    document = json.loads(get(boto, bucket, mark))
    delete(boto, bucket, mark)
    put(boto, bucket, mark.replace("/2", "/1"), json.dumps(document).encode())
    with pytest.MonkeyPatch.context() as patch:
        real = _census.read_marks

        def as_if_older(store: Any) -> Any:
            marks, worthless = yield from real(store)
            hour = timedelta(hours=1)
            return [type(m)(m.key, m.written - hour, m.objects) for m in marks], worthless

        patch.setattr(_census, "read_marks", as_if_older)
        report = repository.prune()
    assert report.deleted_objects == 0
    assert report.pending_objects > 0
    assert get(boto, bucket, victim) == content
    assert repository.prune().deleted_objects == report.pending_objects


def test_other_objects_are_left_alone(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    with without_waiting():
        inner = kumo_crt.Repository.create(url(bucket, f"{PREFIX}/data/inner"), client=s3)
        inner.backup(make("one_key"))
        repository.backup(make("plain"))
        boto.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/data/inner/data/00/x")
        for name in ("data/notes.txt", "data/00/a b", "pins/x", "marks/x", "health/x", "notes"):
            put(boto, bucket, name, b"?")
        before = keys(boto, bucket)
        for _ in range(3):
            repository.prune(keep_last=1, delete_versions=True)
        # A mark that is none is worth nothing.
        assert keys(boto, bucket) == before - {"marks/x"}
        assert len(open_uploads(boto, bucket)) == 1
        assert inner.verify(level="full").ok


@pytest.mark.usefixtures("at_once")
def test_many_objects_go_in_portions(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = repository.backup(make("many_files"))
    kept = repository.backup(make("one_key"))
    repository.delete_snapshot(snapshot.id)
    monkeypatch.setattr(_prune, "_MARK_SIZE", 15)
    monkeypatch.setattr(_sweep, "PORTION", 12)
    monkeypatch.setattr(_sweep, "DELETE_BATCH", 5)
    gone = snapshot.object_keys - kept.object_keys
    assert repository.prune().pending_objects == len(gone) > 40
    assert len(keys(boto, bucket, "marks/")) == -(-len(gone) // 15)
    with watched(s3) as watch:
        assert repository.prune().deleted_objects == len(gone)
    sweeps = [s for s in watch.sent if "/sweep-" in s.key and s.operation == "PutObject"]
    assert len(sweeps) == -(-len(gone) // 12)
    assert keys(boto, bucket, "data/") == _named(repository)


def test_listings_of_many_objects(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than one page: then the rest is listed by prefix, and nothing twice or never."""
    snapshot = repository.backup(make("many_files"))
    repository.delete_snapshot(snapshot.id)
    real = Store.list_page

    def list_page(self: Any, relative: str, *args: Any) -> Any:
        page, token = yield from real(self, relative, *args)
        if relative == "data/":
            return page[:7], "more"
        return page, token

    monkeypatch.setattr(Store, "list_page", list_page)
    assert repository.prune().pending_objects == len(snapshot.object_keys)


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["damaged", "of a newer version", "stray"])
def test_a_manifest_that_cannot_be_read_stops_it(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    kind: str,
) -> None:
    first, second, third = _generations(repository, make("one_key"), 3)
    repository.delete_snapshot(first.id)
    repository.prune()
    content = get(boto, bucket, manifest_key(second))
    bad = manifest_key(second)
    if kind == "damaged":
        put(boto, bucket, bad, flipped(content, 3))
    elif kind == "stray":
        bad = "snapshots/20991231T000000Z-v2.json"
        put(boto, bucket, bad, b"{}")
    else:
        put(boto, bucket, bad, content.replace(b'"version":1', b'"version":2'))
    before = keys(boto, bucket)
    for dry_run in (True, False):
        with (
            watched(s3) as watch,
            pytest.raises(kumo_crt.FormatError, match=rf"{bad}.*nothing was deleted"),
        ):
            repository.prune(keep_last=1, dry_run=dry_run)
        deleted = [s for s in watch.sent if s.operation.startswith("Delete")]
        assert all("/inflight/prune-" in sent.key for sent in deleted)
    assert keys(boto, bucket) == before
    if kind != "stray":
        # The way out.
        repository.delete_snapshot(second.id)
        repository.prune(keep_last=1)
        repository.prune(keep_last=1)
        assert _ids(repository) == [third.id]
        assert keys(boto, bucket, "data/") == _named(repository)


@pytest.mark.usefixtures("at_once")
def test_a_pin_that_cannot_be_read_stops_it_until_it_lapses(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = _generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    repository.prune()
    pin = f"inflight/backup-{'ba' * 16}-000000.json"
    put(boto, bucket, pin, b"?")
    before = keys(boto, bucket)
    for dry_run in (True, False):
        with pytest.raises(kumo_crt.FormatError, match=rf"{pin}.*if there is none, delete s3://"):
            repository.prune(dry_run=dry_run)
    assert keys(boto, bucket) == before
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    assert repository.prune().deleted_objects > 0
    assert keys(boto, bucket, "inflight/") == set()


def test_rules_that_make_no_sense(repository: kumo_crt.Repository, s3: kumo_crt.S3Client) -> None:
    with watched(s3) as watch:
        wrong: list[dict[str, Any]] = [
            {"keep_last": -2},
            {"keep_daily": 1.5},
            {"keep_within": "soon"},
        ]
        for rules in wrong:
            with pytest.raises(ValueError, match=next(iter(rules))):
                repository.prune(**rules)
    assert watch.sent == []


def test_another_environment(s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make) -> None:
    prod = kumo_crt.Repository.create(url(bucket), client=s3, environment="prod")
    snapshot = prod.backup(make("one_key"))
    before = keys(boto, bucket)
    other = kumo_crt.Repository(url(bucket), client=s3, environment="dev")
    with watched(s3) as watch:
        for call in (
            lambda: other.prune(keep_last=1),
            lambda: other.prune(dry_run=True),
            lambda: other.delete_snapshot(snapshot.id),
            lambda: other.pin(snapshot.id),
            lambda: other.unpin(snapshot.id),
        ):
            with pytest.raises(kumo_crt.EnvironmentMismatchError, match=r"'prod'.*'dev'"):
                call()
    assert {sent.operation for sent in watch.sent} == {"GetObject"}
    assert keys(boto, bucket) == before


@pytest.mark.parametrize("call", ["prune", "delete_snapshot", "pin", "unpin"])
def test_no_repository(s3: kumo_crt.S3Client, bucket: str, call: str) -> None:
    repository = kumo_crt.Repository(url(bucket), client=s3)
    arguments = () if call == "prune" else ("20261123T060000Z-0a1b2c3d",)
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no repository here"):
        getattr(repository, call)(*arguments)


# -- disturbed ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_killed_at_every_request(
    s3_server: S3Server,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("one_key")
    number = 0
    with kumo_crt.S3Client(**s3_server.client_arguments()) as mortal:
        while True:
            place = url(bucket, f"{PREFIX}-{number}")
            repository = kumo_crt.Repository.create(place, client=s3)
            first, _, third = _generations(repository, path, 3)
            repository.delete_snapshot(first.id)
            repository.prune()  # marks the first's data

            def die(at: int, sent: Sent, wanted: int = number) -> None:
                if at == wanted:
                    watch.kill()

            with watched(mortal, die) as watch:
                try:
                    kumo_crt.Repository(place, client=mortal).prune(keep_last=1)
                except Killed:
                    killed = True
                else:
                    killed = False
            _all_good(repository)
            again = repository.backup(path)
            assert repository.verify(again.id, level="full").ok
            with monkeypatch.context() as patch:
                if killed and number > 1:
                    patch.setattr(_prune, "_TIE", timedelta(0))
                    with pytest.raises(kumo_crt.RepositoryLockedError, match="takes over"):
                        repository.prune()
                patch.setattr(_inflight, "MARGIN", -1000.0)
                for _ in range(2):
                    repository.prune(keep_last=1)
            assert _ids(repository) == [again.id]
            assert repository.verify(level="full").ok
            left = {item.key for item in s3.list_objects(bucket, f"{PREFIX}-{number}/")}
            left = {key.removeprefix(f"{PREFIX}-{number}/") for key in left}
            assert {key for key in left if not key.startswith("health/")} == {
                "kumo-repository.json",
                manifest_key(again),
                *again.object_keys,
            }
            assert third.id not in _ids(repository)
            if not killed:
                break
            number += 1
    assert number > 20


@pytest.mark.usefixtures("at_once")
def test_a_second_prune_at_any_time(
    s3_server: S3Server,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    path = make("one_key")
    number = locked = 0
    with kumo_crt.S3Client(**s3_server.client_arguments()) as another:
        while True:
            _generations(repository, path, 2)

            def second(at: int, sent: Sent, wanted: int = number) -> None:
                nonlocal locked
                if at == wanted:
                    try:
                        kumo_crt.Repository(url(bucket), client=another).prune(keep_last=1)
                    except kumo_crt.RepositoryLockedError:
                        locked += 1

            with watched(s3, second) as watch:
                repository.prune(keep_last=1)
            _all_good(repository)
            assert len(_ids(repository)) == 1
            if number >= len(watch.sent):
                break
            number += 2
    assert locked > 5
    repository.prune()
    repository.prune()
    assert keys(boto, bucket, "data/") == _named(repository)
    assert keys(boto, bucket, "inflight/") == set()


def test_a_prune_of_the_dead_is_taken_over(
    repository: kumo_crt.Repository, boto: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"inflight/prune-{'de' * 16}-000000.json"
    put(boto, bucket, dead, _inflight.encode_lease("prune", "kumo_crt 0", "kv-7", 4711))
    monkeypatch.setattr(_prune, "_TIE", timedelta(0))
    with pytest.raises(kumo_crt.RepositoryLockedError, match=r"process 4711 on 'kv-7'.*takes over"):
        repository.prune()
    assert keys(boto, bucket, "inflight/") == {dead}
    monkeypatch.setattr(_inflight, "MARGIN", -1000.0)
    repository.prune()
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.usefixtures("at_once")
def test_it_stops_when_its_lease_is_lost(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = _generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    repository.prune()
    data = keys(boto, bucket, "data/")
    # The process stands still after its sweep, for longer than its lease.
    real = _inflight.boottime
    stood = 0.0
    monkeypatch.setattr(_inflight, "boottime", lambda: real() + stood)

    def stand_still(number: int, sent: Sent) -> None:
        nonlocal stood
        if sent.operation == "ListObjectsV2" and sent.key.endswith("snapshots/") and number > 5:
            stood = 1000.0

    with watched(s3, stand_still), pytest.raises(kumo_crt.LeaseExpiredError, match="run it again"):
        repository.prune()
    assert keys(boto, bucket, "data/") == data

    # Or another prune has taken it for dead.
    stood = 0.0
    for key in keys(boto, bucket, "inflight/"):
        delete(boto, bucket, key)

    def remove(number: int, sent: Sent) -> None:
        if "/sweep-" in sent.key:
            for key in keys(boto, bucket, "inflight/"):
                delete(boto, bucket, key)

    with watched(s3, remove), pytest.raises(kumo_crt.LeaseExpiredError, match="another prune"):
        repository.prune()
    assert keys(boto, bucket, "data/") == data


@pytest.mark.usefixtures("at_once")
def test_a_deletion_that_may_still_arrive_stays_announced(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    first = repository.backup(path)
    old = path.with_name("old")
    shutil.copytree(path, old)
    (second,) = _generations(repository, path, 1)
    repository.delete_snapshot(first.id)
    repository.prune()
    condemned = first.object_keys - second.object_keys

    def fail(number: int, sent: Sent) -> None:
        if sent.operation == "DeleteObjects":
            raise kumo_crt.TransportError("nobody knows whether it arrived")

    with watched(s3, fail), pytest.raises(kumo_crt.TransportError, match="nobody knows"):
        repository.prune()
    (left,) = keys(boto, bucket, "inflight/")
    assert "/sweep-" in left
    # Who backs up the same data meanwhile does not rely on it: the late deletion harms nobody.
    again = repository.backup(old)
    assert again.uploaded_bytes > 0
    for key in condemned:
        delete(boto, bucket, key)
    _all_good(repository)


def test_leases_by_the_clock_of_the_service() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def lease(*ages: float | None) -> LeaseState:
        times = [None if age is None else now - timedelta(seconds=age) for age in ages]
        parts = [Part(f"p{n}", "backup", "x", n, time) for n, time in enumerate(times)]
        return LeaseState("x", parts)

    # Held for 900 s from the newest part, and honoured for 900 s more; also by a clock that is off.
    assert not lease(0).has_lapsed(now)
    assert not lease(-500).has_lapsed(now)
    assert not lease(1799).has_lapsed(now)
    assert lease(1801).has_lapsed(now)
    assert not lease(100_000, 1799).has_lapsed(now)
    assert lease(100_000, 1801).has_lapsed(now)
    assert not lease(100_000, None).has_lapsed(now)
    assert lease(100_000, 5).began == now - timedelta(seconds=100_000)


@pytest.mark.usefixtures("at_once")
def test_the_clock_of_this_machine_does_not_matter(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _generations(repository, make("one_key"), 2)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=tz)

    for module in ("_prune", "_inflight", "_lease", "_census", "_keeping", "_store", "_retention"):
        name = f"kumo_crt.backup.{module}.datetime"
        monkeypatch.setattr(name, Wrong, raising=False)
    # Measured from 2001, both would be in the future.
    report = repository.prune(keep_within="1h", dry_run=True)
    assert set(report.kept) == {first.id, second.id}
    assert repository.prune(keep_last=1).removed == (first.id,)


# -- uploads --------------------------------------------------------------------------------------


def _upload(boto: Any, bucket: str, key: str) -> None:
    boto.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{key}")


def test_unfinished_uploads_are_aborted(
    repository: kumo_crt.Repository, boto: Any, bucket: str, library: Library
) -> None:
    _upload(boto, bucket, "data/00/sst-x-1.sst")
    _upload(boto, bucket, "snapshots/20261123T060000Z-0a1b2c3d.json")
    _upload(boto, bucket, "other/data/00/sst-x-1.sst")
    assert repository.prune().aborted_uploads == 0  # too young
    with without_waiting():
        assert repository.prune(dry_run=True).aborted_uploads == 0
        assert repository.prune().aborted_uploads == 2
    assert open_uploads(boto, bucket) == [f"{PREFIX}/other/data/00/sst-x-1.sst"]
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.parametrize("protect_new", [False, True], ids=["named", "new"])
def test_uploads_of_running_backups_stay(
    repository: kumo_crt.Repository, boto: Any, bucket: str, protect_new: bool
) -> None:
    key = "data/00/sst-x-1.sst.0a1b2c3d"
    named = [] if protect_new else [_inflight.object_hash("data/99/sst-x-1.sst")]
    pin = f"inflight/backup-{'ba' * 16}-000000.json"
    put(boto, bucket, pin, _inflight.encode_lease("backup", "kumo_crt 0", "h", 1, named))
    _upload(boto, bucket, key)
    _upload(boto, bucket, "data/00/sst-y-1.sst")
    with without_waiting(protect_new=protect_new):
        assert repository.prune().aborted_uploads == (0 if protect_new else 1)
        assert f"{PREFIX}/{key}" in open_uploads(boto, bucket)
        delete(boto, bucket, pin)
        repository.prune()
    assert open_uploads(boto, bucket) == []
