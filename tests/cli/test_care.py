"""snapshots, verify in parts, restore of parts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from kumo_crt.cli import _units as units
from tests.cli.conftest import Run
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def _keys(boto: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in boto.list_objects_v2(Bucket=bucket).get("Contents", [])]


def _damage(boto: Any, bucket: str) -> str:
    key = next(key for key in _keys(boto, bucket) if key.endswith(".sst"))
    content = bytearray(boto.get_object(Bucket=bucket, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    boto.put_object(Bucket=bucket, Key=key, Body=bytes(content), ChecksumAlgorithm="CRC32C")
    return key


def test_how_fresh_a_repository_is(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    listing = kumo("snapshots", repository, "--max-age", "1h")
    assert listing.code == 0
    assert listing.out.splitlines()[1].split()[-1] == "never"  # verified
    document = kumo("snapshots", repository, "--json").document
    (item,) = document["snapshots"]
    assert document["fresh"] is True
    assert 0 <= item["age_seconds"] < 300
    assert (item["last_verified"], item["last_drill"], item["damaged"]) == (None, None, [])

    assert kumo("verify", repository, "--level", "full").code == 0
    verified = kumo("snapshots", repository, "--json").document["snapshots"][0]["last_verified"]
    age = datetime.now(UTC) - datetime.fromisoformat(verified)
    assert timedelta(seconds=-5) < age < timedelta(minutes=5)

    time.sleep(1.1)  # the service tells its time in whole seconds
    stale = kumo("snapshots", repository, "--max-age", "0s")
    assert stale.code == 3
    assert "older than 0s" in stale.out
    stale = kumo("snapshots", repository, "--max-age", "0", "--json")
    assert (stale.code, stale.document["fresh"]) == (3, False)
    _damage(boto, bucket)
    assert kumo("verify", repository, "--level", "full").code == 3
    assert "DAMAGED" in kumo("snapshots", repository).out


def test_several_databases_are_told_apart(kumo: Run, repository: str, memory_path: Path) -> None:
    assert "database" not in kumo("snapshots", repository).out.splitlines()[0]
    databases.make_one_key(memory_path / "other")
    other = kumo("backup", memory_path / "other", repository, "--json").document["snapshot"]
    head, *rows = kumo("snapshots", repository).out.splitlines()
    assert head.startswith("database  ")
    assert [row.split()[0] == other["db_id"] for row in rows] == [False, True]
    assert rows[1].split()[1] == other["id"]


def test_a_manifest_that_cannot_be_read(
    kumo: Run, boto: Any, bucket: str, repository: str, database: Path
) -> None:
    """The others are listed: which one to restore is what an operator has to know now."""
    good = kumo("backup", database, repository, "--json").document["snapshot"]["id"]
    (bad,) = [key for key in _keys(boto, bucket) if "/snapshots/" in key and good not in key]
    bad_id = bad.rpartition("/")[2].removesuffix(".json")
    boto.put_object(Bucket=bucket, Key=bad, Body=b"{}")
    spare = bad.replace("/snapshots/", "/spares/")
    boto.put_object(Bucket=bucket, Key=spare, Body=b"{}")
    listed = kumo("snapshots", repository)
    assert listed.code == 3
    assert listed.out.splitlines()[1].startswith(f"{good}  ")
    assert f"\nsnapshot {bad_id} DAMAGED: " in listed.out
    assert listed.out.endswith("or forget the snapshot: nothing is pruned until then\n")
    document = kumo("snapshots", repository, "--json").document
    assert [item["id"] for item in document["snapshots"]] == [good]
    assert list(document["unreadable"]) == [bad_id]
    assert kumo("forget", repository, bad_id).code == 0
    assert kumo("snapshots", repository).code == 0


def test_a_repository_without_snapshots_is_not_fresh(
    kumo: Run, boto: Any, bucket: str, repository: str
) -> None:
    for key in _keys(boto, bucket):
        if "/snapshots/" in key or "/spares/" in key:
            boto.delete_object(Bucket=bucket, Key=key)
    outcome = kumo("snapshots", repository, "--max-age", "10y")
    outcome.failed(2, "10y")
    outcome = kumo("snapshots", repository, "--max-age", "9999d")
    assert outcome.code == 3
    assert "none is 9999d00h old, or younger" in outcome.out


def test_parts_of_all_snapshots(
    kumo: Run, boto: Any, bucket: str, repository: str, database: Path
) -> None:
    db = Rdict(str(database), databases.options())
    databases.fill(db, 9000, 9010)
    db.close()
    assert kumo("backup", database, repository).code == 0
    whole = kumo("verify", repository, "--snapshot", "all", "--level", "full", "--json").document
    assert whole["snapshots"] == 2
    assert whole["recorded"] is True
    line = ("verify", repository, "--snapshot", "all", "--level", "full", "--json")
    parts = [kumo(*line, "--subset", f"{n}/2").document for n in (1, 2)]
    assert sum(part["files"] for part in parts) == whole["files"]
    text = kumo(*line[:-1], "--max-bytes", "1kB", "--no-record").out
    assert text.startswith("2 snapshots are sound (full): 1 file of ")
    kumo(*line, "--subset", "3/2").failed(2, "3/2")
    kumo("verify", repository, "--max-bytes", "1kB").failed(2, "full")


def test_damage_for_people_and_programs(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    _damage(boto, bucket)
    text = kumo("verify", repository, "--level", "full")
    assert text.code == 3
    assert "key-00000000 .. key-00001999" in text.out or "key-00002000" in text.out
    problem = kumo("verify", repository, "--level", "full", "--json").document["problems"][0]
    assert bytes.fromhex(problem["smallest_key"]).startswith(b"key-")
    assert len(problem["snapshots"]) == 1
    assert problem["column_family"] == "default"


def test_how_many_snapshots_are_damaged(
    kumo: Run, boto: Any, bucket: str, repository: str, memory_path: Path
) -> None:
    other = memory_path / "other"
    databases.make_plain(other)
    kumo("backup", other, repository)
    line = ("verify", repository, "--snapshot", "all", "--level", "full")
    assert "2 snapshots are sound (full): " in kumo(*line).out
    _damage(boto, bucket)
    damaged = kumo(*line)
    assert damaged.code == 3
    assert "\n1 of 2 snapshots DAMAGED (full): 1 problem in " in damaged.out


def test_repair(
    kumo: Run, boto: Any, bucket: str, repository: str, database: Path, tmp_path: Path
) -> None:
    key = _damage(boto, bucket)
    planned = kumo("repair", repository, database, "--dry-run")
    assert planned.code == 0
    assert "dry run: would repair 1 object" in planned.out
    nothing = kumo("repair", repository, tmp_path)
    assert nothing.code == 3
    assert "1 problem left" in nothing.out
    done = kumo("repair", repository, tmp_path, database, "--json")
    assert done.code == 0
    (item,) = done.document["repaired"]
    assert key.endswith(item["key"])
    assert item["quarantine"].startswith("quarantine/")
    assert kumo("verify", repository, "--level", "full").code == 0
    env = {"KUMO_ENVIRONMENT": "dev"}
    again = kumo("repair", repository, database, env=env)
    assert again.code == 0  # the repository has none
    assert again.out.startswith("nothing is damaged (stored); ")


def test_doctor(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    before = _keys(boto, bucket)
    text = kumo("doctor", repository)
    assert text.code == 0
    assert text.out.startswith("WARNING ")
    assert "\n        -> " in text.out
    assert "\nOK      put: " in text.out
    assert kumo("doctor", repository, "--read-only", "--strict").code == 3
    report = kumo("doctor", f"{repository}-elsewhere", "--json")
    assert report.code == 3
    assert report.document["ok"] is False
    assert {"severity", "check", "message", "fix"} == set(report.document["findings"][0])
    other = kumo("doctor", repository, "--json", "--environment", "dev", "--quiet")
    assert other.document["ok"] is True  # the repository belongs to none
    assert _keys(boto, bucket) == before


def test_restore_of_parts(kumo: Run, bucket: str, tmp_path: Path) -> None:
    path, url = tmp_path / "families", f"s3://{bucket}/families"
    databases.make_column_families(path)
    assert kumo("backup", path, url, "--create").code == 0
    target = tmp_path / "users"
    report = kumo("restore", url, target, "--column-family", "users", "--json").document
    assert report["column_families"] == ["default", "users"]
    expected = [entry for entry in databases.read_all(path) if entry[0] == "users"]
    assert databases.read_all(target) == expected
    kumo("restore", url, tmp_path / "x", "--column-family", "nobody").failed(
        1, "'nobody'", "'users'"
    )
    kumo("restore", url, tmp_path / "x", "--at", "2026-11-23T06:00:00Z").failed(1, "write-ahead")
    whole = kumo("restore", url, path, "--delta")
    assert whole.code == 0
    assert " taken over" in whole.out
    kumo("restore", url, path).failed(1, "--delta")


@pytest.mark.servers("moto")
def test_how_objects_are_stored(kumo: Run, boto: Any, bucket: str, database: Path) -> None:
    url = f"s3://{bucket}/cheap"
    line = ("backup", database, url, "--create", "--storage-class", "STANDARD_IA", "--sse")
    kumo(*line, "rot13").failed(2, "rot13")
    assert kumo(*line, "AES256").code == 0
    listed = boto.list_objects_v2(Bucket=bucket)["Contents"]
    assert {item["StorageClass"] for item in listed if ".sst" in item["Key"]} == {"STANDARD_IA"}
    assert {item["StorageClass"] for item in listed if ".json" in item["Key"]} == {"STANDARD"}
    # It stays like that, and nobody is left to believe otherwise.
    assert kumo(*line, "AES256").code == 0
    kumo(*line, "aws:kms").failed(1, "--sse AES256", "cannot be changed to aws:kms")
    kumo("backup", database, url, "--kms-key-id", "x").failed(2, "--kms-key-id goes with --create")


def test_repair_of_a_manifest(kumo: Run, boto: Any, bucket: str, database: Path) -> None:
    repository = f"s3://{bucket}/one"
    assert kumo("backup", database, repository, "--create").code == 0
    key = next(key for key in _keys(boto, bucket) if "one/snapshots/" in key)
    content = boto.get_object(Bucket=bucket, Key=key)["Body"].read()
    bad = content.replace(b".sst", b".ssu", 1)
    boto.put_object(Bucket=bucket, Key=key, Body=bad)
    snapshot = key.rpartition("/")[2].removesuffix(".json")
    told = kumo("verify", repository)
    assert told.code == 3
    assert "spare is sound: run kumo-crt repair" in told.out
    planned = kumo("repair", repository, "--dry-run")
    assert (planned.code, planned.out) == (0, f"dry run: would repair 1 manifest: {snapshot}\n")
    done = kumo("repair", repository)
    assert (done.code, done.out) == (0, f"repaired 1 manifest: {snapshot}\n")
    assert boto.get_object(Bucket=bucket, Key=key)["Body"].read() == content
    assert kumo("verify", repository).code == 0
    # Without a database there is nothing else that could be repaired.
    table = next(key for key in _keys(boto, bucket) if key.endswith(".sst") and "one/" in key)
    boto.delete_object(Bucket=bucket, Key=table)
    left = kumo("repair", repository)
    assert left.code == 3
    assert "1 problem left: name a database that has the files" in left.out
    assert kumo("repair", repository, database).code == 0
    spare = key.replace("/snapshots/", "/spares/")
    for bad_key in (key, spare):
        boto.put_object(Bucket=bucket, Key=bad_key, Body=bad)
    left = kumo("repair", repository, database)
    assert left.code == 3
    assert "1 problem left, all in manifests whose spares cannot help" in left.out


@pytest.mark.servers("moto")
def test_thawing(kumo: Run, boto: Any, bucket: str, repository: str, tmp_path: Path) -> None:
    for key in _keys(boto, bucket):
        if key.endswith(".sst"):
            boto.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": bucket, "Key": key},
                StorageClass="GLACIER",
            )
    target = tmp_path / "restored"
    kumo("restore", repository, target).failed(1, "--request-thaw")
    full = kumo("verify", repository, "--level", "full", "--json")
    assert full.code == 3
    assert {item["kind"] for item in full.document["problems"]} == {"archived"}
    told = kumo("verify", repository, "--level", "full")
    assert "all of them archived: ask for readable copies (--request-thaw DAYS)" in told.out
    assert "DAMAGED" not in told.out
    lines = (("restore", repository, target), ("verify", repository), ("drill", repository))
    for line in (*lines, ("verify", repository, "--snapshot", "all")):
        for _ in range(2):  # nothing was asked for: moto thaws at once
            planned = kumo(*line, "--request-thaw", "3", "--dry-run", "--json")
            assert (planned.code, planned.document["dry_run"]) == (3, True)
            assert planned.document["thaw"]["requested"] == 2
    asked = kumo("restore", repository, target, "--request-thaw", "3", "--json")
    assert asked.code == 3
    assert asked.document["thaw"]["requested"] == 2
    assert not target.exists()
    assert kumo("restore", repository, target, "--request-thaw", "3").code == 0
    assert kumo("verify", repository, "--level", "full", "--request-thaw", "3").code == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("26h", 93600), ("1w2d3h4m5s", 788645)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5s"), (65, "1m05s"), (3700, "1h01m"), (90_000, "1d01h"), (86_400 * 40, "40d00h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert units.format_age(seconds) == text


def test_a_lost_configuration(
    kumo: Run, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    repository = f"s3://{bucket}/repository"
    assert kumo("backup", database, repository, "--create", "--environment", "prod").code == 0
    (config,) = [key for key in _keys(boto, bucket) if key.endswith("kumo-repository.json")]
    old = boto.get_object(Bucket=bucket, Key=config)["Body"].read()
    line = ("repair-config", repository)
    kumo(*line).failed(1, "nothing is to be done")
    boto.delete_object(Bucket=bucket, Key=config)
    before = _keys(boto, bucket)
    commands: list[tuple[Any, ...]] = [
        ("backup", database, repository),
        ("backup", database, repository, "--create"),
        ("backup", database, repository, "--create", "--dry-run"),
        ("restore", repository, tmp_path / "restored"),
        ("verify", repository),
        ("prune", repository, "--keep-last", 1),
        ("snapshots", repository),
        ("repair", repository, database),
    ]
    for command in commands:
        kumo(*command).failed(1, "is lost; 1 snapshot is there", "kumo-crt repair-config")
    looked = kumo("doctor", repository, "--read-only")
    assert looked.code == 3
    assert "ERROR   repository: " in looked.out
    assert "no repository here" not in looked.out

    kumo(*line, "--environment", "dev").failed(1, "'prod'", "'dev'", "nothing was written")
    planned = kumo(*line, "--dry-run")
    assert planned.out.startswith("dry run: would write the configuration of ")
    assert _keys(boto, bucket) == before

    kumo("keygen", tmp_path / "key")
    with_key = (*line, "--key-file", tmp_path / "key")
    kumo(*with_key).failed(12, "its snapshots are not encrypted")
    done = kumo(*line, "--json").document
    new = boto.get_object(Bucket=bucket, Key=config)["Body"].read()
    assert done["repository_id"].encode() in old
    assert b'"environment": "prod"' in new
    kumo("prune", repository, env={"KUMO_ENVIRONMENT": "dev"}).failed(1, "'prod'", "--environment")
    assert kumo("verify", repository, "--snapshot", "all").code == 0
    assert kumo("restore", repository, tmp_path / "restored").code == 0


def test_nothing_is_not_sound(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    (manifest,) = [key for key in _keys(boto, bucket) if "/snapshots/" in key]
    snapshot = manifest.rpartition("/")[2].removesuffix(".json")
    kumo("pin", repository, snapshot)
    boto.delete_object(Bucket=bucket, Key=manifest)
    boto.delete_object(Bucket=bucket, Key=manifest.replace("/snapshots/", "/spares/"))
    line = ("verify", repository, "--snapshot", "all")
    told = kumo(*line)
    assert told.code == 3
    assert f"snapshots/{snapshot}.json: the manifest is gone" in told.out
    kumo("unpin", repository, snapshot)
    kumo(*line).failed(10, "there is no snapshot yet")


def test_damage_that_is_known(kumo: Run, boto: Any, bucket: str, repository: str) -> None:
    _damage(boto, bucket)
    assert kumo("snapshots", repository).code == 0
    assert kumo("drill", repository).code == 3
    listing = kumo("snapshots", repository)
    assert (listing.code, "DAMAGED" in listing.out) == (3, True)
    assert "DRILL FAILED" not in listing.out  # what is damaged is told, and until it is repaired
