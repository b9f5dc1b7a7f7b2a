"""backup, restore, snapshots, verify."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.cli.conftest import Run
from tests.support import databases
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def _keys(boto: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in boto.list_objects_v2(Bucket=bucket).get("Contents", [])]


def _data_key(boto: Any, bucket: str) -> str:
    return next(key for key in _keys(boto, bucket) if key.endswith(".sst"))


def test_round_trip_for_people(kumo: Run, bucket: str, database: Path, tmp_path: Path) -> None:
    url = f"s3://{bucket}/a/repository"
    first = kumo("backup", database, url, "--create", "--tag", "host=kv-7")
    assert first.code == 0
    assert first.err == ""
    assert first.out.startswith(f"created the repository {url}\nsnapshot 2")
    second = kumo("backup", database, url)
    assert "; sent 0 B, " in second.out

    table = kumo("snapshots", url).out.splitlines()
    assert len(table) == 3
    assert table[0].split()[0] == "snapshot"
    assert table[1].endswith("host=kv-7")
    assert len({line.index(" ") for line in table[1:]}) == 1  # aligned

    for level in ("quick", "stored", "full"):
        sound = kumo("verify", url, "--level", level)
        assert sound.code == 0
        assert f" is sound ({level}): " in sound.out

    target = tmp_path / "restored"
    restored = kumo("restore", url, target)
    assert restored.code == 0
    assert restored.out.startswith("restored snapshot 2")
    assert databases.read_all(target) == databases.read_all(database)


def test_round_trip_for_programs(kumo: Run, bucket: str, database: Path, tmp_path: Path) -> None:
    url = f"s3://{bucket}/repository"
    line = ("--json", "--tag", "a=b", "--max-concurrency", "2", "--max-bytes-per-second", "1GB")
    backup = kumo("backup", database, url, "--create", *line).document
    snapshot = backup["snapshot"]
    assert backup["dry_run"] is False
    assert snapshot["tags"] == {"a": "b"}
    assert snapshot["column_families"] == ["default"]
    assert snapshot["uploaded_bytes"] > 0
    assert snapshot["created_at"].endswith("Z")

    listing = kumo("snapshots", url, "--json").document
    assert listing["repository"] == url
    assert [item["id"] for item in listing["snapshots"]] == [snapshot["id"]]
    assert listing["snapshots"][0]["total_bytes"] == snapshot["total_bytes"]

    report = kumo("verify", url, "--json", "--level", "full", "--snapshot", snapshot["id"]).document
    assert report["ok"] is True
    assert report["problems"] == []

    target = tmp_path / "restored"
    restored = kumo("restore", url, target, "--json", "--snapshot", snapshot["id"]).document
    assert restored["snapshot"] == snapshot["id"]
    assert restored["target"] == str(target)
    assert restored["total_bytes"] == snapshot["total_bytes"]
    assert databases.read_all(target) == databases.read_all(database)


def test_a_single_object(kumo: Run, boto: Any, bucket: str, database: Path, tmp_path: Path) -> None:
    url = f"s3://{bucket}/repository"
    planned = kumo("backup", database, url, "--create", "--single-object", "--dry-run", "--json")
    outcome = kumo("backup", database, url, "--create", "--single-object")
    done = kumo("backup", database, url, "--single-object", "--json").document
    assert planned.document["snapshot"]["uploaded_bytes"] == done["snapshot"]["reused_bytes"]
    (key,) = (key for key in _keys(boto, bucket) if "/data/" in key)
    assert outcome.out.splitlines()[-1] == f"as one object: s3://{bucket}/{key}"
    assert key == f"repository/{done['snapshot']['single_object']}"
    # As docs/format.md has it, with the command that streams an object.
    archive = tmp_path / "archive.tar"
    assert kumo("get", f"s3://{bucket}/{key}", archive).code == 0
    (tmp_path / "by hand").mkdir()
    subprocess.run(["tar", "xf", archive, "-C", tmp_path / "by hand"], check=True)
    assert kumo("restore", url, tmp_path / "restored").code == 0
    truth = databases.read_all(database)
    assert databases.read_all(tmp_path / "by hand") == truth
    assert databases.read_all(tmp_path / "restored") == truth


def test_quiet_says_nothing(kumo: Run, bucket: str, database: Path, tmp_path: Path) -> None:
    url = f"s3://{bucket}/repository"
    for line in (
        ["backup", database, url, "--create"],
        ["verify", url],
        ["restore", url, tmp_path / "restored"],
    ):
        outcome = kumo(*line, "--quiet")
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert kumo("snapshots", url, "--quiet").out != ""


def test_dry_runs_write_nothing(
    kumo: Run, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    before = sorted(p.name for p in tmp_path.iterdir())
    planned = kumo("backup", database, url, "--create", "--dry-run", "--json").document
    assert planned["dry_run"] is True
    assert _keys(boto, bucket) == []
    done = kumo("backup", database, url, "--create", "--json").document
    assert planned["snapshot"]["total_bytes"] == done["snapshot"]["total_bytes"]

    keys = _keys(boto, bucket)
    again = kumo("backup", database, url, "--dry-run").out
    assert again.startswith("dry run: ")
    assert "would send 0 B" in again
    restore = kumo("restore", url, tmp_path / "restored", "--dry-run")
    assert restore.out.startswith("dry run: would restore snapshot ")
    assert _keys(boto, bucket) == keys
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_repository_is_only_made_when_told_to(
    kumo: Run, boto: Any, bucket: str, database: Path
) -> None:
    url = f"s3://{bucket}/repository"
    outcome = kumo("backup", database, url, "--json")
    outcome.failed(10, "no repository", "--create")
    assert outcome.document["error"]["type"] == "SnapshotNotFoundError"
    assert outcome.document["error"]["exit_code"] == 10
    assert _keys(boto, bucket) == []


def test_what_is_not_there(kumo: Run, bucket: str, repository: str, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    kumo("snapshots", f"s3://{bucket}/elsewhere").failed(10, "no repository")
    kumo("verify", "s3://no-such-bucket-here/repository").failed(10, "no-such-bucket-here")
    kumo("restore", f"s3://{bucket}/elsewhere", target).failed(10)
    missing = "20200101T000000Z-00000000"
    kumo("restore", repository, target, "--snapshot", missing).failed(10, missing)
    kumo("verify", repository, "--snapshot", "yesterday").failed(10, "yesterday")
    assert not target.exists()


def test_an_empty_repository_has_no_snapshots(
    kumo: Run, boto: Any, bucket: str, repository: str
) -> None:
    manifest = next(key for key in _keys(boto, bucket) if "/snapshots/" in key)
    boto.delete_object(Bucket=bucket, Key=manifest)
    told = kumo("snapshots", repository)
    assert told.code == 3
    assert "the manifest is lost" in told.out
    boto.delete_object(Bucket=bucket, Key=manifest.replace("/snapshots/", "/spares/"))
    assert kumo("snapshots", repository).out == "no snapshots\n"
    kumo("verify", repository).failed(10, "no snapshot")


def test_an_open_database(kumo: Run, repository: str, database: Path, tmp_path: Path) -> None:
    """It is captured as it is, without being told; but nothing is restored over it."""
    db = Rdict(str(database), databases.options())
    try:
        db[b"unflushed"] = b"value"
        document = kumo("backup", database, repository, "--json").document
        assert document["snapshot"]["sequence_number"] == db.latest_sequence_number()
        assert kumo("backup", database, repository, "--dry-run").code == 0
        outcome = kumo("restore", repository, database, "--overwrite", "--json")
        outcome.failed(11, str(database), "open in another process: close it there first")
        assert outcome.document["error"]["type"] == "RepositoryLockedError"
    finally:
        db.close()
    assert kumo("restore", repository, tmp_path / "restored").code == 0
    assert databases.read_all(tmp_path / "restored") == databases.read_all(database)


def test_a_database_of_many_tiny_files(kumo: Run, repository: str, memory_path: Path) -> None:
    path = memory_path / "db"
    db = Rdict(str(path), databases.options(small_files=True))
    for number in range(257):
        databases.fill(db, number, number + 2)
        db.flush()
    outcome = kumo("backup", path, repository, "--json", "--dry-run")
    (warning,) = outcome.document["warnings"]
    assert warning.startswith("257 files of level 0 ")
    assert outcome.err == f"kumo-crt: warning: {warning}\n"
    kumo("backup", path, repository, "--compact-first").failed(11, "is open")
    db.close()
    document = kumo("backup", path, repository, "--compact-first", "--json").document
    assert document["warnings"] == []
    assert document["snapshot"]["files"] < 10


def test_a_target_with_a_database_needs_overwrite(
    kumo: Run, repository: str, database: Path
) -> None:
    kumo("restore", repository, database).failed(1, "--overwrite")
    content = databases.read_all(database)
    assert kumo("restore", repository, database, "--overwrite").code == 0
    assert databases.read_all(database) == content


def test_no_database(kumo: Run, repository: str, tmp_path: Path) -> None:
    kumo("backup", tmp_path / "nothing", repository).failed(1, "nothing: no such directory: name")
    kumo("backup", __file__, repository).failed(1, "test_repositories.py: is no directory: name")
    kumo("backup", tmp_path, repository).failed(1, "no database: there is no CURRENT file")
    url = f"{repository}-elsewhere"
    kumo("backup", tmp_path, url, "--create").failed(1, "no database: there is no CURRENT file")
    kumo("snapshots", url).failed(10)


def test_another_environment_is_refused(kumo: Run, boto: Any, bucket: str, database: Path) -> None:
    url = f"s3://{bucket}/repository"
    assert kumo("backup", database, url, "--create", "--environment", "prod").code == 0
    keys = _keys(boto, bucket)
    kumo("backup", database, url, "--environment", "dev").failed(1, "'prod'", "'dev'")
    kumo("backup", database, url, env={"KUMO_ENVIRONMENT": "dev"}).failed(1, "'prod'")
    assert _keys(boto, bucket) == keys


def test_verify_finds_a_missing_object(
    kumo: Run, boto: Any, bucket: str, repository: str, tmp_path: Path
) -> None:
    boto.delete_object(Bucket=bucket, Key=_data_key(boto, bucket))
    for level in ("quick", "stored", "full"):
        outcome = kumo("verify", repository, "--level", level)
        assert outcome.code == 3
        assert "DAMAGED" in outcome.out
        assert "missing" in outcome.out
        assert outcome.err == ""
    report = kumo("verify", repository, "--json")
    assert report.code == 3
    assert report.document["ok"] is False
    assert report.document["problems"][0]["kind"] == "missing"
    kumo("restore", repository, tmp_path / "restored").failed(1, "missing")
    assert not (tmp_path / "restored").exists()


def test_verify_finds_changed_content(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    key = _data_key(boto, bucket)
    content = bytearray(boto.get_object(Bucket=bucket, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    boto.put_object(Bucket=bucket, Key=key, Body=bytes(content), ChecksumAlgorithm="CRC32C")
    assert kumo("verify", repository, "--level", "quick").code == 0  # as its description says
    report = kumo("verify", repository, "--level", "full", "--json")
    assert report.code == 3
    assert [item["kind"] for item in report.document["problems"]] == ["checksum"]


def test_credentials(kumo: Run, repository: str, bucket: str) -> None:
    outcome = kumo("snapshots", repository, "--json", env={"AWS_SECRET_ACCESS_KEY": "wrong"})
    outcome.failed(12)
    assert outcome.document["error"]["exit_code"] == 12
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    kumo("ls", f"s3://{bucket}", env=none).failed(12, "redentials")
    kumo("ls", f"s3://{bucket}", "--anonymous").failed(12)


def test_unreachable_endpoint(kumo: Run, repository: str) -> None:
    with socket.socket() as reserved:  # bound and not listening: refuses
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        env = {"KUMO_CRT_MAX_ATTEMPTS": "1"}
        outcome = kumo("snapshots", repository, "--endpoint-url", url, "--json", env=env)
    outcome.failed(1, url.removeprefix("http://"))
    assert outcome.document["error"]["type"] == "TransportError"


def test_verbose_logs_and_debug_shows_tracebacks(kumo: Run, repository: str, bucket: str) -> None:
    debug = kumo("snapshots", f"s3://{bucket}/elsewhere", "-vv", "--json")
    assert debug.code == 10
    assert debug.document["error"]["exit_code"] == 10
    assert "Traceback" in debug.err
    assert " DEBUG kumo_crt.crt." in debug.err
    info = kumo("snapshots", repository, "-v")
    assert info.code == 0
    assert "DEBUG" not in info.err
    assert "requests (GetObject " in info.err
    assert "ListObjectsV2 " in info.err


@pytest.mark.servers("seaweed-https")
def test_tls(kumo: Run, s3_server: S3Server, bucket: str) -> None:
    system = {"AWS_CA_BUNDLE": "", "KUMO_CRT_MAX_ATTEMPTS": "1"}
    url = f"s3://{bucket}"
    kumo("ls", url, env=system).failed(1, "AWS_CA_BUNDLE")
    assert kumo("ls", url, "--ca-file", s3_server.ca_file, env=system).code == 0
    unsafe = kumo("ls", url, "--no-verify-tls", env=system)
    assert unsafe.code == 0
    assert unsafe.err.startswith("kumo-crt: warning: --no-verify-tls")


def test_a_database_that_is_refused_leaves_no_repository(
    kumo: Run, boto: Any, bucket: str, database: Path
) -> None:
    min(database.glob("*.sst")).unlink()
    kumo("backup", database, f"s3://{bucket}/new", "--create").failed(1, "it is not there")
    assert boto.list_objects_v2(Bucket=bucket).get("Contents", []) == []


def test_what_an_interrupted_backup_had_sent_is_not_said_to_be_sent(
    kumo: Run, boto: Any, bucket: str, database: Path, s3: kumo_crt.S3Client
) -> None:
    with Rdict(str(database), databases.options()) as db:
        for number in range(12):
            db[b"large-%02d" % number] = os.urandom(1 << 20)
        db.flush()
    url = f"s3://{bucket}/repository"
    sizes = {"KUMO_CRT_PART_SIZE": "5MiB", "KUMO_CRT_MULTIPART_THRESHOLD": "5MiB"}
    planned = kumo_crt.Repository.create(url, client=s3).backup(database, dry_run=True)
    file = max(planned.files, key=lambda file: file.size)
    key, checksum = f"repository/{file.key}", {"ChecksumAlgorithm": "CRC32C"}
    where = {"Bucket": bucket, "Key": key}
    upload = boto.create_multipart_upload(**where, **checksum, ChecksumType="FULL_OBJECT")
    first = (database / file.path).read_bytes()[: 5 << 20]
    where["UploadId"] = upload["UploadId"]
    boto.upload_part(**where, **checksum, PartNumber=1, Body=first)
    outcome = kumo("backup", database, url, env=sizes)
    assert outcome.code == 0, outcome.err
    assert "MB, 5.24 MB had been sent by an interrupted backup, 0 B already" in outcome.out
