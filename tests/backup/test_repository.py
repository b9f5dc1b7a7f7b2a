"""A repository: creating and opening it, its snapshots, what a backup tells and obeys."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._format import _layout
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.helpers import (
    keys,
    leftovers,
    manifest_key,
    remove,
    replace_manifest,
    stored_files,
    tree,
    url,
)
from tests.support.servers import S3Server

# -- creating and opening -------------------------------------------------------------------------


def test_create_and_open(s3: kumo_crt.S3Client, bucket: str, make: Make) -> None:
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match=r"no repository here.*create"):
        kumo_crt.Repository.open(url(bucket), client=s3)
    created = kumo_crt.Repository.create(url(bucket), client=s3)
    with pytest.raises(kumo_crt.RepositoryError, match="already: open it"):
        kumo_crt.Repository.create(url(bucket), client=s3)
    snapshot = created.backup(make("one_key"))
    opened = kumo_crt.Repository.open(url(bucket), client=s3)
    assert opened.snapshots() == [snapshot] == [created.snapshot()]


@pytest.mark.servers("seaweed-http")
def test_nothing_works_without_a_repository(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    repository = kumo_crt.Repository(url(bucket), client=s3)
    path = make("one_key")
    for call in (
        lambda: repository.backup(path),
        lambda: repository.snapshots(),
        lambda: repository.snapshot(),
        lambda: repository.verify(),
        lambda: repository.restore(tmp_path / "restored"),
    ):
        with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no repository here"):
            call()
    assert keys(boto, bucket) == set()
    assert not (tmp_path / "restored").exists()


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "bucket/prefix",
        "https://bucket/prefix",
        "s3:///prefix",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "s3://bucket/./b",
        "s3://bucket/a?versionId=1",
        "s3://bucket/\udcff",
        "s3://bucket/" + 257 * "ü",
    ],
)
def test_urls_that_are_none(s3: kumo_crt.S3Client, bad: str) -> None:
    for make_one in (kumo_crt.Repository, kumo_crt.Repository.create, kumo_crt.Repository.open):
        with pytest.raises(ValueError, match="repository"):
            make_one(bad, client=s3)


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize(
    "form",
    [
        "s3://{}",
        "s3://{}/",
        "s3://{}/a/b/c/",
        "s3://{}/a b#ü+",
        pytest.param("s3://{}/" + "/".join([127 * "p"] * 4), id="long"),
    ],
)
def test_prefixes(
    s3: kumo_crt.S3Client, bucket: str, make: Make, tmp_path: Path, form: str
) -> None:
    repository = kumo_crt.Repository.create(form.format(bucket), client=s3)
    repository.backup(make("one_key"))
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert len(repository.snapshots()) == 1


@pytest.mark.servers("seaweed-http")
def test_repositories_beside_each_other(s3: kumo_crt.S3Client, bucket: str, make: Make) -> None:
    # One prefix begins with the other.
    first = kumo_crt.Repository.create(f"s3://{bucket}/kv", client=s3)
    second = kumo_crt.Repository.create(f"s3://{bucket}/kv2", client=s3)
    inner = kumo_crt.Repository.create(f"s3://{bucket}/kv/snapshots", client=s3)
    path = make("one_key")
    for repository in (second, inner):
        repository.backup(path)
    assert first.snapshots() == []
    assert len(second.snapshots()) == len(inner.snapshots()) == 1


@pytest.mark.servers("seaweed-http")
def test_missing_bucket(s3: kumo_crt.S3Client, make: Make) -> None:
    nowhere = "s3://there-is-no-such-bucket/kv"
    with pytest.raises(kumo_crt.NotFoundError, match="Create the bucket"):
        kumo_crt.Repository.create(nowhere, client=s3)
    with pytest.raises(kumo_crt.NotFoundError, match="Create the bucket"):
        kumo_crt.Repository.open(nowhere, client=s3)
    with pytest.raises(kumo_crt.NotFoundError):
        kumo_crt.Repository(nowhere, client=s3).backup(make("one_key"))


@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_wrong_credentials(
    s3_server: S3Server, repository: kumo_crt.Repository, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("one_key")
    repository.backup(path)
    before = tree(tmp_path)
    arguments = s3_server.client_arguments(secret_access_key="not-the-secret")
    with kumo_crt.S3Client(**arguments) as stranger:
        other = kumo_crt.Repository(url(bucket), client=stranger)
        for call in (
            lambda: kumo_crt.Repository.open(url(bucket), client=stranger),
            lambda: kumo_crt.Repository.create(url(bucket), client=stranger),
            lambda: other.backup(path),
            lambda: other.restore(tmp_path / "restored"),
            lambda: other.verify(),
            lambda: other.snapshots(),
        ):
            with pytest.raises(kumo_crt.AccessDeniedError, match="secret access key"):
                call()
    assert tree(tmp_path) == before


@pytest.mark.servers("seaweed-http")
def test_a_client_of_its_own(
    s3_server: S3Server, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with kumo_crt.Repository.create(url(bucket)) as repository:
        repository.backup(make("one_key"))
    with pytest.raises(ValueError, match="closed"):
        repository.snapshots()
    with pytest.raises(kumo_crt.RepositoryError):
        kumo_crt.Repository.create(url(bucket))
    with kumo_crt.Repository.open(url(bucket)) as repository:
        assert len(repository.snapshots()) == 1


# -- environments ---------------------------------------------------------------------------------


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("by_variable", [False, True])
def test_another_environment_is_refused_before_anything_is_written(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_variable: bool,
) -> None:
    kumo_crt.Repository.create(url(bucket), client=s3, environment="prod")
    path = make("one_key")
    if by_variable:
        monkeypatch.setenv("KUMO_ENVIRONMENT", "dev")
        other = kumo_crt.Repository(url(bucket), client=s3)
    else:
        other = kumo_crt.Repository(url(bucket), client=s3, environment="dev")
    for dry_run in (False, True):
        with pytest.raises(kumo_crt.EnvironmentMismatchError, match=r"'prod'.*'dev'"):
            other.backup(path, dry_run=dry_run)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    assert leftovers(tmp_path) == []
    monkeypatch.delenv("KUMO_ENVIRONMENT", raising=False)
    for same in ("prod", None):
        kumo_crt.Repository.open(url(bucket), client=s3, environment=same).backup(path)
    # Restoring prod's data in dev is what people do; only writing is refused.
    other.restore(tmp_path / "restored")


# -- snapshots ------------------------------------------------------------------------------------


def test_snapshots_are_in_order(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("one_key")
    assert repository.snapshots() == []
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no snapshot yet"):
        repository.snapshot()
    # Several of them in one second.
    made = [repository.backup(path, tags={"n": str(n)}) for n in range(12)]
    ids = [snapshot.id for snapshot in made]
    assert ids == sorted(set(ids))
    assert repository.snapshots() == made
    assert repository.snapshot() == repository.snapshot("latest") == made[-1]
    for snapshot in made:
        assert repository.snapshot(snapshot.id) == snapshot
    assert [dict(snapshot.tags) for snapshot in repository.snapshots()] == [
        {"n": str(n)} for n in range(12)
    ]


@pytest.mark.servers("seaweed-http")
def test_snapshots_that_go_or_are_damaged_while_others_are_good(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    first, second, third = (repository.backup(path) for _ in range(3))

    def delete_first(number: int, sent: Sent) -> None:
        if sent.operation == "GetObject" and sent.key.endswith(manifest_key(first)):
            remove(boto, bucket, first)

    with watched(s3, delete_first):
        assert repository.snapshots() == [second, third]
    assert keys(boto, bucket, "snapshots/") == {manifest_key(second), manifest_key(third)}
    replace_manifest(boto, bucket, second, b"{}")
    with pytest.raises(kumo_crt.FormatError, match=second.id):
        repository.snapshots()
    told: list[str] = []
    found = repository.snapshots(on_damage=lambda i, error: told.append(f"{i}: {error}"))
    assert found == [third]
    assert len(told) == 1
    assert told[0].startswith(f"{second.id}: {url(bucket)}/snapshots/")


@pytest.mark.servers("seaweed-http")
def test_latest_after_a_snapshot_was_deleted(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    first, second = repository.backup(path), repository.backup(path)
    remove(boto, bucket, second)
    assert repository.snapshot() == first
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match=second.id):
        repository.snapshot(second.id)
    assert repository.backup(path).id > first.id


@pytest.mark.servers("seaweed-http")
def test_other_objects_are_no_snapshots(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("one_key"))
    for name in ("notes.txt", "99991231T235959Z-zzzzzzzz.json", "x/20991231T235959Z-00000000.json"):
        boto.put_object(Bucket=bucket, Key=f"kv/main/snapshots/{name}", Body=b"{}")
    assert repository.snapshots() == [snapshot]
    assert repository.snapshot() == snapshot


def test_ids_sort_by_age() -> None:
    now = datetime(2026, 11, 23, 6, 0, 0, 900_000, tzinfo=UTC)
    newest = None
    ids = []
    for number in range(4_000):
        # The clock goes back now and then.
        back = timedelta(seconds=3 if number % 7 == 0 else 0)
        newest = _layout.new_snapshot_id(now - back, newest)
        assert _layout.is_snapshot_id(newest)
        ids.append(newest)
    assert ids == sorted(ids)
    assert ids[-1] < _layout.new_snapshot_id(now + timedelta(seconds=2), ids[-1])


def test_ids_go_on_when_a_second_has_too_many() -> None:
    """As when the service's clock was ahead for a while."""
    now = datetime(2026, 11, 23, 6, tzinfo=UTC)
    newest = "20271231T235959Z-fff00000"
    for _ in range(3):
        before, newest = newest, _layout.new_snapshot_id(now, newest)
        assert before < newest
        assert newest.startswith("20280101T000000Z-00")
    # An id that names no moment.
    assert _layout.is_snapshot_id(_layout.new_snapshot_id(now, "99999999T999999Z-fffabcde"))


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize(
    "wrong", ["", "newest", "../kumo-repository", "20261123T060000Z", "20261123T060000Z-0A1B2C3D"]
)
def test_ids_that_are_none(repository: kumo_crt.Repository, make: Make, wrong: str) -> None:
    repository.backup(make("one_key"))
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no snapshot id"):
        repository.snapshot(wrong)


