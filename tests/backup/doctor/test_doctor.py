"""The doctor: what it finds in a repository, its bucket and on the way there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._doctor import _contents, _doctor
from kumo_crt.backup._doctor._findings import Findings
from tests.backup.conftest import Make
from tests.backup.doctoring import PROBES, doctor_of, findings_of, severity_of
from tests.backup.helpers import (
    PREFIX,
    delete,
    key_of,
    keys,
    manifest_key,
    open_uploads,
    put,
    stored_files,
    tree,
    url,
)
from tests.support.certificates import Certificates
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.servers("seaweed-http", "moto")
def test_a_sound_repository(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    repository.backup(make("plain"))
    repository.verify(level="full")
    before = keys(boto, bucket)
    report = repository.doctor(throughput_bytes=1_500_000)
    assert report.ok
    assert keys(boto, bucket) == before
    assert open_uploads(boto, bucket) == []
    for check in (*PROBES, "delete", "connection", "clock", "endpoint", "snapshots", "verified"):
        expected = {"ok"}
        if not s3_server.is_strict:
            # moto tells no CRC32C unless it was asked to compute one, and a composite one of parts
            # unless a further package is installed.
            expected = {"head": {"warning"}, "multipart": {"info", "ok"}}.get(check, expected)
        assert severity_of(report, check) in expected, check
    assert "up " in findings_of(report, "throughput")[0][1]
    severities = [item.severity for item in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info", "ok"].index)
    assert all(item.fix for item in report.findings if item.severity in ("warning", "error"))


def test_read_only(
    s3_via_proxy: kumo_crt.S3Client, proxy: Any, repository: kumo_crt.Repository, bucket: str
) -> None:
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        report = doctor_of(other, write=False)
    assert report.ok
    assert severity_of(report, "permissions") == "info"
    assert not {item.check for item in report.findings} & set(PROBES)
    assert sum(proxy.count(method) for method in ("PUT", "POST", "DELETE")) == 0
    assert severity_of(report, "snapshots") == "warning"  # there are none


def test_permissions_one_by_one(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    repository.backup(make("one_key"))
    denied = {
        "delete": ("s3:DeleteObject", "warning"),
        "list uploads": ("s3:ListBucketMultipartUploads", "warning"),
        "put": ("s3:PutObject", "error"),
    }
    for check, (action, severity) in denied.items():
        arn = f"arn:aws:s3:::{bucket}"
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": [action],
            "Resource": [arn, f"{arn}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        boto.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        try:
            report = doctor_of(repository)
        finally:
            boto.delete_bucket_policy(Bucket=bucket)
        assert severity_of(report, check) == severity
        (item,) = [item for item in report.findings if item.check == check]
        assert action in item.fix
        assert report.ok is (severity != "error")
        others = [c for c in PROBES if c != check and check != "put"]
        assert [severity_of(report, c) for c in others] == ["ok"] * len(others)
        if check == "delete":
            left = keys(boto, bucket, "data/00/kumo-doctor-")
            assert left
            assert all(key in item.message for key in left)


@pytest.mark.parametrize(
    "error",
    [
        kumo_crt.AccessDeniedError("AccessDenied", 403, "no"),
        kumo_crt.S3Error("InternalError", 500, "we are ill"),
        kumo_crt.TransportError("no answer"),
    ],
)
def test_a_check_that_fails_says_what_to_do(error: kumo_crt.KumoError) -> None:
    def check(*, fails: bool = True) -> Generator[Any, Any, None]:
        if fails:
            raise error
        yield

    findings = Findings()
    for _ in findings.tried("a check", check()):
        pass
    (finding,) = findings.all
    assert finding.severity == "error"
    assert finding.fix


# -- the way there --------------------------------------------------------------------------------


def test_no_repository(s3: kumo_crt.S3Client, bucket: str, boto: Any) -> None:
    for where, check in ((url(bucket), "repository"), (f"s3://no-{uuid.uuid4().hex}", "bucket")):
        with kumo_crt.Repository(where, client=s3) as other:
            report = doctor_of(other)
        assert not report.ok
        assert severity_of(report, check) == "error"
        # Whether one could be made there is told.
        found = {finding.check: finding.severity for finding in report.findings}
        assert (found.get("put"), "lifecycle" in found) == (
            ("ok", True) if check == "repository" else (None, False)
        )
    assert keys(boto, bucket) == set()


def test_wrong_credentials(
    s3_server: S3Server, repository: kumo_crt.Repository, bucket: str
) -> None:
    arguments = s3_server.client_arguments(secret_access_key="wrong")
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository(url(bucket), client=client) as other,
    ):
        report = doctor_of(other)
    assert severity_of(report, "connection") == "error"
    assert "wrong" not in str(report)


def test_a_configuration_that_cannot_be_read(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str
) -> None:
    put(boto, bucket, "kumo-repository.json", b"{}")
    with kumo_crt.Repository(url(bucket), client=s3) as other:
        report = doctor_of(other)
    assert severity_of(report, "repository") == "error"


def test_environments(s3: kumo_crt.S3Client, boto: Any, bucket: str) -> None:
    kumo_crt.Repository.create(url(bucket), client=s3, environment="prod").close()
    before = keys(boto, bucket)
    for ours, severity in ((None, "warning"), ("prod", "ok"), ("dev", "error")):
        with kumo_crt.Repository(url(bucket), client=s3, environment=ours) as other:
            report = doctor_of(other)
        assert severity_of(report, "environment") == severity
        assert report.ok is (severity != "error")
        if severity == "error":
            assert severity_of(report, "permissions") == "info"
    assert keys(boto, bucket) == before


@pytest.mark.parametrize(
    ("minutes", "severity", "told"),
    [
        (-20, "error", "behind"),
        (-14, "warning", "behind"),
        (0.5, "ok", "to a minute"),
        (14, "warning", "ahead"),
        (20, "error", "ahead"),
    ],
)
def test_the_clock(
    repository: kumo_crt.Repository,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    severity: str,
    told: str,
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=minutes)

    monkeypatch.setattr(_doctor, "datetime", Wrong)
    report = doctor_of(repository, write=False)
    assert severity_of(report, "clock") == severity
    assert told in findings_of(report, "clock")[0][1]
    assert report.ok is (severity != "error")


@pytest.mark.servers("seaweed-https")
def test_tls(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = doctor_of(repository, write=False)
    assert severity_of(report, "endpoint") == "ok"
    assert "certificate until 20" in findings_of(report, "endpoint")[0][1]
    monkeypatch.setattr(_doctor, "_CERTIFICATE_WARNING", timedelta(days=100_000))
    assert severity_of(doctor_of(repository, write=False), "endpoint") == "warning"
    unsafe = s3_server.client_arguments(verify=False)
    with (
        kumo_crt.S3Client(**unsafe) as client,
        kumo_crt.Repository(url(bucket), client=client) as other,
    ):
        assert severity_of(doctor_of(other, write=False), "endpoint") == "warning"


# -- what is in it --------------------------------------------------------------------------------


def test_damage_and_unread_data(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    snapshot = repository.backup(path)
    report = doctor_of(repository, write=False)
    assert severity_of(report, "verified") == "warning"
    file = stored_files(snapshot)[0]
    delete(boto, bucket, key_of(file))
    repository.verify()
    report = doctor_of(repository, write=False)
    assert not report.ok
    assert key_of(file) in findings_of(report, "damage")[0][1]
    repository.backup(path)
    put(boto, bucket, manifest_key(snapshot), b"{}")
    report = doctor_of(repository, write=False)
    assert sorted(severity for severity, _ in findings_of(report, "snapshots")) == ["error", "ok"]


def test_what_was_left(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boto.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/data/00/sst-1")
    report = doctor_of(repository, write=False)
    assert findings_of(report, "uploads") == [("ok", "1 unfinished, none older than a day")]
    monkeypatch.setattr(_contents, "_UPLOAD_AGE", timedelta(days=-1))
    assert severity_of(doctor_of(repository, write=False), "uploads") == "warning"
    lease = _inflight.encode_lease("backup", "a test", "a host", 1)
    put(boto, bucket, f"inflight/backup-{'0' * 32}-000001.json", lease)
    report = doctor_of(repository, write=False)
    assert findings_of(report, "leases") == [("ok", "1 at work, none has lapsed")]
    monkeypatch.setattr(_inflight, "LEASE", -_inflight.MARGIN - 100)
    assert severity_of(doctor_of(repository, write=False), "leases") == "warning"


def test_what_stops_a_prune(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    put(boto, bucket, "snapshots/notes.txt", b"")
    with pytest.raises(kumo_crt.FormatError, match=r"snapshots/notes\.txt: is no manifest"):
        repository.prune()
    report = doctor_of(repository, write=False)
    severity, message = findings_of(report, "snapshots")[0]
    assert severity == "error"
    assert "snapshots/notes.txt: no manifest" in message


def test_what_makes_backups_dear() -> None:
    from kumo_crt.backup._doctor._findings import Findings

    files = tuple(
        kumo_crt.SnapshotFile(f"{n:06d}.sst", "sst", 1000, 0, key=f"data/00/sst-{n}")
        for n in range(10_001)
    )
    families = tuple(f"tenant-{n}" for n in range(300))
    snapshot = kumo_crt.Snapshot(
        "20261123T060000Z-0a1b2c3d", datetime.now(UTC), "", files, 0, 0, 0, 0, families, {}
    )
    findings = Findings()
    _contents._shape(snapshot, findings)
    assert [item.check for item in findings.all] == ["column families", "files"]


def test_nothing_here_changes(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    repository.backup(make("one_key"))
    before = tree(tmp_path)
    doctor_of(repository)
    assert tree(tmp_path) == before
