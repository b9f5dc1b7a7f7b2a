"""Clients and checks of the S3 tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import kumo_crt
from tests.support.data import MIB
from tests.support.fake_s3 import FakeS3
from tests.support.servers import S3Server

PART = 5 * MIB


@pytest.fixture
def s3_parts(s3_server: S3Server) -> Iterator[kumo_crt.S3Client]:
    """A client with the smallest parts that S3 allows."""
    arguments = s3_server.client_arguments(part_size=PART, multipart_threshold=PART)
    with kumo_crt.S3Client(**arguments) as client:
        yield client


@pytest.fixture
def stored(s3_server: S3Server, bucket: str) -> Callable[[str], bytes]:
    """Returns an object's content as boto3 sees it."""
    client = s3_server.boto3_client()

    def read(key: str) -> bytes:
        content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    return read


@pytest.fixture
def keys(boto: Any, bucket: str) -> Callable[[], list[str]]:
    """Returns the bucket's keys as boto3 sees them."""

    def read() -> list[str]:
        pages = boto.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    return read


@pytest.fixture
def uploads(boto: Any, bucket: str) -> Callable[[], list[str]]:
    """Returns the keys of the unfinished multipart uploads."""

    def read() -> list[str]:
        answer = boto.list_multipart_uploads(Bucket=bucket)
        return [item["Key"] for item in answer.get("Uploads", [])]

    return read


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    """A server with scripted answers."""
    with FakeS3() as server:
        yield server


@pytest.fixture
def s3_fake(fake: FakeS3) -> Iterator[kumo_crt.S3Client]:
    """A client of the scripted server that tries only twice."""
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        access_key_id="AKEXAMPLE",
        secret_access_key="example-secret",
        max_attempts=2,
    ) as client:
        yield client
