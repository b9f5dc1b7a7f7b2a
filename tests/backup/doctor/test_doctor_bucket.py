"""The doctor: what it finds in a bucket's configuration, and what it leaves there."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import kumo_crt
from tests.backup.doctoring import doctor_of, findings_of, severity_of
from tests.backup.helpers import (
    PREFIX,
    get,
    keys,
    put,
    url,
)

pytestmark = pytest.mark.servers("seaweed-http")


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
        ([_rule(**_ABORT), _rule(**_EXPIRE, ID="q", Filter={"Prefix": "kv/main/quarantine/"})],
         ["ok"]),
        ([_rule(**_ABORT), _rule(**_GLACIER, ID="q", Filter={"Prefix": "kv/main/quarantine/"})],
         ["ok"]),
        ([_rule(**_ABORT), _rule(**_GLACIER, ID="s", Filter={"Prefix": "kv/main/spares/"})],
         ["error", "ok"]),
    ],
    ids=range(16),
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
        report = doctor_of(repository, write=False)
    finally:
        boto.delete_bucket_lifecycle(Bucket=bucket)
    found = findings_of(report, "lifecycle")
    assert [severity for severity, _ in found] == severities
    assert report.ok is ("error" not in severities)


@pytest.mark.servers("moto")
def test_rules_for_others_in_the_bucket(s3: kumo_crt.S3Client, boto: Any) -> None:
    """A repository without a prefix has the bucket, but not all that is in it."""
    bucket = f"shared-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=bucket)
    rules = [_rule(**_ABORT), _rule(**_EXPIRE, ID="logs", Filter={"Prefix": "logs/"})]
    for name, severities in (("logs/", ["ok"]), ("data/", ["error", "ok"])):
        rules[1]["Filter"] = {"Prefix": name}
        boto.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
        with kumo_crt.Repository(f"s3://{bucket}", client=s3) as repository:
            found = findings_of(doctor_of(repository, write=False), "lifecycle")
        assert [severity for severity, _ in found] == severities


@pytest.mark.servers("moto")
def test_versions_encryption_and_lock(s3: kumo_crt.S3Client, boto: Any) -> None:
    plain, locked = (f"{kind}-{uuid.uuid4().hex[:16]}" for kind in ("plain", "locked"))
    for bucket in (plain, locked):
        boto.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    with kumo_crt.Repository.create(url(plain), client=s3) as repository:
        report = doctor_of(repository, write=False)
    assert severity_of(report, "versioning") == "ok"
    assert [severity for severity, _ in findings_of(report, "lifecycle")] == ["warning", "warning"]
    assert severity_of(report, "object lock") == "info"
    assert severity_of(report, "encryption") == "warning"
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
        report = doctor_of(repository, write=False)
    assert "compliance, 30 days" in findings_of(report, "object lock")[0][1]
    assert "aws:kms" in findings_of(report, "encryption")[0][1]
    assert severity_of(report, "lifecycle") == "ok"


@pytest.mark.servers("seaweed-http")
def test_scratch_objects_leave_no_versions(
    s3: kumo_crt.S3Client, boto: Any, versioned_bucket: str
) -> None:
    with kumo_crt.Repository.create(url(versioned_bucket), client=s3) as repository:
        assert severity_of(doctor_of(repository), "delete") == "ok"
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
        ((severity, message),) = findings_of(doctor_of(repository), "delete")
    assert severity == "info"
    assert message.startswith("objects can be deleted; Object Lock retains")
    assert keys(boto, bucket, "data/") == set()