# -- options of a backup --------------------------------------------------------------------------


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("wrong", [None, 5, b"latest"])
def test_ids_that_are_no_texts(
    repository: kumo_crt.Repository, tmp_path: Path, wrong: object
) -> None:
    calls: list[Any] = [repository.snapshot, repository.verify, repository.pin]
    calls += [repository.delete_snapshot, lambda it: repository.restore(tmp_path / "new", it)]
    for call in calls:
        with pytest.raises(TypeError, match=f"an id, which is a text, not {type(wrong).__name__}"):
            call(wrong)


@pytest.mark.servers("seaweed-http")
def test_tags_that_are_no_texts(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    tags: Any = {"n": 1}
    with pytest.raises(TypeError, match="tags"):
        repository.backup(make("plain"), tags=tags)
    assert keys(boto, bucket) == {"kumo-repository.json"}


@pytest.mark.servers("seaweed-http")
def test_progress(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    path = make("many_files")
    for work in ("backup", "again", "verify", "restore"):
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))
            time.sleep(0.02)

        if work == "verify":
            repository.verify(level="full", progress=progress)
            total = sum(file.size for file in stored_files(repository.snapshot()))
        else:
            if work == "restore":
                repository.restore(tmp_path / "restored", progress=progress)
            else:
                repository.backup(path, progress=progress)
            total = repository.snapshot().total_bytes
        done = [item[0] for item in told]
        assert told[-1] == (total, total), work
        assert done == sorted(set(done))
        assert {item[1] for item in told} == {total}


