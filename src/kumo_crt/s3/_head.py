"""What is known of an object without its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Task
from kumo_crt.exceptions import TransportError
from kumo_crt.s3._answers import (
    SSE,
    SSE_KEY,
    Headers,
    check_origin,
    decode_crc32c,
    iso_time,
    public_checksums,
    raise_for,
)
from kumo_crt.s3._context import Context


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What is known of an object without its content.

    Attributes:
        size: Bytes.
        etag: ETag, without quotes.
        version_id: Version in a versioned bucket.
        checksum_crc32c: Stored CRC32C of the whole object; None if there is none, or only a
            composite one (a checksum of the parts' checksums).
        checksums: Every stored checksum as the service gives it, by algorithm name.
        checksum_type: ``"FULL_OBJECT"``, ``"COMPOSITE"`` or None.
        last_modified: Time of the last write.
        metadata: User metadata, lower-case names without ``x-amz-meta-``.
        content_type: Content type.
        storage_class: Storage class; None means STANDARD.
        restore: State of a thawed copy of an archived object, as S3's header ``x-amz-restore`` has
            it; None if none was asked for.
        archive_status: Archive tier of an object that Intelligent-Tiering has archived.
        lock_mode: ``"GOVERNANCE"`` or ``"COMPLIANCE"`` where Object Lock retains this version, as
            far as these credentials may know.
        retain_until: Until then.
        legal_hold: Whether it is under a legal hold.
        cache_control: Cache-Control.
        content_disposition: Content-Disposition.
        content_encoding: Content-Encoding.
        content_language: Content-Language.
        sse: Encryption at rest.
        kms_key_id: KMS key of it.
        server_time: The service's clock when it answered.
        attempt: The id that a conditional upload of kumo_crt left, to know its own write by.
    """

    size: int
    etag: str
    version_id: str | None
    checksum_crc32c: int | None
    checksums: Mapping[str, str]
    checksum_type: str | None
    last_modified: datetime | None
    metadata: Mapping[str, str]
    content_type: str | None
    storage_class: str | None
    server_time: datetime | None = None
    attempt: str | None = field(default=None, repr=False)
    restore: str | None = None
    archive_status: str | None = None
    lock_mode: str | None = None
    retain_until: datetime | None = None
    legal_hold: bool = False
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None


def head_task(
    ctx: Context, bucket: str, key: str, version_id: str | None = None
) -> Task[HeadResult]:
    """Asks for an object's properties, its stored checksums among them."""
    response = yield from ctx.request(
        "HeadObject",
        "HEAD",
        bucket,
        key,
        query=[("versionId", version_id)] if version_id else [],
        headers={"x-amz-checksum-mode": "ENABLED"},
    )
    what = f"looking up s3://{bucket}/{key}"
    raise_for(response, what, ctx.endpoint(bucket))
    headers = Headers(response.headers)
    check_origin(headers, response.status, what)
    size = headers.number("content-length")
    if size is None:
        raise TransportError(
            f"{what}: the service did not say how long the object is; try again, or another "
            "endpoint"
        )
    full = headers.checksum_type != "COMPOSITE"
    return HeadResult(
        size=size,
        etag=headers.etag,
        version_id=headers.get("x-amz-version-id"),
        checksum_crc32c=decode_crc32c(headers.get("x-amz-checksum-crc32c")) if full else None,
        checksums=public_checksums(headers),
        checksum_type=headers.checksum_type,
        last_modified=headers.time("last-modified"),
        metadata=headers.metadata,
        content_type=headers.get("content-type"),
        storage_class=headers.get("x-amz-storage-class"),
        server_time=headers.time("date"),
        attempt=headers.attempt,
        restore=headers.get("x-amz-restore"),
        archive_status=headers.get("x-amz-archive-status"),
        lock_mode=headers.get("x-amz-object-lock-mode"),
        retain_until=_retain_until(headers),
        legal_hold=headers.get("x-amz-object-lock-legal-hold") == "ON",
        cache_control=headers.get("cache-control"),
        content_disposition=headers.get("content-disposition"),
        content_encoding=headers.content_encoding,
        content_language=headers.get("content-language"),
        sse=headers.get(SSE),
        kms_key_id=headers.get(SSE_KEY),
    )


def _retain_until(headers: Headers) -> datetime | None:
    text = headers.get("x-amz-object-lock-retain-until-date")
    return iso_time(text) if text else None
