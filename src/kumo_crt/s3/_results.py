"""What calls return."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kumo_crt.exceptions import S3Error

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PutResult:
    """An object that was stored.

    Attributes:
        etag: ETag, without quotes.
        version_id: Version in a versioned bucket.
        checksum_crc32c: CRC32C of the whole object, as sent and confirmed by the service where it
            says so; None if the checksum was turned off.
        size: Bytes.
        parts: Parts of a multipart upload or copy; 0 for a single request.
        server_time: The service's clock when it answered.
        sse: Encryption that the service says it used.
        kms_key_id: KMS key that it used.
    """

    etag: str
    version_id: str | None
    checksum_crc32c: int | None
    size: int
    parts: int = 0
    server_time: datetime | None = None
    sse: str | None = None
    kms_key_id: str | None = None


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


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of an object, or a delete marker, in a listing of versions.

    Attributes:
        key: Key.
        version_id: Version; ``"null"`` of what was written without versioning.
        size: Bytes; 0 of a delete marker.
        etag: ETag, without quotes; empty of a delete marker.
        last_modified: Time of the write, or of the deletion.
        is_latest: Whether this is what is read without naming a version.
        is_delete_marker: Whether this says that the object was deleted.
        storage_class: Storage class; None where the service does not say.
    """

    key: str
    version_id: str
    size: int
    etag: str
    last_modified: datetime | None
    is_latest: bool
    is_delete_marker: bool
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A multipart upload that was neither completed nor aborted.

    Attributes:
        key: Key of the object that it was to become.
        upload_id: Its id, for `S3Client.abort_multipart_upload`.
        initiated: When it began.
        storage_class: Storage class of its parts; None where the service does not say.
    """

    key: str
    upload_id: str
    initiated: datetime | None
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """What a request for many deletions did not delete, and why."""

    key: str
    version_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """A deletion.

    Attributes:
        version_id: The deleted version, or the delete marker that was made.
        delete_marker: Whether it is a delete marker.
        key: Key, of one of many deletions.
        error: Why it was not deleted, of one of many; None if it was.
    """

    version_id: str | None
    delete_marker: bool
    key: str = ""
    error: S3Error | None = None
