"""Snapshots of encrypted repositories as a single object: a tar of sealed files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import EncryptionKeyError, FormatError, Key, _core
from kumo_crt.backup._format import _manifest, _sealing
from tests.backup.boundaries import watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    KEY,
    MATERIAL,
    content_of,
    get,
    keys,
    leftovers,
    manifest,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.backup.packing.test_single_object import _two_families, archive_key
from tests.backup.pruning import all_good
from tests.crypto import reference
from tests.support import databases
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")

# -- the same as plain ones -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["plain", "column_families", "blobs", "unflushed_wal", "empty", "many_files", "large"],
)
def test_round_trip(
    one_part_sealed: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    path = make(name)
    done: list[tuple[int, int]] = []
    planned = one_part_sealed.backup(path, single_object=True, dry_run=True)
    snapshot = one_part_sealed.backup(
        path, single_object=True, progress=lambda *counts: done.append(counts)
    )
    key = archive_key(boto, bucket)
    size = len(get(boto, bucket, key))
    assert keys(boto, bucket, "data/") == {key} == snapshot.object_keys == planned.object_keys
    assert snapshot.single_object == key
    assert snapshot.uploaded_bytes == planned.uploaded_bytes == size
    assert done[-1] == (size, size)
    assert leftovers(tmp_path) == []
    for repository in (one_part_sealed, keyless):
        for level in ("quick", "stored", "full"):
            report = repository.verify(level=level)
            assert report.ok, report.problems
        assert repository.verify("all", level="full", subset="oldest/1").ok
    assert one_part_sealed.drill().ok
    one_part_sealed.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth(name)
    # Nothing is sent again, and nothing but the whole goes.
    again = one_part_sealed.backup(path, single_object=True)
    assert (again.uploaded_bytes, again.reused_bytes, again.files) == (0, size, snapshot.files)
    keyless.delete_snapshot(again.id)
    assert one_part_sealed.verify(level="full").ok
    with without_waiting():
        keyless.delete_snapshot(snapshot.id)
        keyless.prune()
        keyless.prune()
    assert keys(boto, bucket, "data/") == set()


def test_parts_of_it(
    encrypted: kumo_crt.Repository,
    one_part_sealed: kumo_crt.Repository,
    proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    path = _two_families(tmp_path / "db")
    snapshot = encrypted.backup(path, single_object=True)
    proxy.requests.clear()
    report = one_part_sealed.restore(tmp_path / "users", column_families=["users"])
    assert report.downloaded_bytes < snapshot.total_bytes / 10
    assert proxy.count("GET", "/data/") <= 4
    truth = content_of(path)
    users = content_of(tmp_path / "users")
    assert users == [entry for entry in truth if entry[0] == "users"]
    proxy.requests.clear()
    one_part_sealed.restore(tmp_path / "copy")
    assert proxy.count("GET", "/data/") <= 3  # neighbours with one request
    sorted((tmp_path / "copy").glob("*.sst"))[0].unlink()
    report = one_part_sealed.restore(tmp_path / "copy", delta=True)
    assert report.reused_bytes > report.total_bytes * 0.9
    assert report.downloaded_bytes < report.total_bytes / 10
    assert content_of(tmp_path / "copy") == truth


def test_beside_other_backups(
    encrypted: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    path = make("many_files")
    encrypted.backup(path, single_object=True)
    normal = encrypted.backup(path)
    assert normal.uploaded_bytes > normal.total_bytes * 0.9  # nothing relies on an archive
    archive = encrypted.backup(path, single_object=True)
    assert archive.uploaded_bytes == 0
    with watched(s3) as watch:
        third = encrypted.backup(path)
    assert [sent for sent in watch.sent if "/data/" in sent.key] == []
    assert third.files == normal.files
    with without_waiting():
        assert encrypted.prune().wasted_bytes == 0
        for snapshot in encrypted.snapshots():
            if snapshot.single_object is not None:
                encrypted.delete_snapshot(snapshot.id)
                encrypted.prune()
                encrypted.prune()
    assert keys(boto, bucket, "data/") == normal.object_keys
    all_good(encrypted)
    assert encrypted.doctor(throughput_bytes=0).ok


# -- the format -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["column_families", "blobs", "unflushed_wal", "large"])
def test_it_is_what_the_format_says(
    encrypted: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    path = make(name)
    originals = {file.name: file.read_bytes() for file in path.iterdir()}
    snapshot = encrypted.backup(path, single_object=True)
    document = manifest(boto, bucket, snapshot)
    assert document["features"] == ["packed", "sealed", "sealed-archive"]
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    assert document["objects"] == {
        key: {"size": len(content), "crc32c": f"{_core.crc32c(content):08x}"}
    }
    # Anything unpacks it, to sealed files.
    (tmp_path / "by tar").mkdir()
    done = subprocess.run(
        ["tar", "x", "-C", tmp_path / "by tar"], input=content, capture_output=True, check=True
    )
    assert done.stderr == b""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
        tar.extractall(tmp_path / "by python", filter="data")
    names = [f"{number:06d}.sealed" for number in range(len(snapshot.files))]
    assert list(places) == [*names, "kumo-index.sealed", "kumo-index.json"]
    members = {file.name: file.read_bytes() for file in (tmp_path / "by python").iterdir()}
    assert members == {file.name: file.read_bytes() for file in (tmp_path / "by tar").iterdir()}
    # Its end tells where the index is.
    last = content[-4096:].rstrip(b"\0")
    start = int(last.rpartition(b'"index_offset":')[2].rstrip(b"}\n"))
    guide = json.loads(content[start:].rstrip(b"\0"))
    assert guide == {
        "format": "kumo-archive",
        "version": 1,
        "features": ["sealed"],
        "sealed_index_offset": places["kumo-index.sealed"][0],
        "sealed_index_size": places["kumo-index.sealed"][1],
        "index_offset": places["kumo-index.json"][0],
    }
    text = reference.opened(MATERIAL, members["kumo-index.sealed"])
    index = json.loads(text)
    assert index["db_id"] == snapshot.db_id
    assert index["column_families"] == list(snapshot.column_families)
    for member, entry, file in zip(names, index["files"], document["files"], strict=True):
        stored = members[member]
        assert places[member] == (entry["offset"], _core.sealed_size(entry["size"]))
        plain = reference.restored(MATERIAL, entry, stored)
        assert entry["crc32c"] == f"{_core.crc32c(plain):08x}"
        assert entry["sealed_crc32c"] == f"{_core.crc32c(stored):08x}" == file["sealed_crc32c"]
        same = ("path", "kind", "size", "salt")
        assert [entry[name] for name in same] == [file[name] for name in same]
        if entry["kind"] in ("sst", "blob", "current"):
            assert plain == originals[entry["path"]]
        if file["kind"] in ("current", "config"):
            assert "inline" in file
        else:
            assert (file["offset"], file["name"]) == (entry["offset"], entry["name"])
            assert file["key"] == key
    blank = re.sub(rb'(crc32c":"|"salt":")[0-9a-f]+', lambda m: _blank(m[0], m[1]), text)
    digest = _sealing.name_of(KEY, _sha256(blank))
    assert key.rpartition("/")[2] == f"archive-{digest}-{len(content)}.tar"


def _blank(whole: bytes, name: bytes) -> bytes:
    return name + b"0" * (len(whole) - len(name))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_nothing_of_a_database_is_readable(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshots = [encrypted.backup(make(n), single_object=True) for n in ("many_files", "blobs")]
    secrets = [databases.value_of(number, 20_000)[:24] for number in range(200, 300)]
    secrets += [databases.value_of(number, 200)[:24] for number in range(1_500)]
    secrets += [databases.value_of(1_000 * r + r, 500)[:24] for r in range(40)]
    secrets += [b"key-0000", b"leveldb.BytewiseComparator", b"rocksdb_version", b"MANIFEST-0000"]
    # Not even what the manifest tells of files is in the archive.
    secrets += [file.path.encode() for snapshot in snapshots for file in snapshot.files]
    secrets += [snapshot.db_id.encode() for snapshot in snapshots]
    secrets += [MATERIAL, MATERIAL.hex().encode()]
    assert len(keys(boto, bucket, "data/")) == 2
    for key in keys(boto, bucket, "data/"):
        content = get(boto, bucket, key)
        assert [secret for secret in secrets if secret in content] == []


def test_an_older_reader_refuses_it(
    encrypted: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = encrypted.backup(make("plain"), single_object=True)
    monkeypatch.setattr(_manifest, "FEATURES", ("packed", "sealed"))
    with pytest.raises(FormatError, match=r"'sealed-archive'.*use a newer kumo_crt"):
        encrypted.snapshot(snapshot.id)
    with pytest.raises(FormatError):
        encrypted.prune(keep_last=1)


def test_keys(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    path = make("plain")
    encrypted.backup(path, single_object=True)
    for act in (
        lambda: keyless.backup(path, single_object=True),
        lambda: keyless.restore(tmp_path / "target"),
        lambda: keyless.restore(tmp_path / "target", column_families=["default"]),
        lambda: keyless.drill(),
        lambda: keyless.repair(path),
    ):
        with pytest.raises(EncryptionKeyError, match="needs its key"):
            act()
    with pytest.raises(EncryptionKeyError, match="encrypted with another key"):
        kumo_crt.Repository.open(url(bucket), client=s3, encryption_key=Key(bytes(32)))
    assert not (tmp_path / "target").exists()
