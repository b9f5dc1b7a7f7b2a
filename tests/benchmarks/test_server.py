"""The benchmarks' server: what every client sends is understood, and damage is found."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import zlib
from typing import Any

import boto3
import pytest
from botocore.config import Config

import kumo_crt
from suite.servers import Server
from suite.setup import Programs
from tests.support.data import MIB, payload

# Several parts of 8 MiB, the last one small.
LARGE = 17 * MIB


@pytest.fixture
def kumo(checking: Server) -> Any:
    with kumo_crt.S3Client(
        region="us-east-1",
        endpoint_url=checking.endpoint_url,
        ca_file=checking.ca_file,
        access_key_id="AK",
        secret_access_key="SK",
    ) as client:
        yield client


def _grown(before: dict[str, Any], after: dict[str, Any]) -> tuple[int, int, int]:
    """Bodies verified, without a checksum, damaged."""
    names = ("bodies_verified", "bodies_without_checksum", "bodies_damaged")
    verified, without, damaged = (after[name] - before[name] for name in names)
    return verified, without, damaged


def test_uploads_of_kumo_crt_are_verified(checking: Server, kumo: kumo_crt.S3Client) -> None:
    before = checking.statistics()
    data = payload(LARGE)
    assert kumo.put_object("bucket", "large", data).size == LARGE
    kumo.put_object("bucket", "small", b"123456789")
    kumo.put_object("bucket", "unchecked", b"123456789", checksum=None)
    after = checking.statistics()
    assert _grown(before, after) == (4, 1, 0)
    assert after["content_received"] - before["content_received"] == LARGE + 18
    assert kumo.head_object("bucket", "large").size == LARGE
    assert {o.key: o.size for o in kumo.list_objects("bucket")} == {
        "large": LARGE,
        "small": 9,
        "unchecked": 9,
    }
    assert len(kumo.delete_objects("bucket", ["large", "small", "unchecked"])) == 3
    assert list(kumo.list_objects("bucket")) == []


@pytest.mark.parametrize("size", [0, 1, 4096, 70_000, LARGE])
def test_downloads_have_the_checksum_of_their_content(kumo: kumo_crt.S3Client, size: int) -> None:
    found = kumo.get_object("bucket", f"generated/{size}/x")
    assert (found.size, found.validated) == (size, "CRC32C")


def test_ranges_are_parts_of_the_whole(discarding: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", discarding.port)

    def get(**headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection.request("GET", "/bucket/generated/3000000/x", headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    _, whole = get()
    assert len(whole) == 3_000_000
    for text, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=1052670-1052680", 1_052_670, 1_052_681),  # where the block begins again
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=5-99999999", 5, 3_000_000),
    ):
        answer, body = get(Range=text)
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/3000000"
        assert body == whole[start:stop]
    assert get(Range="bytes=3000000-")[0].status == 416
    connection.request(
        "HEAD", "/bucket/generated/3000000/x", headers={"x-amz-checksum-mode": "ENABLED"}
    )
    head = connection.getresponse()
    head.read()
    assert int(head.headers["x-bench-crc32"]) == zlib.crc32(whole)
    connection.close()


def test_trailing_checksums(checking: Server) -> None:
    # Over TLS boto3 sends CRC32 in trailers, in aws-chunked content of a chunked body.
    client = boto3.client(
        "s3",
        endpoint_url=checking.endpoint_url,
        aws_access_key_id="AK",
        aws_secret_access_key="SK",
        region_name="us-east-1",
        verify=checking.ca_file,
        config=Config(s3={"addressing_style": "path"}),
    )
    before = checking.statistics()
    client.put_object(Bucket="bucket", Key="boto", Body=payload(100_000))
    assert _grown(before, checking.statistics()) == (1, 0, 0)
    assert client.head_object(Bucket="bucket", Key="boto")["ContentLength"] == 100_000
    client.delete_object(Bucket="bucket", Key="boto")


def _crc32c_text(data: bytes) -> str:
    return base64.b64encode(kumo_crt.crc32c(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("checking", ["http"], indirect=True)
@pytest.mark.parametrize("place", ["header", "trailer", "completion"])
def test_damage_is_found(checking: Server, place: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", checking.port)
    before = checking.statistics()

    def send(method: str, target: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/bucket/damaged{target}", body=body, headers=fields)
        answer = connection.getresponse()
        return answer.status, answer.read()

    wrong = _crc32c_text(b"what was meant")
    if place == "header":
        status, answer = send("PUT", "", b"what came", x_amz_checksum_crc32c=wrong)
    elif place == "trailer":
        framed = b"9;chunk-signature=0\r\nwhat came\r\n0\r\n"
        framed += f"x-amz-checksum-crc32c:{wrong}\r\n\r\n".encode()
        status, answer = send("PUT", "", framed, Content_Encoding="aws-chunked")
    else:
        _, created = send("POST", "?uploads", b"")
        upload = created.split(b"<UploadId>")[1].split(b"<")[0].decode()
        assert send("PUT", f"?partNumber=1&uploadId={upload}", b"what came")[0] == 200
        document = b"<X><Part><PartNumber>1</PartNumber></Part></X>"
        status, answer = send("POST", f"?uploadId={upload}", document, x_amz_checksum_crc32c=wrong)
    assert status == 400
    assert b"<Code>BadDigest</Code>" in answer
    verified, _, damaged = _grown(before, checking.statistics())
    assert (verified, damaged) == (0, 1)
    connection.close()


def test_what_is_not_understood_is_refused(discarding: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", discarding.port)
    for method, target, status in (
        ("GET", "/bucket/no-such-key", 404),
        ("GET", "/bucket/key?acl", 501),
        ("PUT", "/bucket/key?partNumber=1&uploadId=none", 404),
    ):
        connection.request(method, target)
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
    connection.request("PUT", "/bucket/key", headers={"Transfer-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("loop", ["upload-memory-crc", "download-memory-crc", "small-get"])
def test_bounds(programs: Programs, discarding: Server, loop: str) -> None:
    before = discarding.statistics()
    line = [str(programs.bounds), loop, f"--port={discarding.port}", "--size=3000000", "--count=5"]
    figures = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    assert figures["wall_seconds"] > 0
    after = discarding.statistics()
    name = "content_received" if loop.startswith("upload") else "content_sent"
    times = 105 if loop == "small-get" else 2  # with the warm-up
    assert after[name] - before[name] == times * 3_000_000
