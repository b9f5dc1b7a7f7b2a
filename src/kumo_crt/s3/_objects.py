"""Requests that are one exchange: head, delete, list, buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from urllib.parse import unquote

from kumo_crt._engine import Task
from kumo_crt.exceptions import S3Error
from kumo_crt.s3._answers import (
    Headers,
    decode_crc32c,
    error_class,
    iso_time,
    parse_xml,
    public_checksums,
    raise_for,
    text_of,
)
from kumo_crt.s3._context import Context
from kumo_crt.s3._results import DeleteFailure, DeleteResult, HeadResult, ObjectInfo
from kumo_crt.s3._xml import escape

DELETE_BATCH = 1000  # DeleteObjects takes no more keys


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
    raise_for(response, f"looking up s3://{bucket}/{key}", ctx.endpoint(bucket))
    headers = Headers(response.headers)
    full = headers.checksum_type != "COMPOSITE"
    return HeadResult(
        size=headers.number("content-length") or 0,
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
    )


def _retain_until(headers: Headers) -> datetime | None:
    text = headers.get("x-amz-object-lock-retain-until-date")
    return iso_time(text) if text else None


def delete_task(
    ctx: Context, bucket: str, key: str, version_id: str | None = None
) -> Task[DeleteResult]:
    """Deletes one object; deleting what is not there succeeds, as S3 has it."""
    response = yield from ctx.request(
        "DeleteObject",
        "DELETE",
        bucket,
        key,
        query=[("versionId", version_id)] if version_id else [],
    )
    raise_for(response, f"deleting s3://{bucket}/{key}", ctx.endpoint(bucket))
    headers = Headers(response.headers)
    return DeleteResult(
        headers.get("x-amz-version-id"), headers.get("x-amz-delete-marker") == "true"
    )


def delete_many_task(ctx: Context, bucket: str, keys: Iterable[str]) -> Task[int]:
    """Deletes keys, a thousand a request; returns how many."""
    remaining = iter(keys)
    count = 0
    while batch := list(islice(remaining, DELETE_BATCH)):
        failed = yield from delete_batch_task(ctx, bucket, [(key, None) for key in batch])
        if failed:
            raise delete_error(bucket, failed, len(batch))
        count += len(batch)
    return count


def delete_error(bucket: str, failed: Sequence[DeleteFailure], count: int) -> S3Error:
    """The exception for deletions that were refused."""
    first = failed[0]
    status = 403 if first.code == "AccessDenied" else 200
    return error_class(first.code, status)(
        first.code,
        status,
        f"deleting from s3://{bucket}: {len(failed)} of {count} keys were not deleted; the first "
        f"is {first.key!r}: {first.message}",
    )


def delete_batch_task(
    ctx: Context, bucket: str, objects: Sequence[tuple[str, str | None]]
) -> Task[list[DeleteFailure]]:
    """Deletes up to a thousand keys, or versions of them; returns what was refused."""
    what = f"deleting from s3://{bucket}"
    entries = []
    for key, version_id in objects:
        version = f"<VersionId>{escape(version_id)}</VersionId>" if version_id else ""
        entries.append(f"<Object><Key>{escape(key)}</Key>{version}</Object>")
    body = (
        '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>'
        f"{''.join(entries)}</Delete>"
    )
    response = yield from ctx.request(
        "DeleteObjects",
        "POST",
        bucket,
        query=[("delete", "")],
        headers={"Content-Type": "application/xml", "x-amz-sdk-checksum-algorithm": "CRC32C"},
        body=body.encode(),
        send_crc32c=True,
    )
    raise_for(response, what, ctx.endpoint(bucket))
    return [
        DeleteFailure(
            text_of(item, "Key"),
            text_of(item, "VersionId") or None,
            text_of(item, "Code"),
            text_of(item, "Message"),
        )
        for item in parse_xml(memoryview(response.body), what).findall("Error")
    ]


def list_page_task(
    ctx: Context,
    bucket: str,
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    token: str | None,
) -> Task[tuple[list[ObjectInfo], str | None]]:
    """One page of a listing, and the token of the next (None: that was the last)."""
    what = f"listing s3://{bucket}/{prefix}"
    query = [("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]
    if delimiter:
        query.append(("delimiter", delimiter))
    if token:
        query.append(("continuation-token", token))
    elif start_after:
        query.append(("start-after", start_after))
    query.sort()
    response = yield from ctx.request("ListObjectsV2", "GET", bucket, query=query)
    raise_for(response, what, ctx.endpoint(bucket))
    root = parse_xml(memoryview(response.body), what)
    if root.tag != "ListBucketResult":
        raise S3Error("MalformedResponse", 200, f"{what}: the answer is a {root.tag}, no listing")
    encoded = text_of(root, "EncodingType") == "url"

    def name(text: str) -> str:
        return unquote(text.replace("+", " ")) if encoded else text

    found = [
        ObjectInfo(
            key=name(text_of(item, "Key")),
            size=int(text_of(item, "Size") or 0),
            etag=text_of(item, "ETag").strip('"'),
            last_modified=iso_time(text_of(item, "LastModified")),
            storage_class=text_of(item, "StorageClass") or None,
        )
        for item in root.iterfind("Contents")
    ]
    found.extend(
        ObjectInfo(name(text_of(item, "Prefix")), 0, "", None, is_prefix=True)
        for item in root.iterfind("CommonPrefixes")
    )
    found.sort(key=lambda item: item.key)
    next_token = text_of(root, "NextContinuationToken")
    if text_of(root, "IsTruncated") != "true":
        return found, None
    if not next_token or next_token == token:
        raise S3Error("MalformedResponse", 200, f"{what}: more keys, but no token to go on with")
    return found, next_token


def create_bucket_task(ctx: Context, bucket: str) -> Task[None]:
    """Creates a bucket in the client's region."""
    region = ctx.settings.region
    body = b""
    if region != "us-east-1":
        body = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{escape(region)}</LocationConstraint>"
            "</CreateBucketConfiguration>"
        ).encode()
    response = yield from ctx.request("CreateBucket", "PUT", bucket, body=body)
    raise_for(response, f"creating bucket {bucket}", ctx.endpoint(bucket))
