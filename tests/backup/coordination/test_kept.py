"""The service says that it has stored something, and does not have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import PREFIX, content_of, delete, get, key_of, keys, stored_files, url
from tests.support.fault_proxy import Fault, FaultProxy, Request

pytestmark = [pytest.mark.servers("seaweed-http"), pytest.mark.usefixtures("each_alone")]

# What anything may answer that has taken the address while the service is away.
_YES = b'HTTP/1.1 200 OK\r\nETag: "0123456789abcdef0123456789abcdef"\r\nContent-Length: 0\r\n\r\n'
# What a load balancer answers that finds nobody behind it.
_NOBODY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 13\r\n\r\n<html></html>"
_NOTHING_LISTED = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"""


@pytest.fixture
def proxied(s3_via_proxy: kumo_crt.S3Client, bucket: str) -> Iterator[kumo_crt.Repository]:
    """An empty repository, behind the proxy."""
    with kumo_crt.Repository.create(url(bucket), client=s3_via_proxy) as created:
        yield created


def _check(boto: Any, bucket: str, snapshot: kumo_crt.Snapshot) -> None:
    """All that the manifest names is there, as boto3 sees it."""
    document = json.loads(get(boto, bucket, f"snapshots/{snapshot.id}.json"))
    named = {file["key"] for file in document["files"] if "key" in file}
    assert named
    assert named <= keys(boto, bucket, "data/")


def _restored(repository: kumo_crt.Repository, target: Path, library: Library) -> None:
    repository.restore(target)
    assert content_of(target) == library.truth("many_files")


@pytest.mark.parametrize("after_a_failure", [False, True], ids=["at once", "after a failure"])
@pytest.mark.parametrize("what", ["/data/", "/snapshots/"])
def test_somebody_else_answers(
    proxied: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    library: Library,
    tmp_path: Path,
    what: str,
    after_a_failure: bool,
) -> None:
    """An answer without the checksum is not believed: it is looked, and sent again."""
    if after_a_failure:
        proxy.add(Fault("reset", "request", method="PUT", target=what, in_head=True))
    answered = proxy.add(Fault("answer", "request", method="PUT", target=what, answer=_YES))
    snapshot = proxied.backup(make("many_files"))
    assert answered.fired.is_set()
    _check(boto, bucket, snapshot)
    assert [found.id for found in proxied.snapshots()] == [snapshot.id]
    assert keys(boto, bucket, "snapshots/") == {f"snapshots/{snapshot.id}.json"}
    _restored(proxied, tmp_path / "restored", library)


@pytest.mark.parametrize(
    ("what", "words"),
    [("/data/", "does not have it"), ("/snapshots/", "does not list it. There is no snapshot")],
)
def test_somebody_else_answers_always(
    proxied: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    what: str,
    words: str,
) -> None:
    answer = Fault("answer", "request", method="PUT", target=what, times=999, answer=_YES)
    path = make("many_files")
    with proxy.armed(answer), pytest.raises(kumo_crt.IntegrityError, match=words):
        proxied.backup(path)
    assert keys(boto, bucket, "snapshots/") == set()
    _check(boto, bucket, proxied.backup(path))


@pytest.mark.parametrize("behind", [False, True], ids=["cut", "a balancer"])
@pytest.mark.parametrize("when", ["sending", "looking at leases", "committing"])
def test_the_service_comes_back_without_it(
    proxied: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    library: Library,
    tmp_path: Path,
    when: str,
    behind: bool,
) -> None:
    """As after a power failure: what it had confirmed before is gone, and nobody says so."""
    stored: list[str] = []
    lost: list[str] = []

    def before(_: int, sent: Sent) -> None:
        data = sent.operation == "PutObject" and "/data/" in sent.key
        if data:
            stored.append(sent.key.removeprefix(f"{PREFIX}/"))
        now = {
            "sending": data and len(stored) == 3,
            "looking at leases": sent.operation == "ListObjectsV2" and bool(stored),
            "committing": sent.operation == "PutObject" and "/snapshots/" in sent.key,
        }
        if now[when] and not lost:
            lost.extend(stored[:2])
            for key in lost:
                assert get(boto, bucket, key)
                delete(boto, bucket, key)
            method = "GET" if sent.operation == "ListObjectsV2" else "PUT"
            if behind:
                proxy.add(Fault("answer", "request", method=method, answer=_NOBODY))
            else:
                proxy.add(Fault("reset", "request", method=method, in_head=True))

    with watched(s3_via_proxy, before):
        snapshot = proxied.backup(make("many_files"), max_concurrency=1)
    assert [stored.count(key) for key in lost] == [2, 2]
    _check(boto, bucket, snapshot)
    assert keys(boto, bucket, "snapshots/") == {f"snapshots/{snapshot.id}.json"}
    _restored(proxied, tmp_path / "restored", library)


def test_what_is_there_and_not_listed(
    proxied: kumo_crt.Repository, proxy: FaultProxy, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was killed may have an object in no directory: that is no damage."""
    snapshot = proxied.backup(make("many_files"))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
    listed = proxy.add(
        Fault(
            "answer",
            "request",
            method="GET",
            when=_lists_data,
            answer=head % len(_NOTHING_LISTED) + _NOTHING_LISTED,
        )
    )
    report = proxied.verify(level="quick")
    assert listed.fired.is_set()
    assert report.ok
    there = {key_of(file) for file in stored_files(snapshot)}
    warned = [record.getMessage() for record in caplog.records if "list" in record.getMessage()]
    assert len(warned) == len(there)
    assert all(": is there, but the service does not list it" in text for text in warned)


def _lists_data(request: Request) -> bool:
    return "list-type=2" in request.target and "data%2F" in request.target.replace("/", "%2F")
