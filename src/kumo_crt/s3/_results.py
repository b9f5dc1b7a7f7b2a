"""What the calls return that nearly every program makes; other results are with their requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class GetResult:
    """An object, or a range of one, that was read.

    Attributes:
        body: The content as a read-only memoryview of native memory; None when it went to `into`.
        size: Bytes received.
        etag: ETag, without quotes.
        version_id: Version in a versioned bucket.
        checksum_crc32c: CRC32C of the received bytes.
        validated: Algorithm of the stored checksum that the content was compared with; None if the
            object has none that covers what was asked for.
        last_modified: Time of the last write.
        metadata: User metadata, lower-case names without ``x-amz-meta-``.
        content_type: Content type.
        server_time: The service's clock when it answered.
        storage_class: Storage class; None means STANDARD.
        content_encoding: Content-Encoding; the content is as it was stored, not decoded.
        sse: Encryption at rest.
        kms_key_id: KMS key of it.
    """

    body: memoryview | None
    size: int
    etag: str
    version_id: str | None
    checksum_crc32c: int
    validated: str | None
    last_modified: datetime | None
    metadata: Mapping[str, str]
    content_type: str | None
    server_time: datetime | None = None
    storage_class: str | None = None
    content_encoding: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One line of a listing.

    Attributes:
        key: Key; with ``is_prefix``, the common prefix up to and with the delimiter.
        size: Bytes.
        etag: ETag, without quotes.
        last_modified: Time of the last write.
        storage_class: Storage class; None where the service does not say.
        is_prefix: Whether this stands for all keys that begin with ``key``.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime | None
    storage_class: str | None = None
    is_prefix: bool = False
