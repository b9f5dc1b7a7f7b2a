"""Small files are stored together: requests go with bytes, and everything still fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup import _packing, _rebuild
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._known import Known
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
    manifest,
    put,
    stored_files,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.support import databases
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def counted(
    s3_via_proxy: kumo_crt.S3Client, bucket: str, proxy: FaultProxy
) -> Iterator[kumo_crt.Repository]:
    """An empty repository, behind the proxy that counts requests."""
    with kumo_crt.Repository.create(url(bucket), client=s3_via_proxy) as created:
        proxy.requests.clear()
        yield created


def _bundles(snapshot: kumo_crt.Snapshot) -> set[str]:
    return {key_of(file) for file in stored_files(snapshot) if file.offset is not None}


def _write(path: Path, first: int, last: int, *, small_size: int = 300) -> None:
    """A table file for every key."""
    db = Rdict(str(path), databases.options(small_files=True))
    for number in range(first, last):
        databases.fill(db, number, number + 1, value_size=small_size)
        db.flush()
    db.close()


# -- requests -------------------------------------------------------------------------------------


def test_requests_go_with_bytes_not_with_files(
    counted: kumo_crt.Repository, proxy: FaultProxy, memory_path: Path
) -> None:
    path = memory_path / "db"
    _write(path, 0, 1500)
    first = counted.backup(path)
    tables = stored_files(first, "sst")
    assert len(tables) == 1500
    assert len(_bundles(first)) == 1
    assert proxy.count("PUT", "/data/") == len(first.object_keys) <= 4
    assert len(proxy.requests) <= 15
    proxy.requests.clear()
    target = memory_path / "restored"
    counted.restore(target, first.id)
    assert proxy.count("GET", "/data/") == len(first.object_keys)
    assert len(proxy.requests) <= 6
    assert content_of(target) == content_of(path)
    proxy.requests.clear()
    assert counted.verify(first.id, level="full", record=False).ok
    assert proxy.count("GET", "/data/") == len(first.object_keys)
    # Nothing has changed.
    proxy.requests.clear()
    second = counted.backup(path)
    assert second.uploaded_bytes == 0
    assert len(proxy.requests) <= 10
    assert proxy.count("PUT", "/data/") == 0
    # A little has.
    _write(path, 1500, 1510)
    proxy.requests.clear()
    third = counted.backup(path)
    assert proxy.count("PUT", "/data/") <= 3
    assert third.uploaded_bytes < first.uploaded_bytes / 4
    assert _bundles(first) < _bundles(third)
    before = {file.path: file for file in first.files if file.kind == "sst"}
    after = {file.path: file for file in third.files if file.kind == "sst"}
    assert before.items() < after.items()


def test_a_large_bundle_is_read_with_several_requests(
    counted: kumo_crt.Repository, proxy: FaultProxy, memory_path: Path
) -> None:
    path = memory_path / "db"
    _write(path, 0, 100, small_size=220_000)
    snapshot = counted.backup(path, bundle_size=64 << 20)
    assert [snapshot.total_bytes // (8 << 20)] == [2]
    assert max(file.stored.size for file in snapshot.files) > 16 << 20
    proxy.requests.clear()
    assert counted.verify(level="full", record=False).ok
    assert proxy.count("GET", "/bundle-") in (3, 4)
    counted.restore(memory_path / "restored")
    assert content_of(memory_path / "restored") == content_of(path)


# -- which files go together ----------------------------------------------------------------------


def _captured(count: int, size: int = 1000) -> list[CapturedFile]:
    return [
        CapturedFile(f"{n:06d}.sst", "sst", n, Path("/nowhere"), size) for n in range(1, count + 1)
    ]


def _packed(files: list[CapturedFile], below: int, size: int) -> _packing.Packing:
    names = {file.path: f"sst-{file.number}" for file in files}
    limits = _packing.Limits(below, size)
    return _packing.pack(files, names, Known(), frozenset(), limits)


def test_bundles_keep_their_names() -> None:
    files = _captured(5000)
    before = _packed(files, 2000, 100_000).bundles
    assert sum(len(bundle.members) for bundle in before) == 5000
    assert all(bundle.size <= 100_000 for bundle in before)
    assert all(bundle.size >= 25_000 for bundle in before[:-1])
    assert 50 <= len(before) <= 150
    # One file more or less changes the bundle it is in, and few others.
    del files[2500]
    after = {bundle.name for bundle in _packed(files, 2000, 100_000).bundles}
    assert len({bundle.name for bundle in before} - after) <= 5


def test_what_is_bundled(repository: kumo_crt.Repository, make: Make) -> None:
    few = repository.backup(make("plain"))
    assert _bundles(few) == set()
    path = make("many_files")
    alone = repository.backup(path, bundle_below=0)
    assert _bundles(alone) == set()
    # What is stored is not stored again in another way.
    assert repository.backup(path).files == alone.files


def test_settings(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("many_files")
    sizes = sorted(file.stat().st_size for file in path.glob("*.sst"))
    monkeypatch.setenv("KUMO_CRT_BUNDLE_BELOW", str(sizes[20]))
    monkeypatch.setenv("KUMO_CRT_BUNDLE_SIZE", str(1 << 20))
    files = stored_files(repository.backup(path), "sst")
    bundled = [file for file in files if file.offset is not None]
    assert {file.size for file in bundled} == {size for size in sizes if size < sizes[20]}
    for name, value, message in (
        ("KUMO_CRT_BUNDLE_BELOW", "many", "is not a number"),
        ("KUMO_CRT_BUNDLE_BELOW", "-1", "must be from 0"),
        ("KUMO_CRT_BUNDLE_SIZE", str(1 << 30), "must be from"),
        ("KUMO_CRT_BUNDLE_BELOW", str(2 << 20), "more than bundle_size"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ValueError, match=message):
                repository.backup(path)


def test_files_that_are_alike_are_stored_once(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("one_key")
    (name,) = path.glob("*.sst")
    content = name.read_bytes()
    same = [CapturedFile(f"{n:06d}.sst", "sst", n, name, len(content)) for n in range(1, 12)]
    names = {file.path: f"sst-{min(file.number, 9)}" for file in same}
    packing = _packing.pack(same, names, Known(), frozenset(), _packing.Limits(1 << 20, 1 << 20))
    (bundle,) = packing.bundles
    assert bundle.size == 9 * len(content)
    assert len(list(bundle.files)) == 11


# -- the format -----------------------------------------------------------------------------------


def test_format(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    document = manifest(boto, bucket, snapshot)
    assert document["features"] == ["packed"]
    (key,) = document["objects"]
    content = get(boto, bucket, key)
    assert document["objects"][key] == {
        "size": len(content),
        "crc32c": f"{kumo_crt.crc32c(content):08x}",
    }
    assert key.rpartition("/")[2].startswith("bundle-")
    target = tmp_path / "by-hand"
    repository.restore(target)
    for file in document["files"]:
        if "offset" in file:
            assert set(file) == {"path", "kind", "size", "crc32c", "key", "offset", "name"}
            part = content[file["offset"] : file["offset"] + file["size"]]
            assert part == (path / file["path"]).read_bytes()
            assert file["name"].startswith("sst-")
            (target / file["path"]).write_bytes(part)
    assert databases.read_all(target) == library.truth("many_files")
    found = boto.head_object(Bucket=bucket, Key=f"{PREFIX}/{key}", ChecksumMode="ENABLED")
    assert found["ChecksumType"] == "FULL_OBJECT" if "ChecksumType" in found else True


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.update(features=["packed", "folded"]), "features"),
        (lambda d: d.update(features="packed"), "features"),
        (lambda d: d.pop("features"), r"files\[\d+\]\.offset"),
        (lambda d: d.update(objects={}), r"files\[\d+\]\.offset"),
        (lambda d: d.update(objects=[]), "objects"),
        (lambda d: d["objects"].update({"snapshots/x": {"size": 1, "crc32c": "0" * 8}}), "objects"),
        (lambda d: d["objects"].update({"data/00/x": {"size": 1, "crc32c": "0" * 8}}), "objects"),
        (lambda d: next(iter(d["objects"].values())).update(size=1000), r"files\[\d+\]\.offset"),
        (lambda d: next(iter(d["objects"].values())).update(size=-1), r"objects\[.*\]\.size"),
        (lambda d: next(iter(d["objects"].values())).update(crc32c="x"), r"objects\[.*\]\.crc32c"),
        (lambda d: _packed_file(d).update(offset=1 << 40), r"files\[\d+\]\.offset"),
        (lambda d: _packed_file(d).update(offset=-1), r"files\[\d+\]\.offset"),
        (lambda d: _packed_file(d).update(offset=True), r"files\[\d+\]\.offset"),
        (lambda d: _packed_file(d).pop("offset"), r"files\[\d+\]\.offset"),
        (lambda d: _packed_file(d).update(offset=_packed_file(d)["offset"] + 1), "files"),
        (lambda d: _packed_file(d).update(name="../x"), r"files\[\d+\]\.name"),
        (lambda d: _packed_file(d).pop("name"), r"files\[\d+\]\.name"),
    ],
)
def test_hostile_manifests(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, change: Any, field: str
) -> None:
    snapshot = repository.backup(make("many_files"))
    document = manifest(boto, bucket, snapshot)
    change(document)
    put(boto, bucket, f"snapshots/{snapshot.id}.json", json.dumps(document).encode())
    with pytest.raises(kumo_crt.FormatError, match=rf"snapshots/{snapshot.id}.*field {field}"):
        repository.snapshot(snapshot.id)


def _packed_file(document: Any) -> Any:
    return next(file for file in document["files"] if "offset" in file)


# -- restoring ------------------------------------------------------------------------------------


def test_parts_of_bundles(
    counted: kumo_crt.Repository, proxy: FaultProxy, memory_path: Path
) -> None:
    """A restore of one column family, and one into a copy, read what they need."""
    path = memory_path / "db"
    db = Rdict(str(path), databases.options(small_files=True))
    users = db.create_column_family("users", databases.options(small_files=True))
    for number in range(40):
        databases.fill(db, number, number + 1, value_size=30_000)
        db.flush()
    for number in range(20):
        databases.fill(users, number, number + 1, value_size=300)
        users.flush()
    users.close()
    db.close()
    counted.backup(path)
    report = counted.restore(memory_path / "users", column_families=["users"])
    assert report.downloaded_bytes < 200_000
    assert {cf for cf, _, _ in content_of(memory_path / "users")} == {"users"}
    counted.restore(memory_path / "copy")
    for file in sorted((memory_path / "copy").glob("*.sst"))[:30]:
        file.unlink()
    report = counted.restore(memory_path / "copy", delta=True)
    assert report.reused_bytes > 0
    assert report.downloaded_bytes < report.total_bytes
    assert content_of(memory_path / "copy") == content_of(path)


# -- damage ---------------------------------------------------------------------------------------


def test_damage_is_told_by_file(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    file = stored_files(snapshot, "sst")[5]
    content = get(boto, bucket, key_of(file))
    put(boto, bucket, key_of(file), flipped(content, (file.offset or 0) + 100))
    assert repository.verify(level="quick").ok
    (stored, *more) = repository.verify(level="stored").problems
    assert len(more) == 39
    assert stored.kind == "checksum"
    (problem,) = repository.verify(level="full").problems
    assert (problem.kind, problem.path, problem.key) == ("checksum", file.path, file.key)
    assert problem.snapshots == (snapshot.id,)
    assert (problem.column_family, problem.smallest_key is not None) == ("default", True)
    with pytest.raises(kumo_crt.IntegrityError, match=file.path):
        repository.restore(tmp_path / "restored")
    # The file that is on the disk, and of the others what is good.
    good = tmp_path / "good"
    good.mkdir()
    shutil.copy(path / file.path, good)
    report = repository.repair(good)
    assert report.ok
    (repaired,) = report.repaired
    assert (repaired.key, repaired.files) == (file.key, 40)
    assert repaired.quarantine in keys(boto, bucket, "quarantine/")
    assert get(boto, bucket, key_of(file)) == content
    assert repository.verify(level="full").ok


@pytest.mark.parametrize("damage", ["missing", "size"])
def test_whole_bundles_are_repaired(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    damage: str,
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    (key,) = _bundles(snapshot)
    content = get(boto, bucket, key)
    if damage == "missing":
        delete(boto, bucket, key)
    else:
        put(boto, bucket, key, content[:-1])
    for level in ("quick", "stored", "full"):
        problems = repository.verify(level=level).problems
        assert {problem.kind for problem in problems} == {
            "missing" if damage == "missing" else "size"
        }
        assert len({problem.path for problem in problems}) == 40
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(tmp_path / "restored")
    assert repository.repair(path, dry_run=True).ok
    assert repository.repair(path).ok
    assert get(boto, bucket, key) == content
    # Without a file, nothing can be done.
    delete(boto, bucket, key)
    next(path.glob("*.sst")).unlink()
    report = repository.repair(path)
    assert not report.ok
    assert len(report.remaining) == 40
    assert key not in keys(boto, bucket)


def _compact(path: Path, last: int) -> None:
    """Puts the tables of the first keys together."""
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 0, last + 1, value_size=2000)  # else they are moved, not put together
    db.flush()
    db.compact_range(b"key-", b"key-%08d" % last)
    db.close()


def _half_dead(repository: kumo_crt.Repository, path: Path) -> tuple[str, kumo_crt.Snapshot]:
    """A bundle of which a third belongs to no snapshot any more."""
    _write(path, 0, 60, small_size=2000)
    first = repository.backup(path)
    (key,) = _bundles(first)
    _compact(path, 19)
    second = repository.backup(path)
    assert _bundles(second) == {key}
    assert len([file for file in second.files if file.key == key]) == 40
    repository.delete_snapshot(first.id)
    return key, second


def test_half_dead_bundles_stay_and_are_told(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    key, second = _half_dead(repository, memory_path / "db")
    whole = next(file.stored.size for file in second.files if file.key == key)
    used = sum(file.size for file in second.files if file.key == key)
    with without_waiting():
        for dry_run in (True, False):
            report = repository.prune(dry_run=dry_run)
            assert report.wasted_bytes == whole - used > whole / 4
        repository.prune()
    assert keys(boto, bucket, "data/") == second.object_keys
    assert repository.verify(level="full").ok
    repository.restore(memory_path / "restored")
    assert content_of(memory_path / "restored") == content_of(memory_path / "db")


def test_lost_half_dead_bundles_are_repaired(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    """Nobody has the bytes that nobody names: others take their place, and the CRC32C is right."""
    key, second = _half_dead(repository, memory_path / "db")
    before = get(boto, bucket, key)
    # Damage where nothing is that a snapshot names: told, and no file is blamed.
    named = [file for file in second.files if file.key == key]
    start = min(file.offset or 0 for file in named)
    assert start > 100
    put(boto, bucket, key, flipped(before, 50))
    (problem,) = repository.verify(level="full").problems
    assert (problem.kind, problem.path, problem.key) == ("checksum", "", key)
    assert problem.snapshots == (second.id,)
    delete(boto, bucket, key)
    report = repository.repair(memory_path / "db")
    assert report.ok
    assert get(boto, bucket, key) != before
    for level in ("quick", "stored", "full"):
        assert repository.verify(level=level).ok
    repository.restore(memory_path / "restored")
    assert content_of(memory_path / "restored") == content_of(memory_path / "db")


def test_what_other_snapshots_need_is_repaired_too(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    path = memory_path / "db"
    _write(path, 0, 60, small_size=2000)
    first = repository.backup(path)
    (key,) = _bundles(first)
    shutil.copytree(path, memory_path / "copy")
    _compact(path, 19)
    second = repository.backup(path)
    delete(boto, bucket, key)
    # The database has not all that the old snapshot needs.
    report = repository.repair(path, snapshot=second.id)
    assert not report.ok
    assert {name for problem in report.remaining for name in problem.snapshots} == {
        first.id,
        second.id,
    }
    assert repository.repair([path, memory_path / "copy"], snapshot=second.id).ok
    assert repository.verify(first.id, level="full").ok


def test_bundles_that_are_hardly_used_are_given_up(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    path = memory_path / "db"
    _write(path, 0, 60, small_size=2000)
    first = repository.backup(path)
    _compact(path, 49)
    second = repository.backup(path)
    assert len([f for f in second.files if f.kind == "sst" and f.size < 10_000]) == 10
    assert not _bundles(first) & second.object_keys
    third = repository.backup(path)
    assert third.uploaded_bytes == 0
    repository.delete_snapshot(first.id)
    with without_waiting():
        for _ in range(2):
            repository.prune()
    assert keys(boto, bucket, "data/") == second.object_keys
    assert repository.verify(level="full").ok


# -- interrupted ----------------------------------------------------------------------------------


def test_a_killed_backup_is_gone_on_with(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    memory_path: Path,
) -> None:
    path = memory_path / "db"
    _write(path, 0, 100, small_size=100_000)

    def die(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/snapshots/" in sent.key:
            watch.kill()

    with pytest.raises(Killed), watched(s3, die) as watch:
        repository.backup(path, bundle_size=2 << 20)
    sent = keys(boto, bucket, "data/")
    # Meanwhile the database has gone on.
    _write(path, 100, 101, small_size=100_000)
    snapshot = repository.backup(path, bundle_size=2 << 20)
    assert len(sent & snapshot.object_keys) >= len(sent) - 4
    assert snapshot.reused_bytes > snapshot.uploaded_bytes
    assert repository.verify(level="full").ok


def test_a_name_that_is_taken(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    (key,) = _bundles(first)
    repository.delete_snapshot(first.id)
    put(boto, bucket, key, flipped(get(boto, bucket, key)))
    second = repository.backup(path)
    (other,) = _bundles(second)
    assert other.startswith(f"{key}.") or other.rpartition("/")[2].startswith(
        key.rpartition("/")[2] + "."
    )
    assert repository.verify(level="full").ok
    # The variant is this database's own.
    assert repository.backup(path).uploaded_bytes == 0


def test_filler_gives_any_crc() -> None:
    for head, tail, crc in ((0, 0, 0), (1, 5, 0xDEADBEEF), (4096, 100_000, 0xFFFFFFFF)):
        content = bytearray(databases.value_of(head, head + 4 + tail))
        room = head + 4
        content[head:room] = _rebuild._filler(content, room, crc)
        assert kumo_crt.crc32c(content) == crc
