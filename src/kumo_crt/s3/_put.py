"""Uploads: one request for a small body, a multipart upload for a large one.

Every part is sent with its CRC32C in a header, taken while the part is read; the CRC32C of the
whole object is their combination, sent with the completion as a FULL_OBJECT checksum, so that S3
itself compares what it stored with what was read here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeAlias, cast

from kumo_crt._config import MAX_PARTS, MIB
from kumo_crt._engine import (
    NO_ROOM,
    Blocking,
    Cancelled,
    First,
    Gather,
    Meter,
    Reservation,
    Reserve,
    Task,
    Throttle,
)
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
    S3Error,
)
from kumo_crt.s3._answers import (
    ATTEMPT,
    Headers,
    decode_crc32c,
    encode_crc32c,
    parse_xml,
    raise_for,
    text_of,
)
from kumo_crt.s3._body import MemorySource, Source, conditions, read_up_to
from kumo_crt.s3._context import Context
from kumo_crt.s3._objects import SSE, SSE_KEY, head_task
from kumo_crt.s3._results import PutResult
from kumo_crt.s3._resume import Begun, Part, combined, resume_task, whole_crc32c_task
from kumo_crt.s3._xml import escape

MAX_SINGLE_PUT = 5 * 1000**3
MAX_OBJECT = 48_800_000_000_000
# What makes up the parts of an upload: bodies (see `Call`) with the room in memory that they take.
Pieces: TypeAlias = Generator[tuple[object, Reservation] | First, Any, None]
# How often an upload begins again after 409 ConditionalRequestConflict, as S3 asks for.
_CONFLICT_ATTEMPTS = 3
# What a service may answer to an upload whose parts are not what they seemed to be.
_NOT_RESUMABLE = (
    "InvalidPart",
    "InvalidPartOrder",
    "BadDigest",
    "InvalidRequest",
    "EntityTooSmall",
)


@dataclass(frozen=True)
class PutOptions:
    """What goes with an object; headers by their S3 names, without preconditions.

    ``meter`` and ``throttle`` are shared with other transfers; ``progress`` is this one's own. A
    multipart upload whose CRC32C is not ``expected_crc32c`` is aborted instead of completed.
    ``resume``, if not None, says that the key stands for the content, whoever writes it; with ids
    of uploads that were begun and may be gone on with.
    """

    checksum: bool
    headers: Mapping[str, str]
    if_match: str | None
    if_none_match: str | None
    expected_crc32c: int | None = None
    progress: Callable[[int, int], object] | None = None
    meter: Meter | None = None
    throttle: Throttle | None = None
    resume: Sequence[str] | None = None


def put_task(
    ctx: Context, bucket: str, key: str, source: Source, options: PutOptions
) -> Task[PutResult]:
    """Uploads a body of known size."""
    if source.size > MAX_OBJECT:
        raise ValueError(f"the body has {source.size} bytes, more than an S3 object can have")
    meter = Meter(options.progress, source.size, options.meter)
    for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
        try:
            if source.size <= min(ctx.settings.multipart_threshold, MAX_SINGLE_PUT):
                result = yield from _single(ctx, bucket, key, source, options, meter)
            else:
                result = yield from _multipart(ctx, bucket, key, source, options, meter)
        except S3Error as error:
            if error.code != "ConditionalRequestConflict" or attempt == _CONFLICT_ATTEMPTS:
                raise
            meter.add(-meter.done)
        else:
            meter.flush()
            return result
    raise AssertionError("unreachable")


def _single(
    ctx: Context, bucket: str, key: str, source: Source, options: PutOptions, meter: Meter
) -> Task[PutResult]:
    what = f"putting s3://{bucket}/{key}"
    headers = {**options.headers, **conditions(options.if_match, options.if_none_match)}
    attempt = os.urandom(16).hex() if options.if_none_match is not None else None
    if attempt is not None:
        headers["x-amz-meta-" + ATTEMPT] = attempt
    if options.throttle is not None:
        yield from options.throttle.take(source.size)
    response = yield from ctx.request(
        "PutObject",
        "PUT",
        bucket,
        key,
        headers=headers,
        body=source.part(0, source.size),
        send_crc32c=options.checksum,
    )
    crc = response.crc32c_sent if options.checksum else None
    try:
        raise_for(response, what, ctx.endpoint(bucket))
    except PreconditionFailedError:
        ours = yield from _already_ours(ctx, bucket, key, source.size, crc, attempt)
        if ours is None:
            raise
        return ours
    answer = Headers(response.headers)
    _confirm(answer.get("x-amz-checksum-crc32c"), crc, what)
    meter.add(source.size)
    return _result(answer, answer.etag, crc, source.size)


def _result(answer: Headers, etag: str, crc: int | None, size: int, parts: int = 0) -> PutResult:
    return PutResult(
        etag,
        answer.get("x-amz-version-id"),
        crc,
        size,
        parts,
        answer.time("date"),
        answer.get(SSE),
        answer.get(SSE_KEY),
    )


def _confirm(stored: str | None, crc: int | None, what: str) -> None:
    """Compares what the service says it stored with what was sent."""
    value = decode_crc32c(stored)
    if crc is not None and value is not None and value != crc:
        raise ChecksumMismatchError(
            f"{what}: sent CRC32C {crc:08x}, the service stored {value:08x}. The object may be "
            "damaged: put it again"
        )


def _already_ours(
    ctx: Context, bucket: str, key: str, size: int, crc: int | None, attempt: str | None
) -> Task[PutResult | None]:
    """Whether a refused write had in truth succeeded before, when its answer was lost."""
    if attempt is None and crc is None:
        return None
    try:
        found = yield from head_task(ctx, bucket, key)
    except NotFoundError:
        return None
    if attempt is not None and found.attempt != attempt:
        return None
    if found.size != size or (crc is not None and found.checksum_crc32c not in (crc, None)):
        return None
    if attempt is None and found.checksum_crc32c != crc:
        return None
    return PutResult(
        found.etag,
        found.version_id,
        crc,
        size,
        server_time=found.server_time,
        sse=found.sse,
        kms_key_id=found.kms_key_id,
    )


def part_size_for(size: int, wanted: int) -> int:
    """A part size that needs at most 10,000 parts, in whole MiB where it has to grow."""
    least = -(-size // MAX_PARTS)
    return wanted if wanted >= least else -(-least // MIB) * MIB


def _multipart(
    ctx: Context, bucket: str, key: str, source: Source, options: PutOptions, meter: Meter
) -> Task[PutResult]:
    if options.resume is None:
        return (yield from _in_parts(ctx, bucket, key, source, options, meter, None))
    begun: Begun | None = None
    if options.resume:
        wanted = part_size_for(source.size, ctx.settings.part_size)
        begun = yield from resume_task(ctx, bucket, key, source, options.resume, wanted)
    try:
        return (yield from _in_parts(ctx, bucket, key, source, options, meter, begun))
    except S3Error as error:
        if error.code != "NoSuchUpload" and (begun is None or error.code not in _NOT_RESUMABLE):
            raise
    # Somebody else has completed or aborted it, or the service does not accept what is there.
    meter.add(-meter.done)
    crc = yield from whole_crc32c_task(source)
    there = yield from _already_ours(ctx, bucket, key, source.size, crc, None)
    if there is not None:
        meter.add(source.size)
        return there
    return (yield from _in_parts(ctx, bucket, key, source, options, meter, None))


def _in_parts(
    ctx: Context,
    bucket: str,
    key: str,
    source: Source,
    options: PutOptions,
    meter: Meter,
    begun: Begun | None,
) -> Task[PutResult]:
    part_size = part_size_for(source.size, ctx.settings.part_size)
    if begun is not None:
        part_size = begun.part_size

    def pieces() -> Pieces:
        for offset in range(0, source.size, part_size):
            yield source.part(offset, min(part_size, source.size - offset)), NO_ROOM

    limit = ctx.settings.max_connections  # no part is held in memory
    return (yield from multipart_task(ctx, bucket, key, pieces(), options, meter, limit, begun))


def _stream_limit(ctx: Context, part_size: int) -> int:
    """Parts of a stream in flight at once: they share the memory limit."""
    return max(1, min(ctx.settings.max_connections, ctx.settings.memory_limit // part_size))


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
) -> Task[PutResult]:
    """Uploads pieces as the parts of one object; aborts the upload if anything fails.

    A piece comes with the room in memory that it takes, to be held until it is sent.
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
            answer = yield from ctx.request(
                "UploadPart",
                "PUT",
                bucket,
                key,
                query=[("partNumber", str(number)), ("uploadId", upload_id)],
                body=piece,
                send_crc32c=options.checksum,
            )
        raise_for(answer, f"{what}, part {number}", endpoint)
        found = Headers(answer.headers)
        if options.checksum:
            confirmed = found.get("x-amz-checksum-crc32c")
            _confirm(confirmed, answer.crc32c_sent, f"{what}, part {number}")
        meter.add(size)
        return Part(number, size, answer.crc32c_sent, found.etag)

    def kept(number: int) -> Task[Part]:
        meter.add(have[number].size)
        yield from ()
        return have[number]

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
        return (yield from _complete(ctx, bucket, key, upload_id, parts, options, attempt, what))
    except (Exception, Cancelled):
        yield from _abort(ctx, bucket, key, upload_id)
        raise


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
        root = parse_xml(memoryview(response.body), what)
    except (PreconditionFailedError, NotFoundError):
        # NoSuchUpload too may mean that an earlier try had succeeded.
        ours = yield from _already_ours(ctx, bucket, key, size, crc, attempt)
        if ours is None:
            raise
        return ours
    stored = text_of(root, "ChecksumCRC32C")
    if "-" not in stored:  # a composite one, from a service without FULL_OBJECT, is no CRC32C
        _confirm(stored, crc, what)
    etag = text_of(root, "ETag").strip('"')
    return _result(Headers(response.headers), etag, crc, size, len(parts))


