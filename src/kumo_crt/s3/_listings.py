"""Listings of versions and of unfinished multipart uploads, and what is done about the latter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from kumo_crt._engine import Task
from kumo_crt.exceptions import NotFoundError, S3Error
from kumo_crt.s3._answers import iso_time, parse_xml, raise_for, text_of
from kumo_crt.s3._context import Context

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


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


class Marker(NamedTuple):
    """Where a listing goes on: after a key, and a version or upload of it."""

    key: str
    id: str


def _names(root: Element) -> Callable[[str], str]:
    """Reads names as the answer has encoded them."""
    if text_of(root, "EncodingType") == "url":
        return lambda text: unquote(text.replace("+", " "))
    return lambda text: text


def _next(root: Element, what: str, id_name: str, last: Marker | None) -> Marker | None:
    if text_of(root, "IsTruncated") != "true":
        return None
    key = _names(root)(text_of(root, "NextKeyMarker"))
    following = Marker(key, text_of(root, id_name))
    if not key or following == last:
        raise S3Error("MalformedResponse", 200, f"{what}: more entries, but no way to go on")
    return following


def list_versions_page_task(
    ctx: Context, bucket: str, prefix: str, marker: Marker | None
) -> Task[tuple[list[VersionInfo], Marker | None]]:
    """One page of versions and delete markers, and where the next begins."""
    what = f"listing versions below s3://{bucket}/{prefix}"
    query = [("encoding-type", "url"), ("prefix", prefix), ("versions", "")]
    if marker is not None:
        query += [("key-marker", marker.key), ("version-id-marker", marker.id)]
    query.sort()
    response = yield from ctx.request("ListObjectVersions", "GET", bucket, query=query)
    raise_for(response, what, ctx.endpoint(bucket))
    root = parse_xml(memoryview(response.body), what, "ListVersionsResult")
    name = _names(root)
    found = [
        VersionInfo(
            key=name(text_of(item, "Key")),
            version_id=text_of(item, "VersionId"),
            size=int(text_of(item, "Size") or 0),
            etag=text_of(item, "ETag").strip('"'),
            last_modified=iso_time(text_of(item, "LastModified")),
            is_latest=text_of(item, "IsLatest") == "true",
            is_delete_marker=item.tag == "DeleteMarker",
            storage_class=text_of(item, "StorageClass") or None,
        )
        for item in root
        if item.tag in ("Version", "DeleteMarker")
    ]
    return found, _next(root, what, "NextVersionIdMarker", marker)


def list_uploads_page_task(
    ctx: Context, bucket: str, prefix: str, marker: Marker | None
) -> Task[tuple[list[UploadInfo], Marker | None]]:
    """One page of unfinished multipart uploads, and where the next begins."""
    what = f"listing uploads below s3://{bucket}/{prefix}"
    # Not encoded: SeaweedFS says that its names are, and they are not.
    query = [("prefix", prefix), ("uploads", "")]
    if marker is not None:
        query += [("key-marker", marker.key), ("upload-id-marker", marker.id)]
    query.sort()
    response = yield from ctx.request("ListMultipartUploads", "GET", bucket, query=query)
    raise_for(response, what, ctx.endpoint(bucket))
    root = parse_xml(memoryview(response.body), what, "ListMultipartUploadsResult")
    name = _names(root)
    found = [
        UploadInfo(
            key=name(text_of(item, "Key")),
            upload_id=text_of(item, "UploadId"),
            initiated=iso_time(text_of(item, "Initiated")),
            storage_class=text_of(item, "StorageClass") or None,
        )
        for item in root.iterfind("Upload")
    ]
    return found, _next(root, what, "NextUploadIdMarker", marker)


def list_uploads_task(ctx: Context, bucket: str, prefix: str) -> Task[list[UploadInfo]]:
    """All unfinished multipart uploads below a prefix."""
    found: list[UploadInfo] = []
    marker: Marker | None = None
    while True:
        page, marker = yield from list_uploads_page_task(ctx, bucket, prefix, marker)
        found.extend(page)
        if marker is None:
            return found


def abort_upload_task(ctx: Context, bucket: str, key: str, upload_id: str) -> Task[None]:
    """Aborts a multipart upload; succeeds if there is none any more."""
    response = yield from ctx.request(
        "AbortMultipartUpload", "DELETE", bucket, key, query=[("uploadId", upload_id)]
    )
    try:
        raise_for(response, f"aborting an upload to s3://{bucket}/{key}", ctx.endpoint(bucket))
    except NotFoundError:
        return
