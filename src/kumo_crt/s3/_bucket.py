"""Requests about buckets and their configuration, and for copies of archived objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kumo_crt._engine import Task
from kumo_crt.exceptions import NotFoundError
from kumo_crt.s3._answers import parse_xml, raise_for, text_of
from kumo_crt.s3._context import Context
from kumo_crt.s3._xml import escape

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def configuration_task(
    ctx: Context, bucket: str, operation: str, part: str, expected: str | None = None
) -> Task[Element | None]:
    """Reads one part of a bucket's configuration; None if there is none.

    Args:
        ctx: The client's context.
        bucket: Bucket.
        operation: S3's name of the request, such as ``"GetBucketLifecycleConfiguration"``.
        part: Its name in the query, such as ``"lifecycle"``.
        expected: See `parse_xml`.

    Raises:
        S3Error: The service refused, or does not know this request.
    """
    what = f"asking for the {part} configuration of s3://{bucket}"
    response = yield from ctx.request(operation, "GET", bucket, query=[(part, "")])
    try:
        raise_for(response, what, ctx.endpoint(bucket))
    except NotFoundError as error:
        if error.code == "NoSuchBucket":
            raise
        return None  # NoSuchLifecycleConfiguration and its like
    return parse_xml(memoryview(response.body), what, expected)


def create_bucket_task(ctx: Context, bucket: str, object_lock: bool = False) -> Task[None]:
    """Creates a bucket in the client's region."""
    region = ctx.settings.region
    body = b""
    if region != "us-east-1":
        body = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{escape(region)}</LocationConstraint>"
            "</CreateBucketConfiguration>"
        ).encode()
    headers = {"x-amz-bucket-object-lock-enabled": "true"} if object_lock else None
    response = yield from ctx.request("CreateBucket", "PUT", bucket, headers=headers, body=body)
    raise_for(response, f"creating bucket {bucket}", ctx.endpoint(bucket))


def delete_bucket_task(ctx: Context, bucket: str) -> Task[None]:
    """Deletes an empty bucket."""
    response = yield from ctx.request("DeleteBucket", "DELETE", bucket)
    raise_for(response, f"deleting bucket {bucket}", ctx.endpoint(bucket))


def get_versioning_task(ctx: Context, bucket: str) -> Task[str | None]:
    """Whether a bucket keeps versions: Enabled, Suspended, or None where it never did."""
    root = yield from configuration_task(
        ctx, bucket, "GetBucketVersioning", "versioning", "VersioningConfiguration"
    )
    return (text_of(root, "Status") or None) if root is not None else None


def put_versioning_task(ctx: Context, bucket: str, status: str) -> Task[None]:
    """Turns versioning on or off."""
    body = (
        '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Status>{status}</Status></VersioningConfiguration>"
    )
    response = yield from ctx.request(
        "PutBucketVersioning",
        "PUT",
        bucket,
        query=[("versioning", "")],
        headers={"Content-Type": "application/xml"},
        body=body.encode(),
        send_crc32c=True,
    )
    raise_for(response, f"setting the versioning of bucket {bucket}", ctx.endpoint(bucket))


def restore_object_task(ctx: Context, bucket: str, key: str, days: int, tier: str) -> Task[None]:
    """Asks for a copy of an archived object that can be read for some days."""
    what = f"asking for a readable copy of s3://{bucket}/{key}"
    body = (
        '<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Days>{days}</Days><GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters>"
        "</RestoreRequest>"
    )
    response = yield from ctx.request(
        "RestoreObject",
        "POST",
        bucket,
        key,
        query=[("restore", "")],
        headers={"Content-Type": "application/xml"},
        body=body.encode(),
        send_crc32c=True,
    )
    # 202: asked for; 200: there already; 409 RestoreAlreadyInProgress: somebody else has asked.
    if response.status in (200, 202, 409):
        return
    raise_for(response, what, ctx.endpoint(bucket))
