"""Objects that other clients wrote are read and validated here, and the reverse.

boto3, awscrt (aws-c-s3), obstore (object_store, in Rust) and pyarrow's S3FileSystem (aws-sdk-cpp),
all with their default checksum settings, in one request and in parts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.s3.peers import PEERS, Peer
from tests.support.data import content, payload
from tests.support.servers import S3Server

SIZES = [0, 1000, 3 * PART + 17]
# What a client stores by default, that there is something to compare with.
STORED = {"boto3": "CRC32"}

pytestmark = [
    pytest.mark.servers("seaweed-http"),
    pytest.mark.parametrize("name", list(PEERS)),
    pytest.mark.parametrize("size", SIZES),
]


@pytest.fixture(scope="module")
def peers() -> dict[str, Peer]:
    return {}


@pytest.fixture
def peer(s3_server: S3Server, peers: dict[str, Peer], name: str) -> Peer:
    if name not in peers:
        peers[name] = PEERS[name](s3_server)
    return peers[name]


def test_we_read_theirs(
    peer: Peer, s3_parts: kumo_crt.S3Client, bucket: str, tmp_path: Path, name: str, size: int
) -> None:
    data = payload(size)
    peer.write(bucket, "a key", data)
    result = s3_parts.get_object(bucket, "a key")
    assert content(result) == data
    assert result.validated == STORED.get(name)
    result = s3_parts.get_object(bucket, "a key", into=tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert result.validated == STORED.get(name)
    assert s3_parts.copy_object(bucket, "a key", bucket, "copy").size == size
    assert content(s3_parts.get_object(bucket, "copy")) == data


def test_they_read_ours(
    peer: Peer, s3_parts: kumo_crt.S3Client, bucket: str, name: str, size: int
) -> None:
    data = payload(size, seed=1)
    put = s3_parts.put_object(bucket, "a key", data)
    assert put.parts == (4 if size > PART else 0)
    assert peer.read(bucket, "a key") == data
