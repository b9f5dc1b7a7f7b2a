"""kumo-crt bench: what it tells, and that nothing stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

import pytest

import kumo_crt
from kumo_crt.cli import main
from tests.cli.conftest import COMMAND, Run
from tests.support.fake_s3 import Answer, FakeS3, error_document

pytestmark = pytest.mark.servers("seaweed-http")

SMALL = ("--size", "200kB", "--rounds", "2", "--objects", "30", "--concurrency", "4")


def _names(boto: Any, bucket: str) -> list[str]:
    found = boto.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [item["Key"] for item in found]


def test_figures_of_all_that_was_asked_for(kumo: Run, boto: Any, bucket: str) -> None:
    outcome = kumo("bench", f"s3://{bucket}/some/prefix", *SMALL, "--object-size", "512", "--json")
    assert outcome.code == 0
    document = outcome.document
    assert document["prefix"].startswith("some/prefix/kumo-bench-")
    assert document["removed"] is True
    upload, download, *requests = document["results"]
    for found, name in ((upload, "upload"), (download, "download")):
        assert (found["operation"], found["bytes"], found["rounds"]) == (name, 200_000, 2)
        assert found["bytes_per_second"] == pytest.approx(200_000 / found["seconds"])
        assert found["cpu_seconds_per_gib"] > 0
    assert [(r["operation"], r["concurrency"], r["count"]) for r in requests] == [
        ("put", 1, 30),
        ("get", 1, 30),
        ("put", 4, 30),
        ("get", 4, 30),
    ]
    for found in requests:
        assert found["object_size"] == 512
        assert 0 < found["p50_seconds"] <= found["p99_seconds"]
        assert found["requests_per_second"] > 0
    assert _names(boto, bucket) == []


def test_the_table(kumo: Run, bucket: str) -> None:
    outcome = kumo("bench", f"s3://{bucket}", *SMALL)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"Objects under s3://{bucket}/kumo-bench-")
    assert lines[2].split() == ["throughput", "p50", "p99", "CPU", "s/GiB"]
    first_words = [line.split()[0] for line in lines[3:-1]]
    assert first_words == ["upload", "download", "put", "get", "put", "get"]
    assert "put 4.10 kB, 4 at once" in lines[7]
    assert lines[-1].endswith("; everything is removed again.")


def test_no_version_is_left_in_a_versioned_bucket(kumo: Run, boto: Any, bucket: str) -> None:
    boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    try:
        assert kumo("bench", f"s3://{bucket}", *SMALL).code == 0
        listing = boto.list_object_versions(Bucket=bucket)
    finally:
        boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "Versions" not in listing
    assert "DeleteMarkers" not in listing


def test_dry_run_and_a_bucket_that_is_not_there(kumo: Run, boto: Any, bucket: str) -> None:
    dry = kumo("bench", f"s3://{bucket}/p/", *SMALL, "--dry-run")
    assert dry.out.startswith("dry run: would upload and download 200 kB 2 times, put and get 30 ")
    assert _names(boto, bucket) == []
    kumo("bench", "s3://no-such-bucket-here/p", *SMALL).failed(1, "NoSuchBucket")
    kumo("bench", "s3://no-such-bucket-here/p", "--dry-run").failed(1, "NoSuchBucket")
    # What nobody may write is not left, whoever may not delete it either.
    kumo("bench", f"s3://{bucket}/p", *SMALL, env={"AWS_SECRET_ACCESS_KEY": "wrong"}).failed(12)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_removes_what_it_wrote(
    command_environment: dict[str, str],
    s3: kumo_crt.S3Client,
    bucket: str,
    number: int,
    code: int,
) -> None:
    line = ("bench", f"s3://{bucket}/p", "--size", "1kB", "--objects", "1000000")
    with subprocess.Popen(
        [*COMMAND, *line, "--json"],
        env=command_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # More than are put one by one: the threads are at work.
        until = time.monotonic() + 60
        while sum(1 for _ in s3.list_objects(bucket)) < 150:
            assert process.poll() is None
            assert time.monotonic() < until
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out)["error"]["exit_code"] == code
    assert list(s3.list_objects(bucket)) == []


def test_content_that_came_back_changed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with FakeS3(Answer(403, error_document("AccessDenied"))) as server:
        etag = {"ETag": '"1"'}
        server.script.extend([Answer(headers=etag), Answer(200, b"not what was sent", etag)])
        line = ("bench", "s3://bucket", "--size", "17", "--endpoint-url", server.endpoint_url)
        assert main(list(line)) == 1
    err = capfd.readouterr().err
    assert "kumo-crt: warning: objects are left under s3://bucket/kumo-bench-" in err
    assert "kumo-crt: error: s3://bucket/kumo-bench-" in err
    assert "what came back is not what was sent: 17 bytes instead of 17, or of another" in err
