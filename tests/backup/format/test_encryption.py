"""Encrypted repositories: everything works with the key, and what needs none without it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import EncryptionKeyError, FormatError, Key, _core
from kumo_crt.backup._format._documents import Reader
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    KEY,
    MATERIAL,
    PREFIX,
    content_of,
    get,
    keys,
    manifest_key,
    open_uploads,
    stored_files,
    url,
)
from tests.crypto import reference
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

OTHER = Key(bytes(range(2, 34)))


@pytest.mark.servers("seaweed-http", "moto")
@pytest.mark.parametrize("name", ["plain", "blobs", "column_families", "unflushed_wal", "empty"])
def test_round_trip(
    encrypted: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path, name: str
) -> None:
    path = make(name)
    first = encrypted.backup(path)
    again = encrypted.backup(path)
    assert (again.uploaded_bytes, again.reused_bytes > 0) == (0, bool(stored_files(first)))
    target = tmp_path / "restored"
    report = encrypted.restore(target)
    assert content_of(target) == library.truth(name)
    assert report.total_bytes == sum(f.stat().st_size for f in target.iterdir())
    for level in ("quick", "full"):  # moto tells no checksums of what is stored
        assert encrypted.verify("all", level=level).ok


def test_nothing_of_a_database_is_readable(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    # Large and small tables, blobs, a bundle, a log, and a config that is inline.
    encrypted.backup(make("many_files"))
    encrypted.backup(make("blobs"))
    encrypted.backup(make("unflushed_wal"))
    small = tmp_path / "small"
    Rdict(str(small)).close()
    encrypted.backup(small)
    secrets = [databases.value_of(number, 20_000)[:24] for number in range(200, 300)]
    secrets += [databases.value_of(number, 200)[:24] for number in range(1_500)]
    secrets += [databases.value_of(1_000 * r + r, 500)[:24] for r in range(40)]
    secrets += [b"key-0000", b"leveldb.BytewiseComparator", b"rocksdb_version", b"MANIFEST-0000"]
    stored = keys(boto, bucket)
    assert any("/bundle-" in key for key in stored)
    for key in stored:
        content = get(boto, bucket, key)
        if key.startswith(("snapshots/", "spares/")):
            files = json.loads(content)["files"]
            # Their names are readable.
            content = b"".join(base64.b64decode(f["inline"]) for f in files if "inline" in f)
            assert content
        found = [secret for secret in secrets if secret in content]
        assert not found, key


@pytest.mark.parametrize("name", ["many_files", "blobs", "unflushed_wal"])
def test_it_is_what_the_format_says(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make, name: str
) -> None:
    path = make(name)
    originals = {file.name: file.read_bytes() for file in path.iterdir()}
    snapshot = encrypted.backup(path)
    config = json.loads(get(boto, bucket, "kumo-repository.json"))
    check = reference.mac(MATERIAL, "kumo-crt 1 check", config["repository_id"].encode())
    assert config["features"] == ["encrypted"]
    assert config["encryption"] == {
        "algorithm": "AES-256-GCM-STREAM-1",
        "key_check": check[:16].hex(),
    }
    text = get(boto, bucket, manifest_key(snapshot))
    document = json.loads(text)
    assert "sealed" in document["features"]
    members, _, _ = text.rpartition(b',"crc32c":')
    signed, _, seal = members.rpartition(b',"seal":')
    mac = reference.mac(MATERIAL, "kumo-crt 1 manifest", signed)
    assert seal == b'"' + mac.hex().encode() + b'"'
    assert {"sst", "wal", "manifest"} <= {e["kind"] for e in document["files"]} | {"wal"}
    for entry in document["files"]:
        size = _core.sealed_size(entry["size"])
        if "inline" in entry:
            stored = base64.b64decode(entry["inline"])
        else:
            start = entry.get("offset", 0)
            whole = get(boto, bucket, entry["key"])
            stored = whole[start : start + size]
            if "offset" not in entry:
                assert len(whole) == size
        assert entry["sealed_crc32c"] == f"{_core.crc32c(stored):08x}"
        content = reference.restored(MATERIAL, entry, stored)
        if entry["kind"] in ("sst", "blob", "current"):
            assert content == originals[entry["path"]]
        mask = reference.mac(MATERIAL, "kumo-crt 1 crc", bytes.fromhex(entry["salt"]))[:4]
        crc = int(entry["crc32c"], 16) ^ int.from_bytes(mask, "big")
        assert crc == _core.crc32c(content)
        object_name = entry.get("key", "").rpartition("/")[2]
        if entry["kind"] in ("wal", "manifest", "options") and object_name:
            digest = hashlib.sha256(content).hexdigest().encode()
            named = reference.mac(MATERIAL, "kumo-crt 1 name", digest).hex()
            assert object_name == f"{entry['kind']}-{named}-{entry['size']}"


def test_what_needs_no_key(
    encrypted: kumo_crt.Repository, keyless: kumo_crt.Repository, make: Make
) -> None:
    first = encrypted.backup(make("many_files"), tags={"host": "kv-7"})
    second = encrypted.backup(make("plain"))
    assert [found.id for found in keyless.snapshots()] == [first.id, second.id]
    found = keyless.snapshot(first.id)
    assert found.tags == {"host": "kv-7"}
    assert [(f.path, f.size, f.sealed) for f in found.files] == [
        (f.path, f.size, f.sealed) for f in first.files
    ]
    # What tells something of the content does not.
    assert all(a.crc32c != b.crc32c for a, b in zip(found.files, first.files, strict=True))
    for level in ("quick", "stored", "full"):
        assert keyless.verify("all", level=level).ok
    assert keyless.health()[0].last_verified is not None
    keyless.pin(first.id)
    assert keyless.prune(keep_last=1).removed == ()
    keyless.unpin(first.id)
    keyless.delete_snapshot(first.id)
    assert [snapshot.id for snapshot in encrypted.snapshots()] == [second.id]
    report = keyless.doctor(throughput_bytes=0)
    assert [f.severity for f in report.findings if f.check == "client-side encryption"] == ["info"]
    # That the service encrypts nothing is no harm then.
    assert [f.severity for f in report.findings if f.check == "encryption"] == ["ok"]


def test_what_needs_the_key(
    encrypted: kumo_crt.Repository, keyless: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    encrypted.backup(path)
    for act, what in (
        (lambda: keyless.backup(path), "a backup"),
        (lambda: keyless.restore(tmp_path / "target"), "a restore"),
        (lambda: keyless.restore(tmp_path / "target", dry_run=True), "a restore"),
        (lambda: keyless.drill(), "a drill"),
        (lambda: keyless.verify(level="restore"), "a drill"),
        (lambda: keyless.repair(path), "a repair"),
    ):
        with pytest.raises(EncryptionKeyError, match=f"is encrypted, and {what} needs its key"):
            act()
    assert not (tmp_path / "target").exists()


def test_a_wrong_key_is_refused_at_once(
    encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str, make: Make
) -> None:
    encrypted.backup(make("plain"))
    with pytest.raises(EncryptionKeyError, match=f"encrypted with another key than {OTHER.id}"):
        kumo_crt.Repository.open(url(bucket), client=s3, encryption_key=OTHER)
    with kumo_crt.Repository(url(bucket), client=s3, encryption_key=OTHER) as repository:
        for act in (repository.snapshots, repository.prune, repository.verify):
            with pytest.raises(EncryptionKeyError):
                act()
        findings = {f.check: f for f in repository.doctor(throughput_bytes=0).findings}
    assert findings["client-side encryption"].severity == "error"
    assert "another key" in findings["client-side encryption"].message


def test_a_key_for_a_repository_that_is_not_encrypted(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str, make: Make
) -> None:
    repository.backup(make("plain"))
    with pytest.raises(EncryptionKeyError, match="is not encrypted, and a key was given"):
        kumo_crt.Repository.open(url(bucket), client=s3, encryption_key=KEY)


def test_the_key_of_the_environment(
    s3: kumo_crt.S3Client,
    bucket: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUMO_CRT_KEY", MATERIAL.hex())
    path = make("plain")
    kumo_crt.Repository.create(url(bucket), client=s3).backup(path)
    with kumo_crt.Repository.open(url(bucket), client=s3) as repository:
        repository.restore(tmp_path / "target")
    monkeypatch.setenv("KUMO_CRT_KEY", "nothing")
    with pytest.raises(EncryptionKeyError, match="KUMO_CRT_KEY: holds no key"):
        kumo_crt.Repository.open(url(bucket), client=s3)


def test_those_who_do_not_know_of_it_refuse_it(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = encrypted.backup(make("plain"))
    for key, kind in (
        ("kumo-repository.json", "kumo-repository"),
        (manifest_key(snapshot), "kumo-snapshot"),
    ):
        with pytest.raises(FormatError, match="use a newer kumo_crt"):
            Reader(get(boto, bucket, key), key, kind, ("packed",))


def test_a_part_of_it_and_a_copy_of_it(
    encrypted: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path
) -> None:
    path = make("column_families")
    encrypted.backup(path)
    target = tmp_path / "some"
    encrypted.restore(target, column_families=["users"])
    truth = library.truth("column_families")
    assert content_of(target) == [entry for entry in truth if entry[0] == "users"]
    report = encrypted.restore(path, delta=True)
    assert report.reused_bytes > 0
    assert content_of(path) == truth


def test_a_drill_tells_nobody_else(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = encrypted.backup(make("column_families"))
    first = encrypted.drill()
    second = encrypted.drill()
    assert first.ok
    assert second.ok
    assert second.compared
    assert second.checksums == first.checksums
    (ledger,) = {
        json.dumps(drill["column_families"])
        for key in keys(boto, bucket, "health/")
        for drill in json.loads(get(boto, bucket, key))["drills"]
    }
    families = json.loads(ledger)
    assert set(families) == {"default", "users", "empty"}
    for name, found in families.items():
        context = f"{snapshot.id} {name}".encode()
        mask = int.from_bytes(reference.mac(MATERIAL, "kumo-crt 1 drill", context)[:4], "big")
        assert int(found["crc32c"], 16) ^ mask == first.checksums[name]


_KILLED = """
import os, signal, sys, time
import kumo_crt
MIB = 1 << 20
def progress(done, total):
    if done >= 6 * MIB:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.11)
