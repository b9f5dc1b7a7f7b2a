"""The doctor: each request refused by itself; what it then says, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

import kumo_crt
from kumo_crt.backup._doctor import _scratch
from tests.backup.conftest import Make
from tests.backup.doctoring import PROBES, doctor_of, findings_of, severity_of
from tests.backup.helpers import PREFIX, keys, open_uploads, put, url
from tests.support.fault_proxy import Fault, FaultProxy, Request

pytestmark = pytest.mark.servers("seaweed-http")

_BODY = b"<Error><Code>AccessDenied</Code><Message/></Error>\n"
_DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 51\r\n\r\n"


class Refused(NamedTuple):
    """A request that is not permitted: what a doctor says to it."""

    is_it: Callable[[Request], bool]
    check: str
    severity: str
    action: str


def _is_upload(request: Request) -> bool:
    return "uploadId=" in request.target


REFUSED = {
    "AbortMultipartUpload": Refused(
        lambda r: r.method == "DELETE" and _is_upload(r),
        "abort uploads", "warning", "s3:AbortMultipartUpload",
    ),
    "DeleteObject": Refused(
        lambda r: (r.method == "DELETE" and not _is_upload(r)) or "?delete" in r.target,
        "delete", "warning", "s3:DeleteObject",
    ),
    "HeadObject": Refused(
        lambda r: r.method == "HEAD", "head", "error", "s3:GetObject",
    ),
    "GetObject": Refused(
        lambda r: r.method == "GET" and "/kumo-doctor-" in r.target,
        "get", "error", "s3:GetObject",
    ),
    "ListObjectsV2": Refused(
        lambda r: r.method == "GET" and "list-type=2" in r.target,
        "list", "error", "s3:ListBucket",
    ),
    "ListMultipartUploads": Refused(
        lambda r: r.method == "GET" and "&uploads" in r.target,
        "list uploads", "warning", "s3:ListBucketMultipartUploads",
    ),
    "PutObject": Refused(
        lambda r: r.method == "PUT" and not _is_upload(r), "put", "error", "s3:PutObject",
    ),
    "CopyObject": Refused(
        lambda r: r.method == "PUT" and "/quarantine/" in r.target,
        "copy", "warning", "s3:GetObject and s3:PutObject",
    ),
    "CreateMultipartUpload": Refused(
        lambda r: r.method == "POST" and "?uploads" in r.target,
        "multipart", "error", "s3:PutObject",
    ),
    "UploadPart": Refused(
        lambda r: r.method == "PUT" and _is_upload(r), "multipart", "error", "s3:PutObject",
    ),
    "CompleteMultipartUpload": Refused(
        lambda r: r.method == "POST" and _is_upload(r), "multipart", "error", "s3:PutObject",
    ),
}  # fmt: skip
# What needs the same, or is not tried then.
_UNTRIED = {
    "put": set(PROBES),
    "head": {"head", "conditional put"},
    "multipart": {"multipart", "list uploads", "abort uploads"},
}


def _refuse(proxy: FaultProxy, *what: Refused) -> None:
    def is_it(request: Request) -> bool:
        return any(refused.is_it(request) for refused in what)

    for method in ("HEAD", "GET", "PUT", "POST", "DELETE"):
        answer = _DENIED if method == "HEAD" else _DENIED + _BODY
        fault = Fault("answer", "request", method=method, answer=answer, times=9999, when=is_it)
        proxy.add(fault)


def _probes_of(boto: Any, bucket: str) -> set[str]:
    return {key for key in keys(boto, bucket) if "kumo-doctor-" in key}


@pytest.mark.parametrize("operation", REFUSED)
def test_one_request_refused(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    operation: str,
) -> None:
    repository.backup(make("one_key"))
    refused = REFUSED[operation]
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        _refuse(proxy, refused)
        report = doctor_of(other, throughput_bytes=1_000_000)
    (found,) = [item for item in report.findings if item.check == refused.check]
    assert found.severity == refused.severity
    assert found.fix.startswith(f"allow {refused.action} to ")
    assert found.message.startswith("not permitted: ")
    assert report.ok is (refused.severity != "error")
    others = [
        check for check in PROBES if check not in _UNTRIED.get(refused.check, {refused.check})
    ]
    assert {check: severity_of(report, check) for check in others} == dict.fromkeys(others, "ok")
    # It tells what it leaves, and of nothing else that it stays.
    left = _probes_of(boto, bucket)
    assert not any(key.endswith("-throughput") for key in left)
    assert open_uploads(boto, bucket) == []
    assert bool(left) is (operation == "DeleteObject")
    told = found.message.partition(" are left: ")[2].split(", ") if left else []
    assert sorted(told) == sorted(f"{url(bucket)}/{key}" for key in left)
    assert all(" left" not in item.message for item in report.findings if item is not found)
    measured = operation not in ("DeleteObject", "HeadObject", "GetObject", "PutObject")
    throughput = findings_of(report, "throughput")
    assert [message.startswith("one object") for _, message in throughput] == (
        [measured] if operation != "PutObject" else []
    )
    if operation == "HeadObject":
        fixes = {item.check: item.fix for item in report.findings}
        assert "s3:GetObject" in fixes["conditional put"]
        assert findings_of(report, "delete") == [
            (
                "ok",
                "the service has accepted the deletion of scratch objects; to look is refused",
            )
        ]


def test_an_upload_that_stays_is_named(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
) -> None:
    """It can be neither completed nor aborted."""
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        _refuse(proxy, REFUSED["AbortMultipartUpload"], REFUSED["CompleteMultipartUpload"])
        report = doctor_of(other)
    (upload,) = boto.list_multipart_uploads(Bucket=bucket)["Uploads"]
    ((severity, message),) = findings_of(report, "abort uploads")
    assert severity == "warning"
    assert f"the upload {upload['UploadId']} to s3://{bucket}/{upload['Key']} is left" in message
    assert upload["Key"].startswith(f"{PREFIX}/data/00/kumo-doctor-")
    assert _probes_of(boto, bucket) == set()


def test_what_earlier_doctors_left(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        _refuse(proxy, REFUSED["DeleteObject"])
        for _ in range(2):
            doctor_of(other)
    left = _probes_of(boto, bucket)
    assert {key.partition("/")[0] for key in left} == {"data", "quarantine"}
    kept = {"quarantine/sst-1.20261123T060000Z-0a1b2c3d", "data/00/sst-kumo-doctor-1"}
    for key in kept:
        put(boto, bucket, key, b"damaged")
    # They may be another doctor's that is at work.
    report = doctor_of(repository)
    assert findings_of(report, "leftovers") == []
    assert _probes_of(boto, bucket) >= left
    monkeypatch.setattr(_scratch, "_LEFT_AGE", timedelta(seconds=-60))
    assert severity_of(doctor_of(repository), "leftovers") == "ok"
    assert _probes_of(boto, bucket) == {"data/00/sst-kumo-doctor-1"}
    assert keys(boto, bucket) >= kept


def test_versions_that_cannot_be_deleted(
    s3_via_proxy: kumo_crt.S3Client, proxy: FaultProxy, boto: Any, versioned_bucket: str
) -> None:
    """That is another permission, and no backup, nor prune, needs it."""
    with kumo_crt.Repository.create(url(versioned_bucket), client=s3_via_proxy) as repository:
        versions = Refused(lambda r: "versionId=" in r.target and r.method == "DELETE", "", "", "")
        _refuse(proxy, versions)
        report = doctor_of(repository, throughput_bytes=1_000_000)
    (found,) = [item for item in report.findings if item.check == "delete"]
    assert found.severity == "info"
    assert "s3:DeleteObjectVersion" in found.fix
    assert report.ok
    assert _probes_of(boto, versioned_bucket) == set()
    assert findings_of(report, "throughput")[0][1].startswith("not measured")


def test_nothing_may_be_read(
    s3_via_proxy: kumo_crt.S3Client, proxy: FaultProxy, bucket: str
) -> None:
    """Not even the repository's own document: it names the permission, and ends there."""
    kumo_crt.Repository.create(url(bucket), client=s3_via_proxy).close()
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        _refuse(proxy, Refused(lambda r: r.method == "GET", "", "", ""))
        report = doctor_of(other)
    (found,) = [item for item in report.findings if item.check == "connection"]
    assert found.severity == "error"
    assert found.fix.startswith("allow s3:GetObject and s3:ListBucket to ")
