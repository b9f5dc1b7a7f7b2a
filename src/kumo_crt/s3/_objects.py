"""Listings of objects."""

from __future__ import annotations

from urllib.parse import unquote

from kumo_crt._engine import Task
from kumo_crt.exceptions import S3Error
from kumo_crt.s3._answers import iso_time, parse_xml, raise_for, text_of
from kumo_crt.s3._context import Context
from kumo_crt.s3._results import ObjectInfo


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
    root = parse_xml(memoryview(response.body), what, "ListBucketResult")
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
