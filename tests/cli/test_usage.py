"""What the command says to command lines that cannot be, and to questions about itself."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt import _config
from kumo_crt.cli import _main, main
from kumo_crt.cli._grammar import parse
from tests.cli.conftest import COMMAND, Run
from tests.support.processes import environment

pytestmark = pytest.mark.servers("seaweed-http")

_NONE = "20261123T060000Z-0a1b2c3d"
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
    ["restore", "s3://bucket/p", ""],
    ["repair", "s3://bucket/p", ""],
    ["pin", "s3://bucket/p", "-n", ""],
    ["put", "", "s3://bucket/key"],
    ["backup", "db", "s3://bucket/p", "--create", "--key-file="],
    ["backup", "db", "s3://bucket/p", "--environment", ""],
    ["snapshots", "s3://bucket/p", "--endpoint-url", ""],
    ["repair", "s3://bucket/p", "db", "--frob"],
    ["restore", "s3://bucket/p", "target", "--delta", "another"],
    ["prune", "s3://bucket/p", "--keep-last", "-2"],
    ["demo", "--size", "1MB"],
    ["demo", "--region", "eu-west-1"],
    ["bench"],
    ["bench", "s3://bucket/p", "--objects", "0"],
]


@pytest.mark.parametrize(
    ("line", "several", "wanted"),
    [
        ("repair s3://bucket/p --level full db", "source", ["db"]),
        ("repair s3://bucket/p -n db copy", "source", ["db", "copy"]),
        ("repair s3://bucket/p db -n copy", "source", ["db", "copy"]),
        ("repair -n s3://bucket/p", "source", []),
        (f"pin s3://bucket/p {_NONE} -n other", "snapshot", [_NONE, "other"]),
        ("forget s3://bucket/p -n one two", "snapshot", ["one", "two"]),
    ],
)
def test_options_may_stand_among_arguments(line: str, several: str, wanted: list[str]) -> None:
    assert getattr(parse(line.split()), several) == wanted


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
        "repair-config",
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


def test_help_names_every_variable_that_is_looked_at(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capfd.readouterr().out
    looked_up = re.findall(r'(?:_number|_switch)\(\s*"(\w+)"', Path(_config.__file__).read_text())
    assert set(looked_up) <= set(inspect.signature(kumo_crt.S3Client).parameters)
    ours = {f"KUMO_CRT_{name.upper()}" for name in looked_up}
    assert len(ours) == 10
    for path in Path(kumo_crt.__file__).parent.rglob("*.py"):
        ours |= set(
            re.findall(r'"(KUMO_[A-Z_]+|AWS_(?!AUTH|ERROR|IO_)[A-Z0-9_]+)"', path.read_text())
        )
    ours -= {"AWS_EC2_METADATA_DISABLED"}  # of the AWS libraries
    assert [name for name in sorted(ours) if not re.search(rf"\b{name}\b", out)] == []


READING = ("snapshots", "ls", "completion")


@pytest.mark.parametrize("command", _main._COMMANDS)
def test_every_command_has_the_common_options(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--help"]) == 0
    out = capfd.readouterr().out
    common = ("json", "quiet", "verbose", "endpoint-url", "region", "profile", "ca-file")
    for option in (*common, "no-verify-tls", "anonymous", "addressing-style"):
        assert f"--{option}" in out
    assert ("--dry-run" in out) == (command not in READING)
    assert main([command, "--no-such-option"]) == 2
    assert f"(see kumo-crt {command} --help)" in capfd.readouterr().err


@pytest.mark.parametrize(
    "command", [name for name in _main._COMMANDS if name not in ("keygen", "demo", "completion")]
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_failure_is_one_document(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    database: Path,
    tmp_path: Path,
    command: str,
    dry: tuple[str, ...],
) -> None:
    """Whatever the command, when nobody answers."""
    monkeypatch.setenv("KUMO_CRT_MAX_ATTEMPTS", "1")
    url, target = "s3://bucket/key", str(tmp_path / "target")
    words = {
        "backup": [str(database), url, "--create"],
        "export": [str(database), url],
        "put": [str(database / "CURRENT"), url],
        **{name: [url, target] for name in ("get", "restore", "import")},
        "repair": [url, str(database)],
        "repair-config": [url],
        **{name: [url, _NONE] for name in ("pin", "unpin", "forget", "delete-snapshot")},
    }.get(command, [url])
    line = [command, *words, *(dry if command not in READING else ())]
    given = ("--anonymous", "--endpoint-url", "http://127.0.0.1:9", "--json")
    code = main([*line, *given])
    out, err = capfd.readouterr()
    document = json.loads(out)
    if command == "doctor":  # that is what it was to find out
        assert (code, document["ok"], err) == (3, False, "")
        assert all(item["fix"] for item in document["findings"] if item["severity"] != "ok")
        return
    assert (code, document["error"]["exit_code"]) == (1, 1)
    assert document["error"]["type"] == "TransportError"
    assert "http://127.0.0.1:9" in document["error"]["message"]
    # Before it `bench` may say that it could not clean up.
    assert err.endswith(f"kumo-crt: error: {document['error']['message']}\n")
    assert not Path(target).exists()


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
    assert done.stderr == "kumo-crt: error: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("line", "closed", "code", "said"),
    [
        (("--version",), ">&-", 1, "kumo-crt: error: standard output: Bad file descriptor\n"),
        (
            ("--version", "--json"),
            ">&-",
            1,
            "kumo-crt: error: standard output: Bad file descriptor\n",
        ),
        (("--help",), ">&-", 1, ""),
        (("--version",), "<&- 2>&-", 0, ""),
    ],
)
def test_closed_standard_streams(line: tuple[str, ...], closed: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *line],
        capture_output=True,
        env=environment(),
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)


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