@pytest.mark.servers("seaweed-http")
@pytest.mark.usefixtures("each_alone")
def test_rate_limit(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("many_files")
    size = repository.backup(path, dry_run=True).uploaded_bytes
    started = time.monotonic()
    snapshot = repository.backup(path, max_bytes_per_second=size)
    seconds = time.monotonic() - started
    assert snapshot.uploaded_bytes == size
    # The last file may begin when all before it have had their time.
    assert 0.9 < seconds < 3
    started = time.monotonic()
    repository.backup(path, max_bytes_per_second=1000)
    assert time.monotonic() - started < 3
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="bytes per second"):
            repository.backup(path, max_bytes_per_second=bad)


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_concurrency(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, concurrency: int
) -> None:
    repository.backup(make("many_files"), max_concurrency=concurrency)
    assert repository.verify(level="full", max_concurrency=concurrency).ok
    repository.restore(tmp_path / "restored", max_concurrency=concurrency)
    with pytest.raises(ValueError, match=r"--max-concurrency\): 0, must be"):
        repository.verify(max_concurrency=0)


@pytest.mark.servers("seaweed-http")
def test_dry_run_writes_nothing(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("blobs")
    planned = repository.backup(path, dry_run=True)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    assert leftovers(tmp_path) == []
    real = repository.backup(path)
    assert [(f.path, f.size, f.key) for f in planned.files] == [
        (f.path, f.size, f.key) for f in real.files
    ]
    assert (planned.uploaded_bytes, planned.reused_bytes) == (
        real.uploaded_bytes,
        real.reused_bytes,
    )
    again = repository.backup(path, dry_run=True)
    assert (again.uploaded_bytes, again.reused_bytes) == (0, real.uploaded_bytes)
    assert repository.snapshots() == [real]
