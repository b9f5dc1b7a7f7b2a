"""The S3 client: addresses, requests, answers, transfers."""

from kumo_crt.s3._async_client import AsyncS3Client
from kumo_crt.s3._client import S3Client
from kumo_crt.s3._results import (
    DeleteResult,
    GetResult,
    HeadResult,
    ObjectInfo,
    PutResult,
    UploadInfo,
    VersionInfo,
)

__all__ = [
    "AsyncS3Client",
    "DeleteResult",
    "GetResult",
    "HeadResult",
    "ObjectInfo",
    "PutResult",
    "S3Client",
    "UploadInfo",
    "VersionInfo",
]