options = {"part_size": 5 * MIB, "multipart_threshold": 5 * MIB, "max_connections": 1}
with (
    kumo_crt.S3Client(**options) as client,
    kumo_crt.Repository.open(sys.argv[1], client=client) as repository,
):
    repository.backup(sys.argv[2], progress=progress, max_concurrency=1)
"""


def test_a_killed_backup_goes_on_with_its_upload(
    encrypted: kumo_crt.Repository,
    s3_server: S3Server,
    small_parts: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = make("large")
    environment = {**s3_server.environment(), "KUMO_CRT_KEY": MATERIAL.hex()}
    with start_python(_KILLED, url(bucket), str(path), env=environment) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert len(open_uploads(boto, bucket)) == 1
    repository = kumo_crt.Repository.open(url(bucket), client=small_parts, encryption_key=KEY)
    with caplog.at_level(logging.INFO, "kumo_crt.s3"):
        repository.backup(path)
    assert re.search("going on with an upload, [12] parts are there", caplog.text)
    assert not open_uploads(boto, bucket)
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "target")
    assert content_of(tmp_path / "target") == library.truth("large")


def test_what_a_killed_backup_has_sent_is_found(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("big_files")
    snapshot = encrypted.backup(path)
    boto.delete_object(Bucket=bucket, Key=f"{PREFIX}/{manifest_key(snapshot)}")
    before = keys(boto, bucket, "data/")
    again = encrypted.backup(path)
    assert again.uploaded_bytes == 0
    assert keys(boto, bucket, "data/") == before
    assert again.files == snapshot.files


def test_a_file_that_was_not_opened_is_not_taken_for_done(
    encrypted: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    snapshot = encrypted.backup(make("plain"))
    target = tmp_path / "target"
    work = tmp_path / f".target.kumo-restore-{snapshot.id}"
    work.mkdir()
    for file in stored_files(snapshot, "sst"):
        stored = get(boto, bucket, file.key or "")
        (work / file.path).write_bytes(stored if file.path.endswith("8.sst") else bytes(file.size))
    report = encrypted.restore(target)
    assert report.kept_bytes == 0
    assert content_of(target) == library.truth("plain")
    assert os.listdir(tmp_path).count(work.name) == 0


def test_what_is_told_of_bytes(encrypted: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def told(done: int, total: int) -> None:
        seen.append((done, total))

    path = make("many_files")
    planned = encrypted.backup(path, dry_run=True)
    sent = encrypted.backup(path, progress=told)
    stored = sum(file.stored_size for file in sent.files)
    assert seen[-1] == (stored, stored)
    assert sent.uploaded_bytes == sum(file.stored_size for file in stored_files(sent))
    assert planned.uploaded_bytes == sent.uploaded_bytes
    encrypted.restore(tmp_path / "target", progress=told)
    assert seen[-1] == (sent.total_bytes, sent.total_bytes)
    encrypted.verify(level="full", progress=told)
    assert seen[-1] == (sent.uploaded_bytes, sent.uploaded_bytes)
    # What is found again are the same objects, by whatever they are known.
    planned = encrypted.backup(path, dry_run=True)
    again = encrypted.backup(path)
    assert (again.uploaded_bytes, again.reused_bytes) == (0, sent.uploaded_bytes)
    assert planned.reused_bytes == again.reused_bytes
