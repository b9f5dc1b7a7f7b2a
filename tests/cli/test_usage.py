"""What the command says to command lines that cannot be, and to questions about itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt.cli import main
from tests.cli.conftest import COMMAND, Run
from tests.support.processes import environment

pytestmark = pytest.mark.servers("seaweed-http")

BAD_LINES = [
    [],
    ["no-such-command"],
    ["--no-such-option"],
    ["snapshots"],
    ["snapshots", "/local/path"],
    ["snapshots", "https://host/bucket"],
    ["snapshots", "s3:///prefix"],
    ["snapshots", "s3://bucket/a//b"],
    ["ls", "s3://ab"],
    ["ls", "bucket/key"],
    ["put", "-", "s3://bucket/"],
    ["get", "s3://bucket", "file"],
    ["verify", "s3://bucket/p", "--level", "thorough"],
    ["backup", "db", "s3://bucket/p", "--tag", "no-value"],
    ["backup", "db", "s3://bucket/p", "--tag", "=x"],
    ["backup", "db", "s3://bucket/p", "--max-bytes-per-second", "fast"],
    ["backup", "db", "s3://bucket/p", "--max-bytes-per-second", "0"],
    ["backup", "db", "s3://bucket/p", "--max-concurrency", "0"],
    ["backup", "db", "s3://bucket/p", "--max-conc", "3"],
    ["snapshots", "s3://bucket/p", "--endpoint-url", "localhost:9000"],
    ["snapshots", "s3://bucket/p", "--ca-file", "/no/such/file.pem"],
    ["snapshots", "s3://bucket/p", "--addressing-style", "odd"],
    ["demo", "--size", "1MB"],
    ["demo", "--region", "eu-west-1"],
    ["bench"],
    ["bench", "s3://bucket/p", "--objects", "0"],
]


@pytest.mark.parametrize("line", BAD_LINES, ids=" ".join)
def test_usage_errors(capfd: pytest.CaptureFixture[str], line: list[str]) -> None:
    # In this process, which is much faster; the next test does the same from outside.
    assert main(line) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("kumo-crt: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "line", [["no-such-command"], ["snapshots", "/local"], ["get", "s3://b-b/k", "-"]]
)
def test_usage_errors_as_json(kumo: Run, line: list[str]) -> None:
    outcome = kumo("--json", *line)
    outcome.failed(2)
    error = outcome.document["error"]
    assert error["exit_code"] == 2
    assert error["type"] == "UsageError"
    assert f"kumo-crt: error: {error['message']}\n" == outcome.err


def test_help_names_the_commands_that_exist_and_the_exit_codes(kumo: Run) -> None:
    outcome = kumo("--help")
    assert outcome.code == 0
    for word in (
        "backup",
        "restore",
        "snapshots",
        "verify",
        "repair",
        "drill",
        "doctor",
        "put",
        "get",
        "ls",
        "completion",
    ):
        assert f"\n    {word} " in outcome.out
    for word in ("demo", "bench", "prune", "pin", "unpin", "forget", "delete-snapshot"):
        assert f"\n    {word} " in outcome.out
    for word in ("replicate", "events"):
        assert f"\n    {word} " not in outcome.out
    for word in ("KUMO_ENVIRONMENT", "AWS_CA_BUNDLE", "11 locked"):
        assert word in outcome.out


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        *((name, True) for name in ("backup", "restore", "put", "get", "bench")),
        *((name, False) for name in ("snapshots", "verify", "ls", "demo")),
    ],
)
def test_every_command_has_the_common_options(
    capfd: pytest.CaptureFixture[str], command: str, writes: bool
) -> None:
    assert main([command, "--help"]) == 0
    out = capfd.readouterr().out
    common = ("json", "quiet", "verbose", "endpoint-url", "region", "profile", "ca-file")
    for option in (*common, "no-verify-tls", "anonymous", "addressing-style"):
        assert f"--{option}" in out
    assert ("--dry-run" in out) == writes


def test_version(kumo: Run) -> None:
    assert kumo("--version").out == f"kumo-crt {kumo_crt.__version__}\n"
    assert kumo("--version", "--json").document["version"] == kumo_crt.__version__


def test_options_may_stand_before_the_command(kumo: Run, bucket: str) -> None:
    outcome = kumo("--json", "ls", f"s3://{bucket}")
    assert outcome.code == 0
    assert outcome.document["objects"] == []


def test_an_option_wins_over_the_environment(kumo: Run, bucket: str) -> None:
    wrong = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "KUMO_CRT_MAX_ATTEMPTS": "1"}
    kumo("ls", f"s3://{bucket}", env=wrong).failed(1, "127.0.0.1:9")


def test_a_full_disk_under_standard_output_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "kumo-crt: error: No space left on device\n"


def test_nothing_third_party_is_imported_at_first(tmp_path: Path) -> None:
    program = (
        "import sys; import kumo_crt.cli;"
        "print([m for m in ('rich', 'rocksdict') if m in sys.modules])"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", program],
        capture_output=True,
        env=environment(),
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "[]\n"
