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
from kumo_crt.backup import _doctor
from kumo_crt.backup._findings import Findings
from tests.backup.conftest import Make
from tests.backup.helpers import (
    PREFIX,
    delete,
    get,
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

PROBES = ("put", "conditional put", "head", "get", "list", "copy", "multipart", "list uploads")


def _found(report: kumo_crt.DoctorReport, check: str) -> list[tuple[str, str]]:
    return [(item.severity, item.message) for item in report.findings if item.check == check]


def _severity(report: kumo_crt.DoctorReport, check: str) -> str:
    (found,) = _found(report, check)
    return found[0]


def _doctor_of(repository: kumo_crt.Repository, **options: Any) -> kumo_crt.DoctorReport:
    return repository.doctor(**{"throughput_bytes": 0, **options})


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
        assert _severity(report, check) in expected, check
    assert "up " in _found(report, "throughput")[0][1]
    severities = [item.severity for item in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info", "ok"].index)
    assert all(item.fix for item in report.findings if item.severity in ("warning", "error"))


def test_read_only(
    s3_via_proxy: kumo_crt.S3Client, proxy: Any, repository: kumo_crt.Repository, bucket: str
) -> None:
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        report = _doctor_of(other, write=False)
    assert report.ok
    assert _severity(report, "permissions") == "info"
    assert not {item.check for item in report.findings} & set(PROBES)
    assert sum(proxy.count(method) for method in ("PUT", "POST", "DELETE")) == 0
    assert _severity(report, "snapshots") == "warning"  # there are none


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
            report = _doctor_of(repository)
        finally:
            boto.delete_bucket_policy(Bucket=bucket)
        assert _severity(report, check) == severity
        (item,) = [item for item in report.findings if item.check == check]
        assert action in item.fix
        assert report.ok is (severity != "error")
        others = [c for c in PROBES if c != check and check != "put"]
        assert [_severity(report, c) for c in others] == ["ok"] * len(others)
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
            report = _doctor_of(other)
        assert not report.ok
        assert _severity(report, check) == "error"
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
        report = _doctor_of(other)
    assert _severity(report, "connection") == "error"
    assert "wrong" not in str(report)


def test_a_configuration_that_cannot_be_read(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str
) -> None:
    put(boto, bucket, "kumo-repository.json", b"{}")
    with kumo_crt.Repository(url(bucket), client=s3) as other:
        report = _doctor_of(other)
    assert _severity(report, "repository") == "error"


def test_environments(s3: kumo_crt.S3Client, boto: Any, bucket: str) -> None:
    kumo_crt.Repository.create(url(bucket), client=s3, environment="prod").close()
    before = keys(boto, bucket)
    for ours, severity in ((None, "warning"), ("prod", "ok"), ("dev", "error")):
        with kumo_crt.Repository(url(bucket), client=s3, environment=ours) as other:
            report = _doctor_of(other)
        assert _severity(report, "environment") == severity
        assert report.ok is (severity != "error")
        if severity == "error":
            assert _severity(report, "permissions") == "info"
    assert keys(boto, bucket) == before


def test_the_clock(repository: kumo_crt.Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(minutes=5)

    monkeypatch.setattr(_doctor, "datetime", Late)
    report = _doctor_of(repository, write=False)
    assert _severity(report, "clock") == "warning"
    assert "behind" in _found(report, "clock")[0][1]


@pytest.mark.servers("seaweed-https")
def test_tls(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = _doctor_of(repository, write=False)
    assert _severity(report, "endpoint") == "ok"
    assert "certificate until 20" in _found(report, "endpoint")[0][1]
    monkeypatch.setattr(_doctor, "_CERTIFICATE_WARNING", timedelta(days=100_000))
    assert _severity(_doctor_of(repository, write=False), "endpoint") == "warning"
    unsafe = s3_server.client_arguments(verify=False)
    with (
        kumo_crt.S3Client(**unsafe) as client,
        kumo_crt.Repository(url(bucket), client=client) as other,
    ):
        assert _severity(_doctor_of(other, write=False), "endpoint") == "warning"


# -- the bucket -----------------------------------------------------------------------------------


def _rule(**parts: Any) -> dict[str, Any]:
    return {"ID": "the-rule", "Status": "Enabled", "Filter": {"Prefix": ""}, **parts}


_ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
_EXPIRE = {"Expiration": {"Days": 30}}
_GLACIER = {"Transitions": [{"Days": 30, "StorageClass": "GLACIER"}]}
_CHEAP = {"Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}]}
_TAG = {"Tag": {"Key": "a", "Value": "b"}}


@pytest.mark.servers("moto")
@pytest.mark.parametrize(
    ("rules", "severities"),
    [
        ([], ["warning"]),
        ([_rule(**_ABORT)], ["ok"]),
        ([_rule(**_ABORT, Status="Disabled")], ["warning"]),
        ([_rule(**_ABORT, Filter={"Prefix": "kv/"})], ["ok"]),
        ([_rule(**_ABORT, Filter={"Prefix": "other/"})], ["warning"]),
        ([_rule(**_ABORT, Filter=_TAG)], ["warning"]),
        ([_rule(**_ABORT), _rule(**_EXPIRE, ID="old")], ["error", "ok"]),
        ([_rule(**_ABORT), _rule(**_EXPIRE, ID="b", Filter={"Prefix": "kv/other/"})], ["ok"]),
        ([_rule(**_ABORT), _rule(**_EXPIRE, ID="b", Filter={"Prefix": "kv/main/data/"})],
         ["error", "ok"]),
        ([_rule(**_ABORT), _rule(**_EXPIRE, ID="b", Filter=_TAG)], ["error", "ok"]),
        ([_rule(**_ABORT), _rule(**_GLACIER, ID="c")], ["error", "ok"]),
        ([_rule(**_ABORT), _rule(**_GLACIER, ID="c", Filter={"Prefix": "kv/main/data/"})],
         ["warning", "ok"]),
        ([_rule(**_ABORT), _rule(**_CHEAP, ID="c")], ["ok"]),
    ],
    ids=range(13),
)  # fmt: skip
def test_lifecycle_rules(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    rules: list[dict[str, Any]],
    severities: list[str],
) -> None:
    if rules:
        boto.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
    try:
        report = _doctor_of(repository, write=False)
    finally:
        boto.delete_bucket_lifecycle(Bucket=bucket)
    found = _found(report, "lifecycle")
    assert [severity for severity, _ in found] == severities
    assert report.ok is ("error" not in severities)


@pytest.mark.servers("moto")
def test_versions_encryption_and_lock(s3: kumo_crt.S3Client, boto: Any) -> None:
    plain, locked = (f"{kind}-{uuid.uuid4().hex[:16]}" for kind in ("plain", "locked"))
    for bucket in (plain, locked):
        boto.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    with kumo_crt.Repository.create(url(plain), client=s3) as repository:
        report = _doctor_of(repository, write=False)
    assert _severity(report, "versioning") == "ok"
    assert [severity for severity, _ in _found(report, "lifecycle")] == ["warning", "warning"]
    assert _severity(report, "object lock") == "info"
    assert _severity(report, "encryption") == "warning"
    boto.put_object_lock_configuration(
        Bucket=locked,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    boto.put_bucket_encryption(
        Bucket=locked, ServerSideEncryptionConfiguration={"Rules": [default]}
    )
    noncurrent = {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
    boto.put_bucket_lifecycle_configuration(
        Bucket=locked, LifecycleConfiguration={"Rules": [_rule(**_ABORT, **noncurrent)]}
    )
    # moto wants another header with locked objects than S3 does: boto3 puts the repository there.
    put(boto, locked, "kumo-repository.json", get(boto, plain, "kumo-repository.json"))
    with kumo_crt.Repository.open(url(locked), client=s3) as repository:
        report = _doctor_of(repository, write=False)
    assert "compliance, 30 days" in _found(report, "object lock")[0][1]
    assert "aws:kms" in _found(report, "encryption")[0][1]
    assert _severity(report, "lifecycle") == "ok"


@pytest.mark.servers("seaweed-http")
def test_scratch_objects_leave_no_versions(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str
) -> None:
    with kumo_crt.Repository.create(url(versioned_bucket), client=s3) as repository:
        assert _severity(_doctor_of(repository), "delete") == "ok"
    versions = boto.list_object_versions(Bucket=versioned_bucket, Prefix=f"{PREFIX}/data/")
    assert [
        item["Key"]
        for item in versions.get("Versions", [])
        if not item["Key"].endswith("-parts")  # the service tells no version of it
    ] == []


def test_scratch_objects_that_object_lock_retains(s3: kumo_crt.S3Client, boto: Any) -> None:
    bucket = f"locked-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    boto.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    with kumo_crt.Repository.create(url(bucket), client=s3) as repository:
        ((severity, message),) = _found(_doctor_of(repository), "delete")
    assert severity == "info"
    assert message.startswith("objects can be deleted; Object Lock retains")
    assert keys(boto, bucket, "data/") == set()


# -- what is in it --------------------------------------------------------------------------------


def test_damage_and_unread_data(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    snapshot = repository.backup(path)
    report = _doctor_of(repository, write=False)
    assert _severity(report, "verified") == "warning"
    file = stored_files(snapshot)[0]
    delete(boto, bucket, key_of(file))
    repository.verify()
    report = _doctor_of(repository, write=False)
    assert not report.ok
    assert key_of(file) in _found(report, "damage")[0][1]
    repository.backup(path)
    put(boto, bucket, manifest_key(snapshot), b"{}")
    report = _doctor_of(repository, write=False)
    assert sorted(severity for severity, _ in _found(report, "snapshots")) == ["error", "ok"]


def test_what_was_left(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boto.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/data/00/sst-1")
    report = _doctor_of(repository, write=False)
    assert _found(report, "uploads") == [("ok", "1 unfinished, none older than a day")]
    monkeypatch.setattr(_doctor, "_UPLOAD_AGE", timedelta(days=-1))
    assert _severity(_doctor_of(repository, write=False), "uploads") == "warning"
    put(boto, bucket, f"inflight/backup-{'0' * 32}-000001.json", b"{}")
    report = _doctor_of(repository, write=False)
    assert _found(report, "leases") == [("ok", "1 at work, none has lapsed")]
    from kumo_crt.backup import _inflight

    monkeypatch.setattr(_inflight, "LEASE", -_inflight.MARGIN - 100)
    assert _severity(_doctor_of(repository, write=False), "leases") == "warning"


def test_what_stops_a_prune(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    put(boto, bucket, "snapshots/notes.txt", b"")
    with pytest.raises(kumo_crt.FormatError, match=r"snapshots/notes\.txt: is no manifest"):
        repository.prune()
    report = _doctor_of(repository, write=False)
    severity, message = _found(report, "snapshots")[0]
    assert severity == "error"
    assert "snapshots/notes.txt: no manifest" in message


def test_what_makes_backups_dear() -> None:
    from kumo_crt.backup._findings import Findings

    files = tuple(
        kumo_crt.SnapshotFile(f"{n:06d}.sst", "sst", 1000, 0, key=f"data/00/sst-{n}")
        for n in range(10_001)
    )
    families = tuple(f"tenant-{n}" for n in range(300))
    snapshot = kumo_crt.Snapshot(
        "20261123T060000Z-0a1b2c3d", datetime.now(UTC), "", files, 0, 0, 0, 0, families, {}
    )
    findings = Findings()
    _doctor._shape(snapshot, findings)
    assert [item.check for item in findings.all] == ["column families", "files"]


def test_nothing_here_changes(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    repository.backup(make("one_key"))
    before = tree(tmp_path)
    _doctor_of(repository)
    assert tree(tmp_path) == before
