"""Copies within the service: nothing of the content passes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import NamedTuple
from urllib.parse import quote

from kumo_crt import _core
from kumo_crt._config import MIB
from kumo_crt._engine import Cancelled, Gather, Meter, Task
from kumo_crt.exceptions import AccessDeniedError, ChecksumMismatchError, S3Error
from kumo_crt.s3._answers import (
    SSE,
    SSE_KEY,
    Headers,
    decode_crc32c,
    encode_crc32c,
    parse_xml,
    quoted,
    raise_for,
    text_of,
)
from kumo_crt.s3._body import object_headers, tagging
from kumo_crt.s3._context import Context
from kumo_crt.s3._head import HeadResult, head_task
from kumo_crt.s3._listings import abort_upload_task
from kumo_crt.s3._multipart import part_size_for
from kumo_crt.s3._putting import PutResult
from kumo_crt.s3._xml import escape

MAX_SINGLE_COPY = 5 * 1024**3
_PART = 256 * MIB


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CopyOptions:
    """How a copy is written.

    Attributes:
        headers: To write it with, by their S3 names.
        checksum: Whether the service is asked for a CRC32C of the whole.
        conditions: Headers about the object that is at the target.
        progress: Called with bytes done and in total.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    checksum: bool = False
    conditions: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], object] | None = None


class _Copy(NamedTuple):
    """One copy: from where to where."""

    ctx: Context
    target: tuple[str, str]
    size: int
    where: Mapping[str, str]
    options: CopyOptions
    what: str

    def request(
        self,
        operation: str,
        method: str,
        headers: Mapping[str, str],
        query: tuple[tuple[str, str], ...] = (),
        body: object = None,
    ) -> Task[_core.Response]:
        """Sends a request about the target; errors come inside a 200, too."""
        response = yield from self.ctx.request(
            operation, method, *self.target, query=query, headers=headers, body=body
        )
        raise_for(response, self.what, self.ctx.endpoint(self.target[0]))
        return response


def copy_task(
    ctx: Context,
    source: tuple[str, str],
    target: tuple[str, str],
    *,
    size: int,
    etag: str,
    headers: Mapping[str, str] | None = None,
) -> Task[PutResult]:
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
    return _copy(ctx, source, target, None, size, etag, CopyOptions(headers or {}))


def copy_object_task(
    ctx: Context,
    source: tuple[str, str],
    target: tuple[str, str],
    version_id: str | None,
    etag: str | None,
    options: CopyOptions,
    *,
    metadata: Mapping[str, str] | None,
    replaces: bool,
) -> Task[PutResult]:
    """Copies an object with what goes with it.

    Args:
        ctx: The client's context.
        source: Bucket and key to copy from.
        target: Bucket and key to copy to.
        version_id: Version to copy.
        etag: ETag that the source has to have.
        options: How it is written; ``headers`` hold what is changed.
        metadata: User metadata that replaces the source's; None to keep that.
        replaces: Whether content properties are changed; those that are not stay.
    """
    found = yield from head_task(ctx, *source, version_id)
    in_parts = found.size > MAX_SINGLE_COPY
    replaces = replaces or metadata is not None
    kept = _properties(found, metadata) if replaces or in_parts else {}
    headers = {**kept, **options.headers}
    if not in_parts:
        headers["x-amz-metadata-directive"] = "REPLACE" if replaces else "COPY"
        if "x-amz-tagging" in headers:
            headers["x-amz-tagging-directive"] = "REPLACE"
    elif "x-amz-tagging" not in headers:
        tags = yield from _tags_task(ctx, *source, version_id)
        headers["x-amz-tagging"] = tagging(tags)
    if in_parts and not headers["x-amz-tagging"]:
        del headers["x-amz-tagging"]
    chosen = replace(options, headers=headers)
    result = yield from _copy(
        ctx, source, target, version_id, found.size, etag or found.etag, chosen
    )
    full, stored = found.checksum_crc32c, result.checksum_crc32c
    if full is not None and stored is not None and full != stored:
        raise ChecksumMismatchError(
            f"copying s3://{'/'.join(source)} to s3://{'/'.join(target)}: the source has CRC32C "
            f"{full:08x}, the copy {stored:08x}. Delete the copy, and verify the source"
        )
    return result


