"""The doctor: documents that cannot be read, or that nobody knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _census, _inflight
from kumo_crt.backup._doctor import _documents
from tests.backup.conftest import Make
from tests.backup.doctoring import doctor_of, findings_of, severity_of
from tests.backup.helpers import delete, get, keys, put, url
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")

CHECKS = ("leases", "damage notices", "ledgers", "marks", "pins")
_ID = "20261123T060000Z-0a1b2c3d"


def _part(kind: str, digit: str = "a") -> str:
    return _inflight.part_key(kind, digit * 32, 0)


def _finding(report: kumo_crt.DoctorReport, check: str) -> kumo_crt.Finding:
    (found,) = [item for item in report.findings if item.check == check]
    return found


def test_all_can_be_read(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("plain"))
    repository.verify(level="full")
    repository.pin(snapshot.id)
    repository.delete_snapshot(repository.backup(make("one_key")).id)
    repository.prune()
    put(boto, bucket, _part("backup"), _inflight.encode_lease("backup", "", "a host", 1))
    held = {name.partition("/")[0] for name in keys(boto, bucket)}
    assert held >= {"inflight", "health", "marks", "pins"}
    report = doctor_of(repository, write=False)
    assert [severity_of(report, check) for check in CHECKS] == ["ok"] * len(CHECKS)
    assert "inflight" not in {item.check for item in report.findings}


@pytest.mark.parametrize("kind", _inflight.KINDS)
def test_a_lease_that_cannot_be_read(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, kind: str
) -> None:
    path = make("one_key")
    put(boto, bucket, _part(kind), b"zzz")
    report = doctor_of(repository, write=False)
    assert not report.ok
    found = _finding(report, "leases")
    assert found.severity == "error"
    assert _part(kind) in found.message
    assert f"delete {url(bucket)}/{_part(kind)}" in found.fix
    # It is told of what does not work, and in the same words.
    snapshot = repository.backup(path) if kind == "spare" else None
    refused: Callable[[], object] = repository.prune
    if kind == "sweep":
        refused = partial(repository.backup, path)
    elif snapshot is not None:
        refused = partial(repository.delete_snapshot, snapshot.id)
    with pytest.raises((kumo_crt.FormatError, kumo_crt.RepositoryLockedError)) as caught:
        refused()
    assert kind == "prune" or found.fix in str(caught.value)
    delete(boto, bucket, _part(kind))
    assert severity_of(doctor_of(repository, write=False), "leases") == "ok"
    repository.backup(path)
    repository.prune()


def test_a_lease_that_has_lapsed(
    repository: kumo_crt.Repository, boto: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune removes it unread."""
    put(boto, bucket, _part("backup"), b"zzz")
    monkeypatch.setattr(_inflight, "LEASE", -_inflight.MARGIN - 100)
    report = doctor_of(repository, write=False)
    assert _finding(report, "leases").severity == "warning"
    put(boto, bucket, _part("sweep", "b"), b"zzz")
    report = doctor_of(repository, write=False)
    assert [severity for severity, _ in findings_of(report, "leases")] == ["error", "warning"]


@pytest.mark.parametrize("content", [b"zzz", b'{"format":"kumo-other","version":1}', b"\xff" * 9])
@pytest.mark.parametrize(
    ("check", "key"),
    [
        ("damage notices", _inflight.notice_key("a" * 32)),
        ("ledgers", f"health/{_ID}.json"),
        ("marks", f"marks/{_ID}.json"),
        ("pins", "pins/{}.json"),
    ],
)
def test_what_is_ignored(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    check: str,
    key: str,
    content: bytes,
) -> None:
    key = key.format(repository.backup(make("one_key")).id)
    put(boto, bucket, key, content)
    report = doctor_of(repository, write=False)
    assert report.ok
    found = _finding(report, check)
    assert found.severity == "warning"
    assert key in found.message
    assert key in found.fix
    assert all(severity_of(report, other) == "ok" for other in CHECKS if other != check)
    repository.prune()
    left = keys(boto, bucket)
    assert (key in left) is (check != "marks")  # as the fix says


def test_a_pin_of_another_snapshot(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("one_key"))
    repository.pin(snapshot.id)
    (key,) = keys(boto, bucket, "pins/")
    document = {**json.loads(get(boto, bucket, key)), "snapshot": _ID}
    put(boto, bucket, key, json.dumps(document).encode())
    assert key in _finding(doctor_of(repository, write=False), "pins").message


@pytest.mark.parametrize(
    ("check", "key"),
    [
        ("inflight", "inflight/restore-1.json"),
        ("ledgers", "health/notes.txt"),
        ("marks", "marks/notes.txt"),
        ("pins", "pins/latest.json"),
    ],
)
def test_what_nobody_knows(
    repository: kumo_crt.Repository, boto: Any, bucket: str, check: str, key: str
) -> None:
    put(boto, bucket, key, b"{}")
    put(boto, bucket, key + "2", b"{}")
    report = doctor_of(repository, write=False)
    assert report.ok
    found = next(item for item in report.findings if item.check == check)
    assert found.severity == "warning"
    assert f"/{key}, and 1 more: not known" in found.message


def test_many(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are not all read, nor all named."""
    monkeypatch.setattr(_documents, "_MOST", 8)
    for number in range(10):
        key = f"{_census.MARKS}{_ID[:-1]}{number}.json"
        put(boto, bucket, key, b"zzz")
    with kumo_crt.Repository(url(bucket), client=s3_via_proxy) as other:
        found = findings_of(doctor_of(other, write=False), "marks")
    assert proxy.count("GET", "/marks/") == 8
    assert len([message for _, message in found if "marks/" in message]) == 5
    assert ("warning", "3 more cannot be read") in found
    assert ("info", "10, of which 8 were read") in found
