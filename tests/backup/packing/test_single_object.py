"""Snapshots as a single object: a tar that is restored whole, in parts, and without kumo_crt."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._format import _layout, _manifest
from tests.backup.boundaries import watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    content_of,
    delete,
    flipped,
    get,
    keys,
    leftovers,
    manifest,
    put,
    stored_files,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.backup.pruning import all_good
from tests.support import databases
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")

INDEX = "kumo-index.json"


def archive_key(boto: Any, bucket: str) -> str:
    """Key of the only archive that there is."""
    (key,) = (key for key in keys(boto, bucket, "data/") if "/archive-" in key)
    return key


def _unpack(content: bytes, target: Path) -> Path:
    """Unpacks an archive with the system's tar."""
    target.mkdir()
    done = subprocess.run(
        ["tar", "x", "-C", str(target)], input=content, capture_output=True, check=True
    )
    assert done.stderr == b""
    return target


def _two_families(path: Path) -> Path:
    """Two column families, each in files of its own, blob files and a log among them."""
    original = path.with_name("original")
    db = Rdict(str(original), databases.options(small_files=True, blobs=True))
    users = db.create_column_family("users", databases.options(small_files=True))
    for number in range(10):
        databases.fill(db, 10 * number, 10 * number + 10, value_size=15_000)
        db.flush()
        databases.fill(users, number, number + 1)
        users.flush()
    users[b"in the log"] = b"alone"
    shutil.copytree(original, path)  # closing it would flush
    users.close()
    db.close()
    return path


