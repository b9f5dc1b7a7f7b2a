"""Backups that were killed in a large file go on with its multipart upload."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._format import _layout
from kumo_crt.backup._send import _unfinished
from kumo_crt.s3 import _multipart, _resume
from kumo_crt.s3._body import MemorySource
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    content_of,
    flipped,
    get,
    key_of,
    keys,
    open_uploads,
    put,
    stored_files,
    url,
)
from tests.support.data import MIB, payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http", "moto")


@pytest.fixture(autouse=True)
def parts_are_sent_once(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto does not confirm trailing checksums, so that a client's first part is sent again."""
    if s3_server.name == "moto":
        monkeypatch.setenv("KUMO_CRT_CHECKSUM_TRAILERS", "0")


_BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
# One part after the other; kills itself when so many bytes are done.
_KILLED = """
import os, signal, sys, time
import kumo_crt
MIB = 1 << 20
def progress(done, total):
    if done >= int(sys.argv[3]) * MIB:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.11)
options = {"part_size": 5 * MIB, "multipart_threshold": 5 * MIB, "max_connections": 1}
with (
    kumo_crt.S3Client(**options) as client,
    kumo_crt.Repository.open(sys.argv[1], client=client) as repository,
):
    repository.backup(sys.argv[2], progress=progress, max_concurrency=1)
"""


def _kill(server: S3Server, bucket: str, path: Path, mebibytes: int) -> None:
    arguments = (url(bucket), str(path), str(mebibytes))
    with start_python(_KILLED, *arguments, env=server.environment()) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


def _parts(boto: Any, bucket: str) -> dict[str, list[int]]:
    """Parts of unfinished uploads, by key."""
    result = {}
    for upload in boto.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        listed = boto.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        result[upload["Key"]] = [part["PartNumber"] for part in listed.get("Parts", [])]
    return result


