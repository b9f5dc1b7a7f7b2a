"""Encrypted repositories that are damaged, tampered with, verified and repaired."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import FormatError, IntegrityError, _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _manifest, _sealing
from kumo_crt.backup._send._sending import SealedContent
from kumo_crt.backup._verify import _job
from tests.backup.conftest import Library, Make
from tests.backup.damaging import contents, damage, forged, largest_table
from tests.backup.helpers import (
    KEY,
    MATERIAL,
    closed,
    content_of,
    delete,
    flipped,
    get,
    key_of,
    keys,
    manifest_key,
    put,
    replace_manifest,
    stored_files,
    url,
)

pytestmark = pytest.mark.servers("seaweed-http")


def _forge(boto: Any, bucket: str, file: kumo_crt.SnapshotFile) -> None:
    start = file.offset or 0
    content = get(boto, bucket, key_of(file))
    put(boto, bucket, key_of(file), forged(content, start, start + file.stored_size))


def test_what_only_the_key_can_tell(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    snapshot = encrypted.backup(make("plain"))
    file = stored_files(snapshot, "sst")[0]
    _forge(boto, bucket, file)
    # S3, and who reads it without the key, find the CRC32C that it had.
    assert keyless.verify(level="stored").ok
    assert keyless.verify(level="full").ok
    report = encrypted.verify(level="full")
    (problem,) = report.problems
    assert (problem.key, problem.path, problem.kind) == (file.key, file.path, "checksum")
    assert "has the CRC32C that the manifest says, but chunk" in problem.message
    assert "is not authentic" in problem.message
    with pytest.raises(IntegrityError, match=f"{file.path}: .*is not authentic"):
        encrypted.restore(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_only_the_key_can_tell_of_a_bundle(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    snapshot = encrypted.backup(make("many_files"))
    file = [found for found in stored_files(snapshot, "sst") if found.offset is not None][7]
    _forge(boto, bucket, file)
    assert keyless.verify(level="full").ok
    assert [p.path for p in encrypted.verify(level="full").problems] == [file.path]
    with pytest.raises(IntegrityError, match=file.path):
        encrypted.restore(tmp_path / "target")


def test_objects_of_others_are_not_taken(
    encrypted: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    each_alone: None,
) -> None:
    path = make("many_files")
    snapshot = encrypted.backup(path)
    files = stored_files(snapshot, "sst")
    first, second = next(
        (a, b) for a in files for b in files if a is not b and a.stored_size == b.stored_size
    )
    content = get(boto, bucket, key_of(second))
    delete(boto, bucket, key_of(first))
    put(boto, bucket, key_of(first), content)
    (problem,) = encrypted.verify(level="full").problems
    assert problem.path == first.path
    with pytest.raises(IntegrityError, match=first.path):
        encrypted.restore(tmp_path / "target")


def _with_crc(text: bytes) -> bytes:
    """What was changed in a sealed manifest, as it would be without a seal."""
    return _manifest.close_document(text.rpartition(b',"crc32c":')[0])


@pytest.mark.parametrize("how", ["changed", "unsealed", "another seal", "plaintext"])
def test_manifests_cannot_be_made_without_the_key(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    path = make("plain")
    snapshot = encrypted.backup(path, tags={"host": "kv-7"})
    key = manifest_key(snapshot)
    text = get(boto, bucket, key)
    document = json.loads(text)
    if how == "changed":
        text = _with_crc(text.replace(b'"kv-7"', b'"kv-8"'))
    elif how == "another seal":
        text = _with_crc(flipped(text, text.index(b'"seal":"') + 20))
    else:
        del document["seal"]
        if how == "plaintext":
            document["features"] = []
        text = closed(document)
    replace_manifest(boto, bucket, snapshot, text)
    with pytest.raises(FormatError, match="field seal: it was not made with this repository's key"):
        encrypted.restore(tmp_path / "target")
    (problem,) = encrypted.verify().problems
    assert problem.kind == "manifest"
    if how in ("changed", "unsealed"):
        assert keyless.snapshot().id == snapshot.id
    # A backup does not believe it.
    with caplog.at_level(logging.WARNING, "kumo_crt.backup"):
        encrypted.backup(path)
    assert "not looking for known files in a damaged manifest" in caplog.text
    encrypted.restore(tmp_path / "target")


def test_a_snapshot_of_another_repository(
    encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    """With the same key: its objects could be brought here, too."""
    path = make("plain")
    other = kumo_crt.Repository.create(url(bucket, "kv/other"), client=s3, encryption_key=KEY)
    snapshot = other.backup(path)
    encrypted.backup(path)
    where = f"kv/other/{manifest_key(snapshot)}"
    content = boto.get_object(Bucket=bucket, Key=where)["Body"].read()
    put(boto, bucket, manifest_key(snapshot), content)
    with pytest.raises(FormatError, match=r"field repository_id: .*is another repository's"):
        encrypted.snapshot(snapshot.id)


def test_a_configuration_without_encryption_is_no_way_round(
    encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    encrypted.backup(make("plain"))
    document = json.loads(get(boto, bucket, "kumo-repository.json"))
    del document["features"], document["encryption"]
    put(boto, bucket, "kumo-repository.json", closed(document))
    with pytest.raises(kumo_crt.EncryptionKeyError, match="is not encrypted, and a key was given"):
        kumo_crt.Repository.open(url(bucket), client=s3, encryption_key=KEY)
    with pytest.raises(kumo_crt.EncryptionKeyError):
        encrypted.backup(make("deletions"))


@pytest.mark.parametrize("how", ["checksum", "size", "missing"])
def test_damage_is_told_and_repaired(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    path = make("column_families")
    snapshot = encrypted.backup(path)
    before = contents(boto, bucket)
    file = stored_files(snapshot, "sst")[0]
    damage(boto, bucket, key_of(file), how)
    with caplog.at_level(logging.WARNING, "kumo_crt.backup"):
        (told,) = keyless.verify(level="full").problems
    assert (told.path, told.column_family) == (file.path, None)
    assert "can only be told with the repository's encryption key" in caplog.text
    (told,) = encrypted.verify(level="full").problems
    assert (told.path, told.column_family) == (file.path, "users")
    assert told.smallest_key == b"key-%08d" % 100
    report = encrypted.repair(path, level="full")
    assert report.ok
    assert [item.path for item in report.repaired] == [file.path]
    # The same bytes again: whoever knew the object still does.
    assert contents(boto, bucket) == before
    encrypted.restore(tmp_path / "target")
    assert content_of(tmp_path / "target") == library.truth("column_families")


def test_a_bundle_is_repaired(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    snapshot = encrypted.backup(path)
    files = [file for file in stored_files(snapshot, "sst") if file.offset is not None]
    key = key_of(files[0])
    content = get(boto, bucket, key)
    damage(boto, bucket, key, "checksum", files[3].offset)
    # Some of the files are gone from the source: what is good of the bundle is taken.
    for file in files[10:20]:
        (path / file.path).unlink()
    report = encrypted.repair(path, level="full")
    assert report.ok, report.remaining
    assert get(boto, bucket, key) == content
    encrypted.restore(tmp_path / "target")


def test_workers_have_the_key(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make, each_alone: None
) -> None:
    snapshot = encrypted.backup(make("many_files"))
    file = stored_files(snapshot, "sst")[3]
    _forge(boto, bucket, file)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as executor:
        report = encrypted.verify("all", level="full", executor=executor)
    assert [problem.path for problem in report.problems] == [file.path]


def test_a_job_does_not_show_the_key(encrypted: kumo_crt.Repository, make: Make) -> None:
    encrypted.backup(make("plain"))
    shown: list[str] = []

    class Here(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any, **kw: Any) -> concurrent.futures.Future[Any]:
            job = pickle.loads(pickle.dumps(args[0]))
            assert isinstance(job, _job.VerifyJob)
            assert job.key is not None
            shown.extend((repr(job), repr(job.key), str(vars(type(job)))))
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(fn(job))
            return future

    assert encrypted.verify(level="full", executor=Here()).ok
    assert shown
    for text in shown:
        assert MATERIAL.hex() not in text
        assert repr(MATERIAL)[2:-1] not in text


def _captured(path: Path, checksum: int | None = None) -> CapturedFile:
    return CapturedFile(path.name, "sst", 12, path, path.stat().st_size, checksum=checksum)


def test_rocksdbs_own_checksum_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "000012.sst"
    path.write_bytes(b"content" * 1000)
    good = _core.crc32c(path.read_bytes())
    stored = SealedContent(_captured(path, good), KEY).crc32c()
    assert stored == SealedContent(_captured(path), KEY).crc32c()
    with pytest.raises(IntegrityError, match="RocksDB recorded"):
        SealedContent(_captured(path, good ^ 1), KEY).crc32c()


def test_a_file_that_changes_while_it_is_read(
    encrypted: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("plain")
    examine = _sealing.examine_task

    def and_change(
        key: kumo_crt.Key, descriptor: int, size: int, path: Path
    ) -> Generator[Any, Any, _sealing.Examined]:
        found = yield from examine(key, descriptor, size, path)
        if path.name.endswith(".sst"):
            content = path.read_bytes()
            with open(path, "r+b") as file:
                file.write(flipped(content, 1000))
        return found

    monkeypatch.setattr(_sealing, "examine_task", and_change)
    with pytest.raises(IntegrityError, match="changed while it was being read: chunk 0"):
        encrypted.backup(path)
    assert not [key for key in keys(boto, bucket, "data/") if "/sst-" in key]
    assert encrypted.snapshots() == []


def test_a_restored_copy_is_a_source(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("blobs")
    snapshot = encrypted.backup(path)
    copy = tmp_path / "copy"
    encrypted.restore(copy)
    shutil.rmtree(path)
    for file in stored_files(snapshot):
        delete(boto, bucket, key_of(file))
    report = encrypted.repair(copy)
    assert report.ok, report.remaining
    assert encrypted.verify(level="full").ok


def test_a_disk_that_fills_up(
    encrypted: kumo_crt.Repository,
    library: Library,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encrypted.backup(make("plain"))
    target = tmp_path / "target"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(kumo_crt.RepositoryError) as caught:
            encrypted.restore(target)
    assert str(caught.value).startswith(f"{tmp_path}/.target.kumo-restore-")
    assert ": No space left on device: " in str(caught.value)
    assert not target.exists()
    encrypted.restore(target)
    assert content_of(target) == library.truth("plain")


@pytest.mark.parametrize("name", ["plain", "many_files"])
def test_an_object_that_has_grown(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    name: str,
) -> None:
    _, file, content = largest_table(encrypted, boto, bucket, make(name))
    put(boto, bucket, key_of(file), content + b"more")
    for repository in (encrypted, keyless):
        problems = repository.verify(level="full").problems
        assert {problem.key for problem in problems} == {file.key}
        assert {problem.kind for problem in problems} == {"size"}
