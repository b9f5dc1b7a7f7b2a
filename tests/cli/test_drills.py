"""drill, and what snapshots tells of drills."""

from __future__ import annotations

import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup import SnapshotHealth
from kumo_crt.cli._care import _failed_drills
from tests.cli.conftest import Run
from tests.cli.test_care import _damage, _keys
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def test_drill(kumo: Run, boto: Any, bucket: str, repository: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = _keys(boto, bucket)
    assert kumo("verify", repository, "--level", "full", "--dry-run").code == 0
    assert kumo("doctor", repository, "--dry-run").code == 0
    planned = kumo("drill", repository, "--scratch", scratch, "-n", "--json").document
    assert (planned["target"], planned["dry_run"]) == (str(scratch), True)
    assert (_keys(boto, bucket), list(scratch.iterdir())) == (before, [])
    done = kumo("drill", repository, "--scratch", scratch, "--max-rto", "5m", "--max-age", "1h")
    assert done.code == 0
    assert "4,000 entries in 1 column family" in done.out
    assert "recovered in " in done.out
    again = kumo("drill", repository, "--scratch", scratch, "--json")
    assert (again.code, again.document["compared"]) == (0, True)
    assert again.document["entries"] == {"default": 4000}
    late = kumo("drill", repository, "--scratch", scratch, "--max-rto", "0", "--no-record")
    assert late.code == 3
    assert "rto: " in late.out
    _damage(boto, bucket)
    broken = kumo("drill", repository, "--scratch", scratch, "--json")
    assert broken.code == 3
    assert [item["kind"] for item in broken.document["problems"]] == ["checksum"]
    level = kumo("verify", repository, "--level", "restore")
    assert level.code == 3
    told = kumo("drill", repository, "--scratch", scratch)
    assert told.code == 3
    assert "recovered" not in told.out
    assert re.search(r"\d{6}\.sst +checksum +default +\S+ \.\. \S+ +1 ", told.out)
    assert "so does repair" in told.out
    assert list(scratch.iterdir()) == []
    kumo("drill", f"{repository}-elsewhere").failed(10)


def test_a_drill_that_failed_is_told_until_one_succeeds(
    kumo: Run, repository: str, database: Path, tmp_path: Path
) -> None:
    """A table that was rotten before it was backed up: all checksums are those of what was."""
    assert kumo("drill", repository).code == 0
    rotten = tmp_path / "rotten"
    db = Rdict(str(rotten), databases.options())
    databases.fill(db, 0, 1000)
    db.flush()
    databases.fill(db, 500, 1500)  # so that compacting makes new tables
    db.close()
    good = tmp_path / "good"
    shutil.copytree(rotten, good)
    table = min(rotten.glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[100] ^= 1
    table.write_bytes(content)
    failed = kumo("backup", rotten, repository, "--json").document["snapshot"]["id"]
    assert kumo("snapshots", repository).code == 0
    assert kumo("drill", repository).code == 3
    assert kumo("verify", repository, "--level", "full").code == 0  # which is no drill
    listing = kumo("snapshots", repository)
    assert listing.code == 3  # though the other database's was good
    lines = listing.out.splitlines()
    assert "DRILL FAILED" in lines[2]
    assert "DRILL FAILED" not in lines[1]
    assert lines[3].startswith(f"the drill of snapshot {failed} at 2")
    assert "Z FAILED (content), and none " in lines[3]
    assert lines[3].endswith(f" since: kumo-crt drill --snapshot {failed} tells why")
    item = kumo("snapshots", repository, "--json").document["snapshots"][1]
    assert (item["drill_problem"], item["last_drill"]) == ("content", None)
    assert item["drill_failed"].endswith("Z")
    time.sleep(1.1)  # ledgers tell their times in whole seconds
    kumo("backup", good, repository, "--compact-first")
    assert kumo("snapshots", repository).code == 3
    assert kumo("drill", repository).code == 0
    listing = kumo("snapshots", repository)
    assert listing.code == 0  # a later one is known to be good
    assert listing.out.count("DRILL FAILED") == 1
    assert kumo("forget", repository, failed).code == 0
    assert "DRILL FAILED" not in kumo("snapshots", repository).out


def test_a_good_drill_of_an_older_snapshot_is_no_news_of_the_newest() -> None:
    at = datetime(2026, 11, 23, 6, tzinfo=UTC)

    def drilled(number: int, good: int | None, failed: int | None) -> SnapshotHealth:
        name = f"20261123T06000{number}Z-0a1b2c3d"
        times = [None if hour is None else at + timedelta(hours=hour) for hour in (good, failed)]
        snapshot = kumo_crt.Snapshot(name, at, "db", (), 0, 0, 0, 0, (), {})
        return SnapshotHealth(snapshot, 0, None, times[0], (), times[1])

    def told(*drills: SnapshotHealth) -> list[str]:
        return [item.snapshot.id[14:16] for item in _failed_drills(list(drills))]

    assert told(drilled(1, 2, None), drilled(2, None, 1)) == ["2Z"]
    assert told(drilled(1, None, 1), drilled(2, 2, None)) == []
    assert told(drilled(1, None, 2), drilled(2, 1, None)) == ["1Z"]
    assert told(drilled(1, None, 2), drilled(2, None, 1)) == ["1Z"]
    assert told(drilled(1, None, 1), drilled(2, 3, None), drilled(3, None, 2)) == ["3Z"]
