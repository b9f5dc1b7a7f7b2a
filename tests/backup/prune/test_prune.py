"""Pruning: what goes, what stays, what is told; and every way in which it is disturbed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _census, _inflight
from kumo_crt.backup._prune import _prune, _sweep
from kumo_crt.backup._store._store import Store
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Make
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
from tests.backup.pruning import all_good, generations, ids, named

pytestmark = pytest.mark.servers("seaweed-http")


# -- what it does ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_snapshots_then_data(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("one_key")
    first, second, third = generations(repository, path, 3)
    data = keys(boto, bucket, "data/")
    planned = repository.prune(keep_last=2, dry_run=True)
    assert keys(boto, bucket, "data/") == data
    assert ids(repository) == [first.id, second.id, third.id]

    done = repository.prune(keep_last=2)
    assert done.removed == planned.removed == (first.id,)
    assert done.kept == planned.kept == {second.id: ("last",), third.id: ("last",)}
    assert ids(repository) == [second.id, third.id]
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
    assert keys(boto, bucket, "data/") == named(repository) == data - superfluous
    assert keys(boto, bucket, "marks/") == keys(boto, bucket, "inflight/") == set()
    all_good(repository)
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == content_of(path)


def test_marks_have_to_be_half_an_hour_old(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    first, _ = generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    data = keys(boto, bucket, "data/")
    for _ in range(3):
        report = repository.prune()
        assert report.deleted_objects == 0
        assert report.pending_objects == len(data - named(repository)) > 0
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
    first, _ = generations(repository, make("one_key"), 2)
    repository.delete_snapshot(first.id)
    superfluous = len(keys(boto, bucket, "data/") - named(repository))
    monkeypatch.setattr(_inflight, "grace", lambda: timedelta(seconds=0.5))
    told: list[tuple[int, int]] = []
    report = repository.prune(wait=True, progress=lambda *args: told.append(args))
    assert report.deleted_objects == superfluous > 0
    assert report.pending_objects == 0
    assert told[-1] == (1 + superfluous, 1 + superfluous)
    assert keys(boto, bucket, "data/") == named(repository)
    assert keys(boto, bucket, "marks/") == keys(boto, bucket, "inflight/") == set()


@pytest.mark.usefixtures("at_once")
def test_databases_are_kept_by_themselves(repository: kumo_crt.Repository, make: Make) -> None:
    kept = []
    for name in ("plain", "one_key", "blobs"):
        path = make(name)
        repository.backup(path)
        kept.append(repository.backup(path).id)
    report = repository.prune(keep_last=1)
    assert ids(repository) == kept == list(report.kept)
    assert len(report.removed) == 3
    all_good(repository)


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
    left = keys(boto, bucket, "data/") - named(repository)
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
    assert keys(boto, bucket, "data/") == named(repository)


@pytest.mark.usefixtures("at_once")
def test_a_mark_is_for_the_object_that_was_there(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """An object that came later under the same name has its own half hour."""
    first, _ = generations(repository, make("one_key"), 2)
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
@pytest.mark.usefixtures("each_alone")
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
    assert keys(boto, bucket, "data/") == named(repository)


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
    first, second, third = generations(repository, make("one_key"), 3)
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
        assert ids(repository) == [third.id]
        assert keys(boto, bucket, "data/") == named(repository)


@pytest.mark.usefixtures("at_once")
def test_a_pin_that_cannot_be_read_stops_it_until_it_lapses(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = generations(repository, make("one_key"), 2)
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
