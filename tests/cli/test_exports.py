"""export, import."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from tests.cli.conftest import COMMAND, Run
from tests.support import databases
from tests.support.processes import environment
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def test_round_trip_for_people(kumo: Run, bucket: str, database: Path, tmp_path: Path) -> None:
    url = f"s3://{bucket}/keys"
    out = kumo("export", database, url, "--prefix", "key-0000000")
    assert out.code == 0
    assert out.err == ""
    assert out.out.startswith(f"exported 10 keys of column family 'default' to {url}: 1 file, ")
    back = kumo("import", url, tmp_path / "copy")
    assert back.code == 0
    assert back.out.startswith("imported 10 keys, ")
    assert "into column family 'default'" in back.out
    wanted = [entry for entry in databases.read_all(database) if entry[1] < b"key-00000010"]
    assert databases.read_all(tmp_path / "copy") == wanted
    kumo("export", database, url).failed(1, "there is an export here already")
    kumo("import", url, tmp_path / "copy").failed(1, "has keys already", "--add")
    assert kumo("import", url, tmp_path / "copy", "--add", "--quiet").out == ""
    kumo("import", f"s3://{bucket}/nothing", tmp_path / "new").failed(10, "no export here")
    kumo("export", tmp_path / "nothing", f"s3://{bucket}/other").failed(1, "no such directory")


def test_round_trip_for_programs(kumo: Run, bucket: str, tmp_path: Path) -> None:
    """Of a database that is open, into a column family of one that is closed."""
    url = f"s3://{bucket}/keys"
    db = Rdict(str(tmp_path / "db"), databases.options())
    users = db.create_column_family("users", databases.options())
    for key in (b"\x00", b"\x00\xff", b"\x01", b"\xff"):
        users[key] = key * 3
    range_ = ("--start", "hex:00ff", "--stop", "hex:ff", "--column-family", "users")
    dry = kumo("export", tmp_path / "db", url, *range_, "--json", "--dry-run").document
    assert (dry["dry_run"], dry["export"]["entries"]) == (True, 2)
    line = ("--json", "--format", "jsonl", "--file-size", "1KB", "--max-concurrency", "1")
    document = kumo("export", tmp_path / "db", url, *range_, *line).document
    assert document["export"]["entries"] == 2
    assert document["export"]["encoding"] == "jsonl"
    assert document["export"]["start"] == {"base64": "AP8="}
    assert document["dry_run"] is False
    kumo("import", url, tmp_path / "db", "--json").failed(11, "another process")
    users.close()
    db.close()
    imported = kumo("import", url, tmp_path / "db", "--column-family", "new", "--json").document
    assert (imported["column_family"], imported["export"]["entries"]) == ("new", 2)
    found = [entry for entry in databases.read_all(tmp_path / "db") if entry[0] == "new"]
    assert found == [("new", b"\x00\xff", b"\x00\xff" * 3), ("new", b"\x01", b"\x01" * 3)]


@pytest.mark.parametrize(
    "words",
    [
        ("--start", "hex:0"),
        ("--start", "b", "--stop", "a"),
        ("--format", "csv"),
        ("--file-size", "0"),
    ],
)
def test_usage(kumo: Run, bucket: str, database: Path, words: tuple[str, ...]) -> None:
    kumo("export", database, f"s3://{bucket}/keys", *words).failed(2)


def test_bounds_that_exclude_each_other(kumo: Run, bucket: str, database: Path) -> None:
    refused = kumo("export", database, f"s3://{bucket}/keys", "--prefix", "a", "--start", "b")
    refused.failed(2, "no key fits prefix=b'a', start=b'b' (--prefix, --start)")


def test_a_question_mark_in_a_prefix(kumo: Run, bucket: str, database: Path) -> None:
    kumo("export", database, f"s3://{bucket}/q?x=1").failed(2, "'?' is not possible")


def test_interrupted(
    s3_server: S3Server, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    line = ("export", str(database), f"s3://{bucket}/keys", "--max-bytes-per-second", "100KB")
    with subprocess.Popen(
        [*COMMAND, *line, "--file-size", "10KB"],
        env=environment(s3_server.environment()),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not boto.list_objects_v2(Bucket=bucket).get("Contents"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "kumo-crt: interrupted\n"
    assert boto.list_objects_v2(Bucket=bucket).get("Contents", []) == []