# -- everything is in it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["plain", "column_families", "blobs", "unflushed_wal", "empty", "many_files", "large"],
)
def test_round_trip(
    repository: kumo_crt.Repository,
    small_parts: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    path = make(name)
    done: list[tuple[int, int]] = []
    with kumo_crt.Repository.open(url(bucket), client=small_parts) as sending:
        snapshot = sending.backup(
            path, single_object=True, progress=lambda *counts: done.append(counts)
        )
    key = archive_key(boto, bucket)
    assert keys(boto, bucket, "data/") == {key} == snapshot.object_keys
    content = get(boto, bucket, key)
    assert snapshot.single_object == key
    assert (snapshot.uploaded_bytes, snapshot.reused_bytes) == (len(content), 0)
    assert done[-1] == (len(content), len(content))
    assert leftovers(tmp_path) == []
    # Without kumo_crt.
    by_hand = _unpack(content, tmp_path / "by hand")
    assert {file.name for file in by_hand.iterdir()} == {f.path for f in snapshot.files} | {INDEX}
    assert databases.read_all(by_hand) == library.truth(name)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(tmp_path / "by python", filter="data")
    assert databases.read_all(tmp_path / "by python") == library.truth(name)
    # With it.
    for level in ("quick", "stored", "full"):
        assert repository.verify(level=level).ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth(name)


def test_format(repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path) -> None:
    path = _two_families(tmp_path / "db")
    snapshot = repository.backup(path, single_object=True)
    document = manifest(boto, bucket, snapshot)
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    assert document["features"] == ["packed"]
    assert document["objects"] == {
        key: {"size": len(content), "crc32c": f"{kumo_crt.crc32c(content):08x}"}
    }
    # The end tells where the index is.
    last = content[-4096:].rstrip(b"\0")
    start = int(last.rpartition(b'"index_offset":')[2].rstrip(b"}\n"))
    index = json.loads(content[start:].rstrip(b"\0"))
    assert index["format"] == "kumo-archive"
    assert index["version"] == 1
    assert index["db_id"] == snapshot.db_id
    assert index["sequence_number"] == snapshot.sequence_number
    assert index["column_families"] == ["default", "users"]
    assert {file.kind for file in snapshot.files} == {
        "sst", "blob", "wal", "options", "config", "manifest", "current"
    }  # fmt: skip
    assert [file["path"] for file in index["files"]] == [file.path for file in snapshot.files]
    for entry, file in zip(index["files"], document["files"], strict=True):
        part = content[entry["offset"] : entry["offset"] + entry["size"]]
        assert f"{kumo_crt.crc32c(part):08x}" == entry["crc32c"] == file["crc32c"]
        assert entry["offset"] % 512 == 0
        if file["kind"] in ("current", "config"):
            assert "inline" in file
        else:
            assert (file["offset"], file["name"]) == (entry["offset"], entry["name"])
            assert file["key"] == key
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {member.name: (member.offset_data, member.size) for member in tar}
    assert members.pop(INDEX) == (start, len(content[start:].rstrip(b"\0")))
    assert members == {e["path"]: (e["offset"], e["size"]) for e in index["files"]}


def test_an_older_reader_refuses_it(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = repository.backup(make("plain"), single_object=True)
    monkeypatch.setattr(_manifest, "FEATURES", ())
    with pytest.raises(kumo_crt.FormatError, match="packed"):
        repository.snapshot(snapshot.id)


def test_an_open_database(
    repository: kumo_crt.Repository, make: Make, library: Library, tmp_path: Path
) -> None:
    path = make("many_files")
    db = Rdict(str(path), databases.options(small_files=True))
    repository.backup(db, single_object=True)
    db[b"later"] = b"not in the first"
    live = repository.backup(path, live=True, single_object=True)
    db.close()
    first, second = repository.snapshots()
    assert first.object_keys.isdisjoint(second.object_keys)
    assert second == live
    repository.restore(tmp_path / "first", first.id)
    assert content_of(tmp_path / "first") == library.truth("many_files")
    repository.restore(tmp_path / "second")
    assert content_of(tmp_path / "second") == content_of(path)


def test_dry_runs_tell_what_would_be_sent(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("column_families")
    planned = repository.backup(path, single_object=True, dry_run=True)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    done = repository.backup(path, single_object=True)
    assert planned.uploaded_bytes == done.uploaded_bytes
    assert planned.object_keys == done.object_keys
    # And that nothing would be, if it is there.
    planned = repository.backup(path, single_object=True, dry_run=True)
    done = repository.backup(path, single_object=True)
    assert (planned.uploaded_bytes, planned.reused_bytes) == (0, done.reused_bytes)
    assert done.uploaded_bytes == 0 < done.reused_bytes


# -- parts of it ----------------------------------------------------------------------------------


def test_restores_read_what_they_need(
    s3_via_proxy: kumo_crt.S3Client,
    repository: kumo_crt.Repository,
    proxy: FaultProxy,
    bucket: str,
    tmp_path: Path,
) -> None:
    path = _two_families(tmp_path / "db")
    snapshot = repository.backup(path, single_object=True)
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as counted:
        proxy.requests.clear()
        report = counted.restore(tmp_path / "users", column_families=["users"])
        assert report.downloaded_bytes < snapshot.total_bytes / 10
        assert proxy.count("GET", "/data/") <= 4
        truth = content_of(path)
        users = content_of(tmp_path / "users")
        assert users == [entry for entry in truth if entry[0] == "users"]
        assert (b"in the log") in [key for _, key, _ in users]
        proxy.requests.clear()
        counted.restore(tmp_path / "copy")
        assert proxy.count("GET", "/data/") <= 3  # neighbours with one request
        lost = sorted((tmp_path / "copy").glob("*.sst"))[0]
        lost.unlink()
        report = counted.restore(tmp_path / "copy", delta=True)
        assert report.reused_bytes > report.total_bytes * 0.9
        assert report.downloaded_bytes < report.total_bytes / 10
        assert content_of(tmp_path / "copy") == truth


# -- other backups --------------------------------------------------------------------------------


def test_the_same_state_is_found_again(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("large")
    first = repository.backup(path, single_object=True)
    again = repository.backup(path, single_object=True)
    assert (again.uploaded_bytes, again.reused_bytes) == (0, first.uploaded_bytes)
    assert again.files == first.files
    assert keys(boto, bucket, "data/") == {archive_key(boto, bucket)}


def test_others_do_not_rely_on_it_and_do_not_lose_sight_of_each_other(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    path = make("many_files")
    repository.backup(path, single_object=True)
    normal = repository.backup(path)
    assert normal.uploaded_bytes > normal.total_bytes * 0.9
    archive = repository.backup(path, single_object=True)
    assert archive.uploaded_bytes == 0
    # The newest is an archive, and what the one before has is known all the same.
    with watched(s3) as watch:
        third = repository.backup(path)
    assert [sent for sent in watch.sent if "/data/" in sent.key] == []
    assert third.uploaded_bytes == 0
    assert third.files == normal.files
    # An archive goes whole, with its snapshots, and nothing of it counts as waste before.
    (key,) = archive.object_keys
    with without_waiting():
        assert repository.prune().wasted_bytes == 0
        for snapshot in repository.snapshots():
            if snapshot.single_object == key:
                assert key in keys(boto, bucket)
                repository.delete_snapshot(snapshot.id)
                repository.prune()
                repository.prune()
    assert keys(boto, bucket, "data/") == normal.object_keys
    all_good(repository)


def test_a_name_that_is_taken(
    repository: kumo_crt.Repository,
    small_parts: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    library: Library,
    tmp_path: Path,
) -> None:
    """Something damaged has the archive's name: it is stored under a variant of that."""
    path = make("large")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    repository.delete_snapshot(first.id)
    with kumo_crt.Repository.open(url(bucket), client=small_parts) as again:
        for damaged in (flipped(get(boto, bucket, key)), get(boto, bucket, key)[:-512]):
            put(boto, bucket, key, damaged)
            snapshot = again.backup(path, single_object=True)
            (other,) = snapshot.object_keys
            assert other.rpartition("/")[2].startswith(key.rpartition("/")[2] + ".")
            assert again.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("large")


def test_a_prune_and_a_backup_see_each_other(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    repository.delete_snapshot(first.id)
    # Somebody is deleting the archive that has the same name.
    hashes = [_inflight.object_hash(key)]
    sweep = _inflight.encode_lease("sweep", "a test", "elsewhere", 1, hashes)
    put(boto, bucket, f"inflight/sweep-{'0' * 32}-000000.json", sweep)
    pinned: list[Any] = []

    def look(done: int, total: int) -> None:
        pins = keys(boto, bucket, "inflight/backup-")
        pinned.extend(json.loads(get(boto, bucket, pin))["objects"] for pin in pins)

    second = repository.backup(path, single_object=True, progress=look)
    (other,) = second.object_keys
    assert other != key
    assert _layout.plain_name(other) == _layout.plain_name(key)
    assert pinned[0] == hashes
    delete(boto, bucket, key)
    assert repository.verify(level="full").ok


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "log", "header", "index"])
def test_a_damaged_byte_is_found(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path, place: str
) -> None:
    snapshot = repository.backup(_two_families(tmp_path / "db"), single_object=True)
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    sst = stored_files(snapshot, "sst")[-1]
    log = stored_files(snapshot, "wal")[0]
    path, position = {
        "file": (sst.path, (sst.offset or 0) + 100),
        "log": (log.path, (log.offset or 0) + log.size - 1),
        "header": ("", (sst.offset or 0) - 512),
        "index": ("", len(content) - 1500),
    }[place]
    put(boto, bucket, key, flipped(content, position))
    assert not repository.verify(level="stored").ok
    (problem,) = repository.verify(level="full").problems
    assert (problem.kind, problem.path, problem.key) == ("checksum", path, key)
    assert problem.snapshots == (snapshot.id,)
    if place == "file":
        assert (problem.column_family, problem.smallest_key is not None) == ("default", True)
    if path:
        with pytest.raises(kumo_crt.IntegrityError, match=path):
            repository.restore(tmp_path / "restored")
    else:
        repository.restore(tmp_path / "restored")  # what the manifest names is whole


def test_requests(s3: kumo_crt.S3Client, bucket: str, make: Make) -> None:
    """A small archive is one request more than the documents."""
    with kumo_crt.Repository.create(url(bucket), client=s3) as repository, watched(s3) as watch:
        repository.backup(make("many_files"), single_object=True)
    sent = [item for item in watch.sent if item.key.startswith(f"{PREFIX}/data/")]
    assert [item.operation for item in sent] == ["HeadObject", "PutObject"]
    assert len(watch.sent) <= 12


# -- repair ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "header", "index", "missing", "shorter"])
def test_repair(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path, place: str
) -> None:
    path = _two_families(tmp_path / "db")
    snapshot = repository.backup(path, single_object=True)
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    sst = stored_files(snapshot, "sst")[-1]
    if place == "missing":
        delete(boto, bucket, key)
    elif place == "shorter":
        put(boto, bucket, key, content[: len(content) // 2])
    else:
        places = {"file": (sst.offset or 0) + 1, "header": 0, "index": len(content) - 1500}
        put(boto, bucket, key, flipped(content, places[place]))
    # Of what is good no source is needed.
    source = tmp_path / "source"
    source.mkdir()
    if place in ("file", "missing", "shorter"):
        report = repository.repair(source)
        assert not report.ok
        assert {problem.key for problem in report.remaining} == {key}
        for file in path.iterdir():
            if place != "file" or file.name == sst.path:
                shutil.copy2(file, source)
    assert repository.repair(source, dry_run=True).ok
    report = repository.repair(source)
    assert report.ok
    (repaired,) = report.repaired
    assert (repaired.key, repaired.size) == (key, len(content))
    assert (repaired.quarantine is None) == (place == "missing")
    assert get(boto, bucket, key) == content
    assert repository.verify(level="full").ok
