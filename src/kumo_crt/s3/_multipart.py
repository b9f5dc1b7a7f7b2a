"""Uploads in parts.

Every part is sent with its CRC32C; the CRC32C of the whole object is their combination, sent with
the completion as a FULL_OBJECT checksum.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple, TypeAlias, cast

from kumo_crt import _core
from kumo_crt._config import MAX_PARTS, MIB
from kumo_crt._engine import (
    Cancelled,
    First,
    Gather,
    Meter,
    Reservation,
    Task,
)
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    CredentialsError,
    NotFoundError,
    PreconditionFailedError,
    S3Error,
    ThrottledError,
    TransportError,
)
from kumo_crt.s3._answers import (
    ATTEMPT,
    Headers,
    check_origin,
    encode_crc32c,
    parse_xml,
    raise_for,
    text_of,
)
from kumo_crt.s3._body import conditions
from kumo_crt.s3._context import Context
from kumo_crt.s3._putting import PutOptions, PutResult, already_ours, confirm, result_of
from kumo_crt.s3._xml import escape

# What makes up the parts of an upload: bodies (see `Call`) with the room in memory that they take.
Pieces: TypeAlias = Generator[tuple[object, Reservation] | First, Any, None]


class Part(NamedTuple):
    """A part that the service has."""

    number: int
    size: int
    crc: int
    etag: str


class Begun(NamedTuple):
    """An upload to go on with.

    Attributes:
        upload_id: Its id.
        part_size: Of all parts but the last.
        parts: What of it is there and the same as the body, by number.
    """

    upload_id: str
    part_size: int
    parts: dict[int, Part]


def part_size_for(size: int, wanted: int) -> int:
    """A part size that needs at most 10,000 parts, in whole MiB where it has to grow."""
    least = -(-size // MAX_PARTS)
    return wanted if wanted >= least else -(-least // MIB) * MIB


def combined(parts: Iterable[Part]) -> int:
    """CRC32C of an object, from those of its parts."""
    return reduce(lambda crc, part: _core.crc32c_combine(crc, part.crc, part.size), parts, 0)


def _create(
    ctx: Context, bucket: str, key: str, options: PutOptions, attempt: str | None, what: str
) -> Task[str]:
    """Begins an upload; returns its id."""
    headers = dict(options.headers)
    if options.checksum:
        headers["x-amz-checksum-algorithm"] = "CRC32C"
        headers["x-amz-checksum-type"] = "FULL_OBJECT"
    if attempt is not None:
        headers["x-amz-meta-" + ATTEMPT] = attempt
    response = yield from ctx.request(
        "CreateMultipartUpload", "POST", bucket, key, query=[("uploads", "")], headers=headers
    )
    raise_for(response, what, ctx.endpoint(bucket))
    root = parse_xml(memoryview(response.body), what)
    upload_id = text_of(root, "UploadId")
    if not upload_id:
        raise S3Error("MalformedResponse", 200, f"{what}: no UploadId in the answer")
    return upload_id


def multipart_task(
    ctx: Context,
    bucket: str,
    key: str,
    pieces: Pieces,
    options: PutOptions,
    meter: Meter,
    limit: int,
    begun: Begun | None = None,
    sent: Callable[[Part], object] | None = None,
) -> Task[PutResult]:
    """Uploads pieces as the parts of one object; aborts the upload if anything fails.

    One that may be gone on with (``options.resume``) stays when it was cancelled, or the service
    failed.

    A piece comes with the room in memory that it takes, to be held until it is sent. ``sent`` is
    told of each part that the service has.
    """
    what = f"putting s3://{bucket}/{key}"
    endpoint = ctx.endpoint(bucket)
    attempt: str | None = None
    if begun is not None:
        upload_id = begun.upload_id
    else:
        attempt = os.urandom(16).hex() if options.if_none_match is not None else None
        upload_id = yield from _create(ctx, bucket, key, options, attempt, what)
    have = begun.parts if begun is not None else {}

    def part(number: int, piece: object, room: Reservation) -> Task[Part]:
        size = piece[2] if isinstance(piece, tuple) else memoryview(cast("bytes", piece)).nbytes
        with room:
            if options.throttle is not None:
                yield from options.throttle.take(size)
            with ctx.trailers.for_part(size if options.checksum else 0) as trailing:
                answer = yield from send(number, piece, trailing)
                if trailing and not ctx.trailers.understood(answer):
                    answer = yield from send(number, piece, False)
                    if answer.error_code == 0 and answer.status < 300:
                        ctx.trailers.refused()
        raise_for(answer, f"{what}, part {number}", endpoint)
        found = Headers(answer.headers)
        check_origin(found, answer.status, f"{what}, part {number}")
        if options.checksum:
            confirmed = found.get("x-amz-checksum-crc32c")
            confirm(confirmed, answer.crc32c_sent, f"{what}, part {number}")
        return stored(Part(number, size, answer.crc32c_sent, found.etag))

    def send(number: int, piece: object, trailing: bool) -> Task[_core.Response]:
        return ctx.request(
            "UploadPart",
            "PUT",
            bucket,
            key,
            query=[("partNumber", str(number)), ("uploadId", upload_id)],
            body=piece,
            send_crc32c=options.checksum,
            crc32c_trailing=trailing,
        )

    def kept(number: int) -> Task[Part]:
        yield from ()
        return stored(have[number])

    def stored(found: Part) -> Part:
        meter.add(found.size)
        if sent is not None:
            sent(found)
        return found

    def tasks() -> Generator[Task[Part] | First, Any, None]:
        number, found = 0, None
        with contextlib.suppress(StopIteration):
            while True:
                found = pieces.send(found)
                if isinstance(found, First):
                    found = yield found
                else:
                    number += 1
                    yield kept(number) if number in have else part(number, *found)
                    found = None

    try:
        parts = yield Gather(tasks(), limit)
        done = yield from _complete(ctx, bucket, key, upload_id, parts, options, attempt, what)
    except (Exception, Cancelled) as error:
        if options.resume is None or not _says_nothing_of_the_content(error):
            yield from _abort(ctx, bucket, key, upload_id)
        raise
    return replace(done, resumed=sum(found.size for found in have.values()))


def _says_nothing_of_the_content(error: BaseException) -> bool:
    """Whether what was sent is as good as before: somebody may go on with it."""
    if isinstance(error, S3Error) and error.status >= 500:
        return True
    return isinstance(error, Cancelled | TransportError | CredentialsError | ThrottledError)


def _abort(ctx: Context, bucket: str, key: str, upload_id: str) -> Task[None]:
    """Tries to remove the parts; a lifecycle rule has to where this fails too."""
    yield from ctx.request(
        "AbortMultipartUpload",
        "DELETE",
        bucket,
        key,
        query=[("uploadId", upload_id)],
    )


def _complete(
    ctx: Context,
    bucket: str,
    key: str,
    upload_id: str,
    parts: list[Part],
    options: PutOptions,
    attempt: str | None,
    what: str,
) -> Task[PutResult]:
    size = sum(part.size for part in parts)
    crc: int | None = None
    headers = conditions(options.if_match, options.if_none_match)
    headers["Content-Type"] = "application/xml"
    headers["x-amz-mp-object-size"] = str(size)
    if options.checksum:
        crc = combined(parts)
        if options.expected_crc32c not in (None, crc):
            raise ChecksumMismatchError(
                f"{what}: CRC32C {crc:08x} was read, {options.expected_crc32c:08x} was expected: "
                "nothing was stored"
            )
        headers["x-amz-checksum-crc32c"] = encode_crc32c(crc)
        headers["x-amz-checksum-type"] = "FULL_OBJECT"
    lines = ['<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">']
    for part in parts:
        checksum = ""
        if options.checksum:
            checksum = f"<ChecksumCRC32C>{encode_crc32c(part.crc)}</ChecksumCRC32C>"
        lines.append(
            f"<Part><PartNumber>{part.number}</PartNumber>"
            f"<ETag>&quot;{escape(part.etag)}&quot;</ETag>{checksum}</Part>"
        )
    lines.append("</CompleteMultipartUpload>")
    response = yield from ctx.request(
        "CompleteMultipartUpload",
        "POST",
        bucket,
        key,
        query=[("uploadId", upload_id)],
        headers=headers,
        body="".join(lines).encode(),
    )
    try:
        raise_for(response, what, ctx.endpoint(bucket))
        root = parse_xml(memoryview(response.body), what, "CompleteMultipartUploadResult")
    except (PreconditionFailedError, NotFoundError):
        # NoSuchUpload too may mean that an earlier try had succeeded.
        ours = yield from already_ours(ctx, bucket, key, size, crc, attempt)
        if ours is None:
            raise
        return ours
    stored = text_of(root, "ChecksumCRC32C")
    # A composite one, from a service without FULL_OBJECT, is no CRC32C.
    told = "-" in stored or confirm(stored, crc, what)
    etag = text_of(root, "ETag").strip('"')
    return result_of(Headers(response.headers), etag, crc, size, told, len(parts))
