"""Uploads: one request for a small body, a multipart upload for a large one.

Every part is sent with its CRC32C in a header, taken while the part is read; the CRC32C of the
whole object is their combination, sent with the completion as a FULL_OBJECT checksum, so that S3
itself compares what it stored with what was read here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

from kumo_crt._config import MAX_PARTS
from kumo_crt._engine import (
    NO_ROOM,
    Blocking,
    First,
    Meter,
    Reservation,
    Reserve,
    Task,
)
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    KumoError,
    PreconditionFailedError,
    S3Error,
)
from kumo_crt.s3._answers import (
    ATTEMPT,
    Headers,
    check_origin,
    raise_for,
)
from kumo_crt.s3._body import (
    FileSource,
    LentSource,
    MemorySource,
    ProducedSource,
    Source,
    conditions,
    read_up_to,
    regular_file,
    take_task,
)
from kumo_crt.s3._context import Context
from kumo_crt.s3._multipart import Begun, Part, Pieces, multipart_task, part_size_for
from kumo_crt.s3._putting import PutOptions, PutResult, already_ours, confirm, result_of
from kumo_crt.s3._trailers import confirmed

MAX_SINGLE_PUT = 5 * 1000**3
MAX_OBJECT = 48_800_000_000_000
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


def put_body(
    ctx: Context,
    bucket: str,
    key: str,
    body: object,
    *,
    checksum: bool,
    headers: dict[str, str],
    if_match: str | None,
    if_none_match: str | None,
    progress: Callable[[int, int], object] | None,
) -> Task[PutResult]:
    """Sends whatever `S3Client.put_object` takes: a path, a file object, a buffer."""
    options = PutOptions(
        checksum=checksum,
        headers=headers,
        if_match=if_match,
        if_none_match=if_none_match,
        progress=progress,
    )
    if isinstance(body, str | os.PathLike):
        return _put_path(ctx, bucket, key, body, options)
    if hasattr(body, "read"):
        return _put_file(ctx, bucket, key, cast("BinaryIO", body), options)
    return put_task(ctx, bucket, key, MemorySource(body), options)


def _put_path(
    ctx: Context,
    bucket: str,
    key: str,
    path: str | os.PathLike[str],
    options: PutOptions,
) -> Task[PutResult]:
    with open(path, "rb", buffering=0) as file:
        return (yield from _put_file(ctx, bucket, key, cast("BinaryIO", file), options))


def _put_file(
    ctx: Context, bucket: str, key: str, file: BinaryIO, options: PutOptions
) -> Task[PutResult]:
    opened = regular_file(file)
    if opened is None:
        return (yield from stream_task(ctx, bucket, key, file, options))
    source = FileSource(*opened)
    result = yield from put_task(ctx, bucket, key, source, options)
    file.seek(opened[1] + source.size)
    return result


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
    trailing = (
        options.checksum
        and ctx.trailers.for_object(source.size)
        and "Content-Encoding" not in headers
    )
    body, room = yield from take_task(source, 0, source.size)
    with room:
        response = yield from ctx.request(
            "PutObject",
            "PUT",
            bucket,
            key,
            headers=headers,
            body=body,
            send_crc32c=options.checksum,
            crc32c_trailing=trailing,
        )
    crc = response.crc32c_sent if options.checksum else None
    try:
        raise_for(response, what, ctx.endpoint(bucket))
    except PreconditionFailedError:
        if trailing:  # refused, maybe before all was sent
            from kumo_crt.s3._resume import whole_crc32c_task  # rarely needed

            crc = yield from whole_crc32c_task(source)
        ours = yield from already_ours(ctx, bucket, key, source.size, crc, attempt)
        if ours is None:
            raise
        return ours
    answer = Headers(response.headers)
    check_origin(answer, response.status, what)
    told = confirm(answer.get("x-amz-checksum-crc32c"), crc, what)
    if trailing and not confirmed(response):
        ctx.trailers.refused()
        raise ChecksumMismatchError(
            f"{what}: the service does not confirm the CRC32C, as it did before: it may have "
            "stored something else, so put it again"
        )
    meter.add(source.size)
    return result_of(answer, answer.etag, crc, source.size, told)


def _multipart(
    ctx: Context, bucket: str, key: str, source: Source, options: PutOptions, meter: Meter
) -> Task[PutResult]:
    if options.resume is None:
        return (yield from _in_parts(ctx, bucket, key, source, options, meter, None))
    from kumo_crt.s3._resume import resume_task, whole_crc32c_task  # by those who may resume

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
    there = yield from already_ours(ctx, bucket, key, source.size, crc, None)
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

    def lent(source: LentSource) -> Pieces:
        for offset in range(0, source.size, part_size):
            yield source.part(offset, min(part_size, source.size - offset)), NO_ROOM

    def produced(source: ProducedSource) -> Pieces:
        for number, offset in enumerate(range(0, source.size, part_size), 1):
            if begun is not None and number in begun.parts:
                yield b"", NO_ROOM  # the service has it: it is not made again
            else:
                size = min(part_size, source.size - offset)
                yield (yield First(take_task(source, offset, size)))

    if not isinstance(source, ProducedSource):
        limit = ctx.settings.max_connections  # no part is held in memory
        pieces = lent(source)
        return (yield from multipart_task(ctx, bucket, key, pieces, options, meter, limit, begun))

    def sent(part: Part) -> None:
        if source.sent is not None:
            start = (part.number - 1) * part_size
            source.sent(start, start + part.size)

    limit = _stream_limit(ctx, part_size)
    pieces = produced(source)
    return (yield from multipart_task(ctx, bucket, key, pieces, options, meter, limit, begun, sent))


def _stream_limit(ctx: Context, part_size: int) -> int:
    """Parts of a stream in flight at once: they share the memory limit."""
    return max(1, min(ctx.settings.max_connections, ctx.settings.memory_limit // part_size))


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
