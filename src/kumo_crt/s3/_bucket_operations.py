"""The operations of both clients on buckets, their listings among them; see `_operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from kumo_crt._engine import Task
from kumo_crt.s3 import _bucket, _objects
from kumo_crt.s3._context import Context, check_names
from kumo_crt.s3._results import ObjectInfo

if TYPE_CHECKING:
    from kumo_crt.s3._listings import UploadInfo, VersionInfo

T = TypeVar("T")
# From where to go on (None: from the start) to a task that finds a page and where that ends.
Pages: TypeAlias = Callable[[Any], Task[tuple[list[T], Any]]]


def list_objects(
    ctx: Context,
    bucket: str,
    prefix: str = "",
    delimiter: str | None = None,
    start_after: str | None = None,
) -> Pages[ObjectInfo]:
    """Lists objects in key order, page by page as they are asked for.

    Args:
        bucket: Bucket.
        prefix: Only keys that begin so.
        delimiter: Keys that have it after the prefix are summed up, see `ObjectInfo.is_prefix`.
        start_after: Only keys after this one.
    """
    check_names(bucket)
    return lambda token: _objects.list_page_task(ctx, bucket, prefix, delimiter, start_after, token)


def list_object_versions(ctx: Context, bucket: str, prefix: str = "") -> Pages[VersionInfo]:
    """Lists versions and delete markers, by key and from the newest to the oldest.

    Args:
        bucket: Bucket.
        prefix: Only keys that begin so.
    """
    from kumo_crt.s3._listings import list_versions_page_task

    check_names(bucket)
    return lambda marker: list_versions_page_task(ctx, bucket, prefix, marker)


def list_multipart_uploads(ctx: Context, bucket: str, prefix: str = "") -> Pages[UploadInfo]:
    """Lists the multipart uploads that were neither completed nor aborted.

    Args:
        bucket: Bucket.
        prefix: Only keys that begin so.
    """
    from kumo_crt.s3._listings import list_uploads_page_task

    check_names(bucket)
    return lambda marker: list_uploads_page_task(ctx, bucket, prefix, marker)


def abort_multipart_upload(ctx: Context, bucket: str, key: str, upload_id: str) -> Task[None]:
    """Aborts a multipart upload and frees its parts; succeeds if there is none any more.

    Args:
        bucket: Bucket.
        key: Key.
        upload_id: See `UploadInfo`.
    """
    from kumo_crt.s3._listings import abort_upload_task

    check_names(bucket, key)
    return abort_upload_task(ctx, bucket, key, upload_id)


def create_bucket(ctx: Context, bucket: str, *, object_lock: bool = False) -> Task[None]:
    """Creates a bucket in the client's region.

    Args:
        bucket: Bucket.
        object_lock: Let it have Object Lock, and versioning with that.

    Raises:
        S3Error: It exists (``BucketAlreadyOwnedByYou``, ``BucketAlreadyExists``), or may not.
    """
    check_names(bucket)
    return _bucket.create_bucket_task(ctx, bucket, object_lock)


def delete_bucket(ctx: Context, bucket: str) -> Task[None]:
    """Deletes a bucket.

    Raises:
        S3Error: It is not empty (``BucketNotEmpty``).
    """
    check_names(bucket)
    return _bucket.delete_bucket_task(ctx, bucket)


def get_bucket_versioning(ctx: Context, bucket: str) -> Task[str | None]:
    """Tells whether a bucket keeps versions.

    Returns:
        ``"Enabled"``, ``"Suspended"``, or None if versioning was never turned on.
    """
    check_names(bucket)
    return _bucket.get_versioning_task(ctx, bucket)


def put_bucket_versioning(ctx: Context, bucket: str, status: str) -> Task[None]:
    """Turns versioning on or off.

    Args:
        bucket: Bucket.
        status: ``"Enabled"`` or ``"Suspended"``.
    """
    check_names(bucket)
    if status not in ("Enabled", "Suspended"):
        raise ValueError(f"status {status!r}: 'Enabled' or 'Suspended'")
    return _bucket.put_versioning_task(ctx, bucket, status)