def _properties(found: HeadResult, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of what goes with an object, as far as copies keep it."""
    return object_headers(
        found.metadata if metadata is None else metadata,
        content_type=found.content_type,
        cache_control=found.cache_control,
        content_disposition=found.content_disposition,
        content_encoding=found.content_encoding,
        content_language=found.content_language,
    )


def _tags_task(ctx: Context, bucket: str, key: str, version_id: str | None) -> Task[dict[str, str]]:
    what = f"reading the tags of s3://{bucket}/{key}"
    query = [("tagging", "")] + ([("versionId", version_id)] if version_id else [])
    response = yield from ctx.request("GetObjectTagging", "GET", bucket, key, query=query)
    try:
        raise_for(response, what, ctx.endpoint(bucket))
    except AccessDeniedError as error:
        raise AccessDeniedError(
            error.code,
            error.status,
            f"{error.message}. A copy in parts needs s3:GetObjectTagging to keep the tags: allow "
            "it, or say which tags the copy is to have (tags={} for none)",
            error.request_id,
        ) from None
    root = parse_xml(memoryview(response.body), what, "Tagging")
    return {text_of(tag, "Key"): text_of(tag, "Value") for tag in root.iter("Tag")}


def _copy(
    ctx: Context,
    source: tuple[str, str],
    target: tuple[str, str],
    version_id: str | None,
    size: int,
    etag: str,
    options: CopyOptions,
) -> Task[PutResult]:
    path = quote("/".join(source), safe="/-_.~")
    where = {
        "x-amz-copy-source": f"{path}?versionId={quote(version_id)}" if version_id else path,
        "x-amz-copy-source-if-match": quoted(etag),
    }
    if ctx.settings.expected_bucket_owner is not None:
        where["x-amz-source-expected-bucket-owner"] = ctx.settings.expected_bucket_owner
    what = f"copying s3://{'/'.join(source)} to s3://{'/'.join(target)}"
    copy = _Copy(ctx, target, size, where, options, what)
    meter = Meter(options.progress, size)
    result = yield from (_in_parts(copy, meter) if size > MAX_SINGLE_COPY else _single(copy, meter))
    meter.flush()
    return result


def _single(copy: _Copy, meter: Meter) -> Task[PutResult]:
    headers = {**copy.where, **copy.options.headers, **copy.options.conditions}
    if copy.options.checksum:
        headers["x-amz-checksum-algorithm"] = "CRC32C"
    response = yield from copy.request("CopyObject", "PUT", headers)
    meter.add(copy.size)
    return _result(copy, response, 0)


def _result(copy: _Copy, response: _core.Response, parts: int) -> PutResult:
    root = parse_xml(memoryview(response.body), copy.what)
    answer = Headers(response.headers)
    etag = text_of(root, "ETag").strip('"')
    if not etag:
        raise S3Error("MalformedResponse", 200, f"{copy.what}: no ETag in the answer")
    told = decode_crc32c(text_of(root, "ChecksumCRC32C"))
    return PutResult(
        etag=etag,
        version_id=answer.get("x-amz-version-id"),
        checksum_crc32c=told,
        size=copy.size,
        parts=parts,
        server_time=answer.time("date"),
        sse=answer.get(SSE),
        kms_key_id=answer.get(SSE_KEY),
        confirmed=told is not None,
    )


class _Part(NamedTuple):
    number: int
    size: int
    etag: str
    crc: int | None

    def document(self) -> str:
        """Its place in the completion."""
        crc = ""
        if self.crc is not None:
            crc = f"<ChecksumCRC32C>{encode_crc32c(self.crc)}</ChecksumCRC32C>"
        return (
            f"<Part><PartNumber>{self.number}</PartNumber><ETag>{escape(self.etag)}</ETag>{crc}"
            "</Part>"
        )


def _in_parts(copy: _Copy, meter: Meter) -> Task[PutResult]:
    headers = dict(copy.options.headers)
    if copy.options.checksum:
        headers["x-amz-checksum-algorithm"] = "CRC32C"
        headers["x-amz-checksum-type"] = "FULL_OBJECT"
    response = yield from copy.request("CreateMultipartUpload", "POST", headers, (("uploads", ""),))
    upload = text_of(parse_xml(memoryview(response.body), copy.what), "UploadId")
    if not upload:
        raise S3Error("MalformedResponse", 200, f"{copy.what}: no UploadId in the answer")
    part_size = part_size_for(copy.size, max(_PART, copy.ctx.settings.part_size))

    def part(number: int, start: int) -> Task[_Part]:
        size = min(part_size, copy.size - start)
        answer = yield from copy.request(
            "UploadPartCopy",
            "PUT",
            {**copy.where, "x-amz-copy-source-range": f"bytes={start}-{start + size - 1}"},
            (("partNumber", str(number)), ("uploadId", upload)),
        )
        root = parse_xml(memoryview(answer.body), copy.what)
        meter.add(size)
        return _Part(
            number, size, text_of(root, "ETag"), decode_crc32c(text_of(root, "ChecksumCRC32C"))
        )

    def parts() -> Iterator[Task[_Part]]:
        for number, start in enumerate(range(0, copy.size, part_size), 1):
            yield part(number, start)

    try:
        found: list[_Part] = yield Gather(parts(), copy.ctx.settings.max_connections)
        return (yield from _complete(copy, upload, found))
    except (Exception, Cancelled):
        yield from abort_upload_task(copy.ctx, *copy.target, upload)
        raise


def _complete(copy: _Copy, upload: str, parts: list[_Part]) -> Task[PutResult]:
    headers = {
        "Content-Type": "application/xml",
        "x-amz-mp-object-size": str(copy.size),
        **copy.options.conditions,
    }
    crc: int | None = None
    if copy.options.checksum and all(part.crc is not None for part in parts):
        crc = reduce(lambda a, p: _core.crc32c_combine(a, p.crc or 0, p.size), parts, 0)
        headers["x-amz-checksum-crc32c"] = encode_crc32c(crc)
        headers["x-amz-checksum-type"] = "FULL_OBJECT"
    body = (
        '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{''.join(part.document() for part in parts)}</CompleteMultipartUpload>"
    )
    response = yield from copy.request(
        "CompleteMultipartUpload", "POST", headers, (("uploadId", upload),), body.encode()
    )
    return replace(_result(copy, response, len(parts)), checksum_crc32c=crc)
