"""Copies within the service: nothing of the content passes through here."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from kumo_crt._engine import Cancelled, Gather, Task
from kumo_crt.exceptions import S3Error
from kumo_crt.s3._answers import parse_xml, raise_for, text_of
from kumo_crt.s3._context import Context
from kumo_crt.s3._listings import abort_upload_task
from kumo_crt.s3._xml import escape

MAX_SINGLE_COPY = 5 * 1000**3
_PART = 1 << 30
_PARTS_AT_ONCE = 8


def copy_task(
    ctx: Context,
    source: tuple[str, str],
    target: tuple[str, str],
    *,
    size: int,
    etag: str,
    headers: Mapping[str, str] | None = None,
) -> Task[None]:
    """Copies an object of any size, if it still is the one that was seen.

    Args:
        ctx: The client's context.
        source: Bucket and key to copy from.
        target: Bucket and key to copy to; what is there is replaced.
        size: Size of the source.
        etag: ETag of the source.
        headers: To write the copy with.

    Raises:
        PreconditionFailedError: The source is another by now.
        S3Error: The service refused.
    """
    where = {
        "x-amz-copy-source": quote("/".join(source), safe="/-_.~"),
        "x-amz-copy-source-if-match": f'"{etag}"',
    }
    what = f"copying s3://{'/'.join(source)} to s3://{'/'.join(target)}"
    if size > MAX_SINGLE_COPY:
        yield from _in_parts(ctx, target, size, where, headers or {}, what)
        return
    response = yield from ctx.request(
        "CopyObject", "PUT", *target, headers={**where, **(headers or {})}
    )
    raise_for(response, what, ctx.endpoint(target[0]))
    parse_xml(memoryview(response.body), what)  # errors come inside a 200 too


def _in_parts(
    ctx: Context,
    target: tuple[str, str],
    size: int,
    where: Mapping[str, str],
    headers: Mapping[str, str],
    what: str,
) -> Task[None]:
    endpoint = ctx.endpoint(target[0])
    response = yield from ctx.request(
        "CreateMultipartUpload", "POST", *target, query=[("uploads", "")], headers=headers
    )
    raise_for(response, what, endpoint)
    upload = text_of(parse_xml(memoryview(response.body), what), "UploadId")
    if not upload:
        raise S3Error("MalformedResponse", 200, f"{what}: no UploadId in the answer")

    def part(number: int, start: int) -> Task[str]:
        stop = min(start + _PART, size) - 1
        answer = yield from ctx.request(
            "UploadPartCopy",
            "PUT",
            *target,
            query=[("partNumber", str(number)), ("uploadId", upload)],
            headers={**where, "x-amz-copy-source-range": f"bytes={start}-{stop}"},
        )
        raise_for(answer, what, endpoint)
        return text_of(parse_xml(memoryview(answer.body), what), "ETag")

    try:
        etags = yield Gather(
            (part(n, start) for n, start in enumerate(range(0, size, _PART), 1)), _PARTS_AT_ONCE
        )
        parts = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for n, etag in enumerate(etags, 1)
        )
        body = (
            '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"{parts}</CompleteMultipartUpload>"
        )
        response = yield from ctx.request(
            "CompleteMultipartUpload",
            "POST",
            *target,
            query=[("uploadId", upload)],
            headers={"Content-Type": "application/xml"},
            body=body.encode(),
        )
        raise_for(response, what, endpoint)
        parse_xml(memoryview(response.body), what)
    except (Exception, Cancelled):
        yield from abort_upload_task(ctx, *target, upload)
        raise
