"""prune, pin, unpin, forget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.cli.conftest import Run

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def repository(s3: kumo_crt.S3Client, bucket: str) -> str:
    """An empty repository."""
    url = f"s3://{bucket}/repository"
    kumo_crt.Repository.create(url, client=s3)
    return url


@pytest.fixture
def snapshots(s3: kumo_crt.S3Client, repository: str, database: Path) -> list[str]:
    """Ids of three snapshots of one database."""
    opened = kumo_crt.Repository.open(repository, client=s3)
    return [opened.backup(database).id for _ in range(3)]


def _ids(s3: kumo_crt.S3Client, url: str) -> list[str]:
    return [item.id for item in kumo_crt.Repository(url, client=s3).snapshots()]


def test_for_people(
    kumo: Run, s3: kumo_crt.S3Client, repository: str, snapshots: list[str]
) -> None:
    first, second, third = snapshots
    assert kumo("pin", repository, first).out == f"snapshot {first} pinned\n"
    lines = kumo("snapshots", repository).out.splitlines()
    assert [("pinned" in line) for line in lines] == [False, True, False, False]
    planned = kumo("prune", repository, "--keep-last", 1, "--dry-run")
    done = kumo("prune", repository, "--keep-last", 1)
    for outcome in (planned, done):
        assert outcome.code == 0
        assert outcome.err == ""
        rows = [line.split() for line in outcome.out.splitlines()[1:4]]
        assert rows == [
            [first, "keep", "pinned"],
            [second, "remove"],
            [third, "keep", "last"],
        ]
    assert "dry run: 1 snapshot would be removed, 2 kept; " in planned.out
    assert "\n1 snapshot removed, 2 kept; 0 objects, 0 B deleted; " in done.out
    assert _ids(s3, repository) == [first, third]
    refused = kumo("forget", repository, first)
    refused.failed(1, f"{first} is pinned: unpin it")
    assert kumo("unpin", repository, first).code == 0
    gone = kumo("forget", repository, first, first)
    assert (gone.code, gone.out) == (0, f"snapshot {first} deleted\n")
    assert _ids(s3, repository) == [third]
    nothing = kumo("prune", repository, "--quiet")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no --keep rule was given" in kumo("prune", repository).out
    assert "0 is no --keep rule" in kumo("prune", repository, "--keep-last", "0").out


def test_for_programs(
    kumo: Run, s3: kumo_crt.S3Client, repository: str, snapshots: list[str]
) -> None:
    first, second, third = snapshots
    done = kumo("pin", repository, first, second, "--json").document
    assert done == {"snapshots": [first, second], "done": "pinned", "dry_run": False}
    listed = kumo("snapshots", repository, "--json").document["snapshots"]
    assert [item["pinned"] for item in listed] == [True, True, False]
    none = "20261123T060000Z-0a1b2c3d"
    kumo("unpin", repository, second, none).failed(10, f"no snapshot {none}")
    listed = kumo("snapshots", repository, "--json").document["snapshots"]
    assert [item["pinned"] for item in listed] == [True, True, False]
    kumo("unpin", repository, second, "--json")
    rules = ("--keep-within", "7d12h", "--keep-daily", "all", "--keep-monthly", 12)
    report = kumo("prune", repository, *rules, "--delete-versions", "--json").document
    assert report["kept"][third] == ["within", "daily", "monthly"]
    assert report["removed"] == []
    report = kumo("prune", repository, "--keep-last", 1, "--json", "-n").document
    assert report["dry_run"] is True
    assert report["removed"] == [second]
    assert set(report["kept"]) == {first, third}
    assert _ids(s3, repository) == snapshots
    done = kumo("delete-snapshot", repository, second, "--json", "--dry-run").document
    assert done == {"snapshots": [second], "done": "deleted", "dry_run": True}
    assert kumo("delete-snapshot", repository, second, "--json").code == 0
    assert _ids(s3, repository) == [first, third]


@pytest.mark.parametrize("command", ["prune", "pin", "forget"])
def test_exit_codes(kumo: Run, bucket: str, repository: str, command: str) -> None:
    none = "20261123T060000Z-0a1b2c3d"
    arguments: list[Any] = [] if command == "prune" else [none]
    kumo(command, f"s3://{bucket}/nothing", *arguments).failed(10, "no repository here")
    kumo(command, "s3://there-is-no-such-bucket/x", *arguments).failed(10)
    refused = kumo(command, repository, *arguments, env={"AWS_SECRET_ACCESS_KEY": "wrong"})
    refused.failed(12)
    if command != "prune":
        kumo(command, repository, none).failed(10, none)
        kumo(command, repository, none, "--dry-run").failed(10, none)
    assert kumo(command).code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ("--keep-last", "-2"),
        ("--keep-daily", "1.5"),
        ("--keep-hourly", "some"),
        ("--keep-within", "7w"),
        ("--keep-within", "0d"),
        ("--keep-yearly", "1"),
    ],
)
def test_rules_that_are_none(kumo: Run, wrong: tuple[str, str]) -> None:
    kumo("prune", "s3://bucket/repository", *wrong).failed(2)


def test_locked(kumo: Run, repository: str, boto: Any, bucket: str) -> None:
    boto.put_object(
        Bucket=bucket, Key=f"repository/inflight/prune-{'0' * 32}-000000.json", Body=b"?"
    )
    kumo("prune", repository, timeout=30).failed(11, "is being pruned")
    # Backups go on.
    assert kumo("snapshots", repository).code == 0


def test_another_environment(kumo: Run, bucket: str, database: Path) -> None:
    url = f"s3://{bucket}/prod"
    assert kumo("backup", database, url, "--create", "--environment", "prod").code == 0
    refused = kumo("prune", url, "--keep-last", 1, env={"KUMO_ENVIRONMENT": "dev"})
    refused.failed(1, "belongs to environment 'prod'")
