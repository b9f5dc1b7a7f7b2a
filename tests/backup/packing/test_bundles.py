"""Small files are stored together: requests go with bytes, and everything still fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._packing import _packing
from kumo_crt.backup._store._known import Known
from tests.backup.boundaries import Killed, Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    bundles_of,
    content_of,
    flipped,
    get,
    keys,
    manifest,
    put,
    replace_manifest,
    stored_files,
    url,
    write_tables,
)
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


# -- requests -------------------------------------------------------------------------------------


def test_requests_go_with_bytes_not_with_files(
    counted: kumo_crt.Repository, proxy: FaultProxy, memory_path: Path
) -> None:
    path = memory_path / "db"
    write_tables(path, 0, 1500)
    first = counted.backup(path)
    tables = stored_files(first, "sst")
    assert len(tables) == 1500
    assert len(bundles_of(first)) == 1
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
    write_tables(path, 1500, 1510)
    proxy.requests.clear()
    third = counted.backup(path)
    assert proxy.count("PUT", "/data/") <= 3
    assert third.uploaded_bytes < first.uploaded_bytes / 4
    assert bundles_of(first) < bundles_of(third)
    before = {file.path: file for file in first.files if file.kind == "sst"}
    after = {file.path: file for file in third.files if file.kind == "sst"}
    assert before.items() < after.items()


def test_a_large_bundle_is_read_with_several_requests(
    counted: kumo_crt.Repository, proxy: FaultProxy, memory_path: Path
) -> None:
    path = memory_path / "db"
    write_tables(path, 0, 100, value_size=220_000)
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
    assert bundles_of(few) == set()
    path = make("many_files")
    alone = repository.backup(path, bundle_below=0)
    assert bundles_of(alone) == set()
    # What is stored is not stored again in another way.
    assert repository.backup(path).files == alone.files


def test_settings(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("many_files")
    sizes = sorted(file.stat().st_size for file in path.glob("*.sst"))
    monkeypatch.setenv("KUMO_CRT_BUNDLE_BELOW", str(sizes[20]))
    monkeypatch.setenv("KUMO_CRT_BUNDLE_SIZE", "1MiB")
    files = stored_files(repository.backup(path), "sst")
    bundled = [file for file in files if file.offset is not None]
    assert {file.size for file in bundled} == {size for size in sizes if size < sizes[20]}
    for name, value, message in (
        ("KUMO_CRT_BUNDLE_BELOW", "many", "is not a size"),
        ("KUMO_CRT_BUNDLE_BELOW", "-1", "is not a size"),
        ("KUMO_CRT_BUNDLE_SIZE", "1GiB", "KUMO_CRT_BUNDLE_SIZE is .* must be from"),
        ("KUMO_CRT_BUNDLE_BELOW", "1GiB", "KUMO_CRT_BUNDLE_BELOW is .* must be from"),
        (
            "KUMO_CRT_BUNDLE_BELOW",
            "2MiB",
            "_BELOW is 2097152 bytes, more than KUMO_CRT_BUNDLE_SIZE",
        ),
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
    replace_manifest(boto, bucket, snapshot, json.dumps(document).encode())
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


# -- interrupted ----------------------------------------------------------------------------------


def test_a_killed_backup_is_gone_on_with(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    memory_path: Path,
) -> None:
    path = memory_path / "db"
    write_tables(path, 0, 100, value_size=100_000)

    def die(number: int, sent: Sent) -> None:
        if sent.operation == "PutObject" and "/snapshots/" in sent.key:
            watch.kill()

    with pytest.raises(Killed), watched(s3, die) as watch:
        repository.backup(path, bundle_size=2 << 20)
    sent = keys(boto, bucket, "data/")
    # Meanwhile the database has gone on.
    write_tables(path, 100, 101, value_size=100_000)
    snapshot = repository.backup(path, bundle_size=2 << 20)
    assert len(sent & snapshot.object_keys) >= len(sent) - 4
    assert snapshot.reused_bytes > snapshot.uploaded_bytes
    assert repository.verify(level="full").ok


def test_a_name_that_is_taken(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    (key,) = bundles_of(first)
    repository.delete_snapshot(first.id)
    put(boto, bucket, key, flipped(get(boto, bucket, key)))
    second = repository.backup(path)
    (other,) = bundles_of(second)
    assert other.startswith(f"{key}.") or other.rpartition("/")[2].startswith(
        key.rpartition("/")[2] + "."
    )
    assert repository.verify(level="full").ok
    # The variant is this database's own.
    assert repository.backup(path).uploaded_bytes == 0
