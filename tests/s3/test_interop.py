"""Objects written by boto3 are read here, and the reverse, each with its checksum."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.servers import S3Server

SIZES = [0, 1000, 3 * PART + 17]
CHECKSUMS = ["CRC32C", "CRC32", "CRC64NVME", "SHA256", "SHA1"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_boto3_reads_what_we_wrote(
    s3_parts: kumo_crt.S3Client, bucket: str, s3_server: S3Server, size: int
) -> None:
    data = payload(size)
    s3_parts.put_object(bucket, "key", data)
    # boto3 compares the content with the stored checksum.
    boto = s3_server.boto3_client(response_checksum_validation="when_supported")
    answer = boto.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert answer["ChecksumCRC32C"]
    assert answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    assert answer["Body"].read() == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.servers("seaweed-http")
def test_we_read_what_boto3_wrote(
    s3_parts: kumo_crt.S3Client,
    bucket: str,
    boto: Any,
    tmp_path: Path,
    size: int,
    checksum: str,
) -> None:
    data = payload(size)
    boto.upload_fileobj(
        io.BytesIO(data),
        bucket,
        "key",
        ExtraArgs={"ChecksumAlgorithm": checksum},
        Config=TransferConfig(multipart_threshold=PART, multipart_chunksize=PART),
    )
    body = content(s3_parts.get_object(bucket, "key"))
    assert body == data
    buffer = bytearray(size)
    s3_parts.get_object(bucket, "key", into=buffer)
    assert buffer == data
    s3_parts.get_object(bucket, "key", into=tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("size", [1000, 3 * PART + 17])
def test_without_any_checksum(
    s3_parts: kumo_crt.S3Client, bucket: str, s3_server: S3Server, size: int
) -> None:
    data = payload(size)
    boto = s3_server.boto3_client(request_checksum_calculation="when_required")
    if size < PART:
        boto.put_object(Bucket=bucket, Key="key", Body=data)
    else:
        upload = boto.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
        parts = []
        for number, start in enumerate(range(0, size, PART), 1):
            part = data[start : start + PART]
            answer = boto.upload_part(
                Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=part
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        boto.complete_multipart_upload(
            Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts}
        )
    result = s3_parts.get_object(bucket, "key")
    assert content(result) == data
    assert result.checksum_crc32c == kumo_crt.crc32c(data)


def test_our_uploads_without_a_checksum(
    s3_parts: kumo_crt.S3Client, bucket: str, boto: Any
) -> None:
    for size in (1000, PART + 1):
        data = payload(size)
        result = s3_parts.put_object(bucket, "key", data, checksum=None)
        assert result.checksum_crc32c is None
        assert boto.get_object(Bucket=bucket, Key="key")["Body"].read() == data
