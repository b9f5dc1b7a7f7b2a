"""Goes on with multipart uploads that were begun and never finished.

What the service has of them is compared with the file part by part: only what is the same is left
out when the rest is sent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from kumo_crt import _core
from kumo_crt._config import MAX_PARTS, MIB, MIN_PART_SIZE
from kumo_crt._engine import Blocking, Sleep, Task
from kumo_crt.exceptions import NotFoundError, S3Error
from kumo_crt.s3._answers import decode_crc32c, parse_xml, raise_for, text_of
from kumo_crt.s3._body import ProducedSource, Source, prepare_task
from kumo_crt.s3._context import Context
from kumo_crt.s3._listings import abort_upload_task
from kumo_crt.s3._multipart import Begun, Part

_BLOCK = 1 * MIB
_MD5_DIGITS = 32
# So much is read until others get their turn.
_STEP = 64 * MIB
_log = logging.getLogger("kumo_crt.s3")


class _Listed(NamedTuple):
    number: int
    size: int
    etag: str
    checksum: int | None


class _Upload(NamedTuple):
    id: str
    full_object: bool
    parts: tuple[_Listed, ...]


def resume_task(
    ctx: Context, bucket: str, key: str, source: Source, upload_ids: Iterable[str], part_size: int
) -> Task[Begun | None]:
    """Chooses the upload that has most of the body; the others are aborted.

    Args:
        ctx: The client's context.
        bucket: Bucket.
        key: Key.
        source: The body.
        upload_ids: Unfinished uploads of this key, that nobody else works on.
        part_size: The one to use where an upload has none yet.

    Returns:
        The upload; None if none of them fits.
    """
    fitting: list[tuple[int, int, _Upload]] = []
    for upload_id in upload_ids:
        upload = yield from _list_parts(ctx, bucket, key, upload_id)
        if upload is None:
            continue  # completed or aborted since it was listed
        size = _part_size(upload.parts, source.size, part_size) if upload.full_object else None
        if size is None:
            _log.info("s3://%s/%s: an unfinished upload does not fit: aborted", bucket, key)
            yield from abort_upload_task(ctx, bucket, key, upload_id)
        else:
            fitting.append((sum(part.size for part in upload.parts), size, upload))
    if not fitting:
        return None
    fitting.sort(key=lambda item: item[0], reverse=True)
    for _, _, upload in fitting[1:]:
        yield from abort_upload_task(ctx, bucket, key, upload.id)
    _, size, upload = fitting[0]
    parts: dict[int, Part] = {}
    for listed in upload.parts:
        part = yield from _same(source, listed, (listed.number - 1) * size)
        if part is not None:
            parts[part.number] = part
        yield Sleep(0)  # reading a large body takes long, and others have to go on
    _log.info("s3://%s/%s: going on with an upload, %d parts are there", bucket, key, len(parts))
    return Begun(upload.id, size, parts)


def _part_size(parts: Sequence[_Listed], total: int, wanted: int) -> int | None:
    """The size of an upload's parts; None if they cannot be those of a body of this size."""
    size = max((part.size for part in parts), default=wanted)
    if parts and size < wanted and all(part.size == total % wanted for part in parts):
        size = wanted  # nothing but the last part is there
    if size < MIN_PART_SIZE or -(-total // size) > MAX_PARTS:
        return None
    for part in parts:
        offset = (part.number - 1) * size
        if not 0 <= offset < total or part.size != min(size, total - offset):
            return None
    return size


def _list_parts(ctx: Context, bucket: str, key: str, upload_id: str) -> Task[_Upload | None]:
    what = f"listing the parts of an upload to s3://{bucket}/{key}"
    parts: list[_Listed] = []
    marker = ""
    full_object = True
    while True:
        query = [("uploadId", upload_id)]
        if marker:
            query.insert(0, ("part-number-marker", marker))
        response = yield from ctx.request("ListParts", "GET", bucket, key, query=query)
        try:
            raise_for(response, what, ctx.endpoint(bucket))
        except NotFoundError:
            return None
        root = parse_xml(memoryview(response.body), what)
        full_object = text_of(root, "ChecksumType") in ("FULL_OBJECT", "")
        parts.extend(
            _Listed(
                number=int(text_of(item, "PartNumber")),
                size=int(text_of(item, "Size")),
                etag=text_of(item, "ETag").strip('"'),
                checksum=decode_crc32c(text_of(item, "ChecksumCRC32C")),
            )
            for item in root.iterfind("Part")
        )
        following = text_of(root, "NextPartNumberMarker")
        if text_of(root, "IsTruncated") != "true":
            return _Upload(upload_id, full_object, tuple(parts))
        if not following or following == marker:
            raise S3Error("MalformedResponse", 200, f"{what}: more parts, but no way to go on")
        marker = following


def _same(source: Source, listed: _Listed, offset: int) -> Task[Part | None]:
    """The part, if its bytes are the body's."""
    with_md5 = listed.checksum is None
    if with_md5 and len(listed.etag) != _MD5_DIGITS:
        return None  # the service tells nothing that could be compared
    yield from prepare_task(source, offset, listed.size)
    digests: tuple[int, str] = yield Blocking(
        lambda: _digests(source, offset, listed.size, with_md5)
    )
    crc, md5 = digests
    same = md5 == listed.etag if with_md5 else crc == listed.checksum
    return Part(listed.number, listed.size, crc, listed.etag) if same else None


def _digests(source: Source, offset: int, size: int, with_md5: bool) -> tuple[int, str]:
    """CRC32C and, on demand, MD5 of a part."""
    import hashlib  # loads OpenSSL, which little else needs

    md5 = hashlib.md5(usedforsecurity=False)
    update: Callable[[Any], object] = md5.update if with_md5 else lambda _: None
    crc = 0
    for block in _blocks(source, offset, size):
        update(block)
        crc = _core.crc32c(block, crc)
    return crc, md5.hexdigest()


def _blocks(source: Source, offset: int, size: int) -> Iterator[Any]:
    """A part of a body, little by little unless it is in memory."""
    if isinstance(source, ProducedSource):
        for start in range(offset, offset + size, _BLOCK):
            yield source.read(start, min(start + _BLOCK, offset + size))
        return
    body: Any = source.part(offset, size)
    if not isinstance(body, tuple):
        yield body
        return
    fd, position, rest = body
    while rest > 0 and (block := os.pread(fd, min(_BLOCK, rest), position)):
        yield block  # none where it has become shorter: sending it will say so
        position += len(block)
        rest -= len(block)


def whole_crc32c_task(source: Source) -> Task[int]:
    """CRC32C of a body."""
    crc = 0
    for start in range(0, source.size, _STEP):
        size = min(_STEP, source.size - start)
        yield from prepare_task(source, start, size)
        digests: tuple[int, str] = yield Blocking(partial(_digests, source, start, size, False))
        crc = _core.crc32c_combine(crc, digests[0], size)
        yield Sleep(0)
    return crc