@pytest.fixture
def again(
    repository: kumo_crt.Repository, s3_server: S3Server, proxy: FaultProxy, bucket: str
) -> Iterator[kumo_crt.Repository]:
    """The repository, seen through the proxy, with parts like those of the killed backup."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, part_size=5 * MIB, multipart_threshold=5 * MIB
    )
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.open(url(bucket), client=client) as opened,
    ):
        yield opened


def _sent(proxy: FaultProxy) -> list[int]:
    return [n for n in range(1, 10) for _ in range(proxy.count("PUT", f"partNumber={n}&"))]


@pytest.mark.parametrize("mebibytes", [5, 10])
def test_no_finished_part_is_sent_again(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    mebibytes: int,
) -> None:
    path = make("large")
    _kill(s3_server, bucket, path, mebibytes)
    ((key, parts),) = _parts(boto, bucket).items()
    assert parts == [1, 2][: mebibytes // 5]
    snapshot = again.backup(path)
    assert _sent(proxy) == [n for n in (1, 2, 3) if n not in parts]
    assert proxy.count("POST", "uploads") == 0
    assert open_uploads(boto, bucket) == []
    file = stored_files(snapshot)[0]
    assert key == f"{PREFIX}/{file.key}"
    assert get(boto, bucket, key_of(file)) == (path / file.path).read_bytes()
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("large")


def _begin(boto: Any, bucket: str, key: str, parts: dict[int, bytes], **options: Any) -> None:
    options = {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT", **options}
    where = {"Bucket": bucket, "Key": f"{PREFIX}/{key}"}
    upload = boto.create_multipart_upload(**where, **options)["UploadId"]
    for number, content in parts.items():
        boto.upload_part(
            **where,
            UploadId=upload,
            PartNumber=number,
            Body=content,
            ChecksumAlgorithm="CRC32C",
        )


def _large(repository: kumo_crt.Repository, path: Path) -> tuple[str, bytes]:
    """Key and content of the file that takes three parts."""
    file = stored_files(repository.backup(path, dry_run=True))[0]
    return key_of(file), (path / file.path).read_bytes()


@pytest.mark.parametrize("end", ["interrupted", "trouble"])
def test_what_ends_in_good_order_is_gone_on_with_too(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    end: str,
) -> None:
    """Whoever presses Ctrl-C after hours has no less than whoever kills it."""
    path = make("large")
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url,
        part_size=5 * MIB,
        multipart_threshold=5 * MIB,
        max_connections=1,
        max_attempts=1,
    )
    fault = Fault("answer", "request", method="PUT", target="partNumber=3&", answer=_BROKEN)
    expected: type[BaseException] = kumo_crt.S3Error
    if end == "interrupted":
        fault.action = "stall"
        expected = KeyboardInterrupt

    def interrupt() -> None:
        if fault.fired.wait(30) and end == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.open(url(bucket), client=client) as slow,
        proxy.armed(fault),
        pytest.raises(expected),
    ):
        slow.backup(path, max_concurrency=1)
    thread.join()
    ((_, parts),) = _parts(boto, bucket).items()
    assert parts == [1, 2]
    proxy.requests.clear()
    again.backup(path)
    assert _sent(proxy) == [3]
    assert proxy.count("POST", "uploads") == 0
    assert open_uploads(boto, bucket) == []
    assert repository.verify(level="full").ok


@pytest.mark.parametrize(
    "case",
    ["nothing", "last", "gap", "wrong content", "wrong size", "too many", "larger parts", "two"],
)
def test_what_is_there_is_compared(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    case: str,
) -> None:
    path = make("large")
    key, content = _large(repository, path)
    first, second, third = content[: 5 * MIB], content[5 * MIB : 10 * MIB], content[10 * MIB :]
    cases: dict[str, tuple[list[dict[int, bytes]], list[int]]] = {
        "nothing": ([{}], [1, 2, 3]),
        "last": ([{3: third}], [1, 2]),
        "gap": ([{1: first, 3: third}], [2]),
        "wrong content": ([{1: flipped(first), 2: second}], [1, 3]),
        "wrong size": ([{1: first, 2: second[:-1]}], [1, 2, 3]),
        "too many": ([{1: first, 2: second, 3: third, 4: third}], [1, 2, 3]),
        "larger parts": ([{1: content[: 7 * MIB]}], [2]),
        "two": ([{1: first}, {1: first, 2: second}], [3]),
    }
    uploads, sent = cases[case]
    for upload in uploads:
        _begin(boto, bucket, key, upload)
    snapshot = again.backup(path)
    assert _sent(proxy) == sent
    assert open_uploads(boto, bucket) == []
    assert get(boto, bucket, key) == content
    assert snapshot.uploaded_bytes > len(content)
    there = {1: first, 2: second, 3: third}
    kept = (
        content[: 7 * MIB]
        if case == "larger parts"
        else b"".join(part for number, part in there.items() if number not in sent)
    )
    assert snapshot.resumed_bytes == len(kept)
    told = repository.snapshot(snapshot.id)
    assert (told.uploaded_bytes, told.resumed_bytes) == (snapshot.uploaded_bytes, 0)
    assert repository.verify(level="full").ok


@pytest.mark.servers("seaweed-http")
def test_an_upload_that_cannot_be_completed(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service does not have what it seemed to have: everything is sent anew."""
    path = make("large")
    key, content = _large(repository, path)
    _begin(boto, bucket, key, {1: flipped(content[: 5 * MIB])})
    crc = kumo_crt.crc32c(content[: 5 * MIB])

    def trusting(source: Any, listed: Any, offset: int) -> Any:
        yield from ()
        return _multipart.Part(listed.number, listed.size, crc, listed.etag)

    monkeypatch.setattr(_resume, "_same", trusting)
    again.backup(path)
    assert _sent(proxy) == [1, 2, 2, 3, 3]
    assert get(boto, bucket, key) == content
    assert open_uploads(boto, bucket) == []


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("other", ["completes", "aborts"])
def test_somebody_else_works_on_the_same_upload(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    other: str,
) -> None:
    path = make("large")
    key, content = _large(repository, path)
    _begin(boto, bucket, key, {1: content[: 5 * MIB], 2: content[5 * MIB : 10 * MIB]})
    done = threading.Event()

    def progress(_: int, total: int) -> None:
        if done.is_set():
            return
        done.set()
        where = {"Bucket": bucket, "Key": f"{PREFIX}/{key}"}
        for upload in boto.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            boto.abort_multipart_upload(**where, UploadId=upload["UploadId"])
        if other == "completes":
            put(boto, bucket, key, content)

    snapshot = again.backup(path, progress=progress)
    assert done.is_set()
    assert get(boto, bucket, key) == content
    assert open_uploads(boto, bucket) == []
    assert stored_files(snapshot)[0].crc32c == kumo_crt.crc32c(content)
    assert repository.verify(level="full").ok


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("where", ["elsewhere", "here", "dead"])
def test_uploads_of_running_backups_are_left_alone(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    where: str,
) -> None:
    path = make("large")
    key, content = _large(repository, path)
    _begin(boto, bucket, key, {1: content[: 5 * MIB]})
    host = "elsewhere" if where == "elsewhere" else os.uname().nodename
    # A process that has ended: nobody else gets its number so soon.
    with start_python("pass") as process:
        process.communicate(timeout=60)
    pid = process.pid if where == "dead" else os.getppid()
    hashes = [_inflight.object_hash(key)]
    lease = _inflight.encode_lease("backup", "a test", host, pid, hashes)
    put(boto, bucket, f"inflight/backup-{'0' * 32}-000000.json", lease)
    again.backup(path)
    if where == "dead":
        assert _sent(proxy) == [2, 3]
        assert open_uploads(boto, bucket) == []
    else:
        assert _sent(proxy) == [1, 2, 3]
        assert open_uploads(boto, bucket) == [f"{PREFIX}/{key}"]
    assert _layout.is_data_key(key)