def stream_task(
    ctx: Context, bucket: str, key: str, stream: BinaryIO, options: PutOptions
) -> Task[PutResult]:
    """Uploads what a file object gives until its end, without knowing how much that is."""
    meter = Meter(options.progress, 0, options.meter)
    part_size = ctx.settings.part_size
    threshold = min(ctx.settings.multipart_threshold, MAX_SINGLE_PUT)
    first, room = yield from _read(stream, threshold + 1)
    if len(first) <= threshold:
        meter.total = len(first)
        with room:
            result = yield from _single(ctx, bucket, key, MemorySource(first), options, meter)
        meter.flush()
        return result

    def pieces(rest: memoryview, room: Reservation) -> Pieces:
        for count in range(MAX_PARTS):
            # Later parts grow, so that a stream of any length fits into 10,000 of them.
            size = part_size * (1 << min(count // 2000, 4))
            piece: memoryview | bytes = rest[:size]
            rest = rest[size:]
            if len(piece) < size:
                room.close()  # what waits for room must not hold any
                more, room = yield First(_read(stream, size - len(piece)))
                piece = b"".join((piece, more)) if piece else more
            if not piece:
                return
            yield piece, room.split(len(piece))
            if len(piece) < size:
                return
        room.close()
        more, _ = yield First(_read(stream, 1))
        if more:
            raise KumoError(
                f"putting s3://{bucket}/{key}: the stream is longer than 10,000 parts of "
                f"{part_size} bytes and more can hold: raise part_size"
            )

    found = pieces(memoryview(first), room)
    del first, room
    limit = _stream_limit(ctx, part_size)
    result = yield from multipart_task(ctx, bucket, key, found, options, meter, limit)
    meter.flush()
    return result


def _read(stream: BinaryIO, size: int) -> Task[tuple[bytes, Reservation]]:
    """Reads from a file object, and holds the room that this takes."""
    room: Reservation = yield Reserve(size)
    try:
        return (yield Blocking(partial(read_up_to, stream, size))), room
    except BaseException:
        room.close()
        raise
