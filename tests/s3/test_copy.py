"""Copies within the service."""

from __future__ import annotations

from typing import Any

import pytest

import kumo_crt
from kumo_crt.s3 import _copy
from tests.support.data import MIB, payload
from tests.support.servers import S3Server


def _copied(s3: kumo_crt.S3Client, bucket: str, size: int, etag: str, **options: Any) -> None:
    source, target = (bucket, "a source/ü+?#.bin"), (bucket, "target")
    s3._run(_copy.copy_task(s3._open(), source, target, size=size, etag=etag, **options))


@pytest.mark.servers("seaweed-http", "moto")
def test_in_one_request(s3: kumo_crt.S3Client, s3_server: S3Server, boto: Any, bucket: str) -> None:
    content = payload(100_000)
    etag = boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=content)["ETag"].strip('"')
    _copied(s3, bucket, len(content), etag)
    assert boto.get_object(Bucket=bucket, Key="target")["Body"].read() == content
    boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=b"other")
    if s3_server.is_strict:  # moto does not look at the condition
        with pytest.raises(kumo_crt.PreconditionFailedError):
            _copied(s3, bucket, len(content), etag)


@pytest.mark.servers("seaweed-http", "moto")
def test_in_parts(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_copy, "MAX_SINGLE_COPY", 6 * MIB)
    monkeypatch.setattr(_copy, "_PART", 5 * MIB)
    content = payload(12 * MIB)
    etag = boto.put_object(Bucket=bucket, Key="a source/ü+?#.bin", Body=content)["ETag"].strip('"')
    _copied(s3, bucket, len(content), etag)
    assert boto.get_object(Bucket=bucket, Key="target")["Body"].read() == content
    boto.delete_object(Bucket=bucket, Key="a source/ü+?#.bin")
    with pytest.raises(kumo_crt.NotFoundError):
        _copied(s3, bucket, len(content), etag)
    assert boto.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