@pytest.mark.servers("seaweed-http")
def test_small_backups_do_not_ask(
    again: kumo_crt.Repository,
    repository: kumo_crt.Repository,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    again.backup(make("plain"))
    assert proxy.count("GET", "uploads") == 0
    path = make("large")
    again.backup(path)
    assert proxy.count("GET", "uploads") == 1
    again.backup(path)  # nothing new
    assert proxy.count("GET", "uploads") == 1
    assert [key for key in keys(boto, bucket) if "inflight" in key] == []


@pytest.mark.servers("seaweed-http")
def test_sizes_of_parts() -> None:
    def size(*parts: tuple[int, int], total: int, wanted: int = 5) -> int | None:
        listed = [_resume._Listed(number, n * MIB, "", None) for number, n in parts]
        found = _resume._part_size(listed, total * MIB, wanted * MIB)
        return None if found is None else found // MIB

    assert size(total=12) == 5
    assert size((1, 5), total=12) == 5
    assert size((1, 8), total=12) == 8  # of another configuration
    assert size((2, 8), (3, 4), total=20) == 8
    assert size((3, 2), total=12) == 5  # only the last
    assert size((1, 4), total=12) is None  # smaller than S3 allows
    assert size((1, 5), (2, 6), total=12) is None
    assert size((4, 5), total=12) is None
    assert size((3, 5), total=12) is None
    assert size((1, 5), total=5 * 10_001) is None  # too many parts


@pytest.mark.servers("seaweed-http")
def test_checksums_of_parts(tmp_path: Path) -> None:
    import hashlib

    content = payload(3 * MIB + 17)
    source = MemorySource(content)
    found = _resume._digests(source, 100, 2 * MIB, True)
    part = content[100 : 100 + 2 * MIB]
    assert found == (kumo_crt.crc32c(part), hashlib.md5(part).hexdigest())


@pytest.mark.servers("seaweed-http")
def test_processes_that_have_ended() -> None:
    host = os.uname().nodename
    with start_python("input()") as process:
        assert not _unfinished._is_dead(host, process.pid)
        assert not _unfinished._is_dead("elsewhere", process.pid)
        process.communicate("\n", timeout=60)
    assert _unfinished._is_dead(host, process.pid)
    assert _unfinished._is_dead(host, os.getpid())  # it cannot be another one
