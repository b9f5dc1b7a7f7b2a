"""Downloads, checked against the checksum that is stored with the object."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kumo_crt import _core
from kumo_crt._engine import Meter, Task
from kumo_crt.exceptions import ChecksumMismatchError, TransportError
from kumo_crt.s3._answers import Headers, decode_crc32c, raise_for
from kumo_crt.s3._context import Context
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._results import GetResult, HeadResult

_BLOCK = 1 << 20


@dataclass(frozen=True)
class GetOptions:
    """What is read, and what it has to be.

    Attributes:
        range: Half-open byte range; a stop of None means to the end.
        if_match: ETag the object must have.
        version_id: Version to read.
        expected_size: Size the object must have, where the caller knows it.
        expected_crc32c: CRC32C the whole object must have, where the caller knows it; saves asking
            for the stored one.
        progress: Called with bytes done and total.
        meter: Counts the bytes of several downloads.
    """

    range: tuple[int, int | None] | None = None
    if_match: str | None = None
    version_id: str | None = None
    expected_size: int | None = None
    expected_crc32c: int | None = None
    progress: Callable[[int, int], object] | None = None
    meter: Meter | None = None


def get_task(
    ctx: Context, bucket: str, key: str, into: object, options: GetOptions
) -> Task[GetResult]:
    """Reads an object into fresh memory (None), a writable buffer, a path, or nowhere.

    ``into`` is None, ``"discard"`` wrapped in `Discard`, a writable buffer, or a `Path`.
    """
    if not isinstance(into, Path):
        return (yield from _receive(ctx, bucket, key, _sink_of(into), None, options))
    with temporary_beside(into) as (fd, temporary):
        result = yield from _receive(ctx, bucket, key, (fd, 0), fd, options)
        os.replace(temporary, into)
    return result


class Discard:
    """Says that the content is only to be checked."""


def _sink_of(into: object) -> object:
    if into is None:
        return None
    if isinstance(into, Discard):
        return "discard"
    view = memoryview(cast("bytearray", into))
    if view.readonly:
        raise ValueError("into: the buffer is read-only")
    if not view.c_contiguous:
        raise ValueError("into: the buffer is not C-contiguous")
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """A new file next to ``path``, closed at the end, and removed unless it was renamed."""
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.part")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield fd, temporary
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)


def _range_header(wanted: tuple[int, int | None]) -> str:
    start, stop = wanted
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"range {wanted}: expected (start, stop) with 0 <= start < stop")
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def _receive(
    ctx: Context, bucket: str, key: str, sink: object, fd: int | None, options: GetOptions
) -> Task[GetResult]:
    what = f"getting s3://{bucket}/{key}"
    headers = {"x-amz-checksum-mode": "ENABLED"}
    if options.range is not None:
        headers["Range"] = _range_header(options.range)
    if options.if_match is not None:
        headers["If-Match"] = f'"{options.if_match.strip(chr(34))}"'
    meter = Meter(options.progress, options.expected_size or 0, options.meter)
    for split in (True, False):
        response = yield from ctx.request(
            "GetObject",
            "GET",
            bucket,
            key,
            query=[("versionId", options.version_id)] if options.version_id else [],
            headers=headers,
            sink=sink,
            crc32c_of_response=True,
            split_ranges=split,
            meter=meter,
        )
        # Some services refuse any range of an empty object: then ask for it whole.
        if response.status != 416 or options.range is not None:
            break
    raise_for(response, what, ctx.endpoint(bucket))
    answer = Headers(response.headers)
    received = response.received
    promised = answer.number("content-length")
    for size, source in ((promised, "announced"), (options.expected_size, "expected")):
        if size is not None and size != received:
            raise TransportError(
                f"{what}: {received} bytes arrived where {size} were {source}; try again"
            )
    if sink is None:
        body: memoryview | None = memoryview(response.body)
        content: memoryview | int | None = body
    else:
        body = None
        content = sink[:received] if isinstance(sink, memoryview) else fd
    validated = None
    if options.range is None:
        validated = yield from _validate(
            ctx, bucket, key, options, answer, received, response.crc32c_received, content, what
        )
    meter.total = received
    meter.flush()
    return GetResult(
        body=body,
        size=received,
        etag=answer.etag,
        version_id=answer.get("x-amz-version-id"),
        checksum_crc32c=response.crc32c_received,
        validated=validated,
        last_modified=answer.time("last-modified"),
        metadata=answer.metadata,
        content_type=answer.get("content-type"),
        server_time=answer.time("date"),
    )


def _validate(
    ctx: Context,
    bucket: str,
    key: str,
    options: GetOptions,
    answer: Headers,
    received: int,
    crc: int,
    content: memoryview | int | None,
    what: str,
) -> Task[str | None]:
    """Compares the content with the stored checksum of the whole object, if there is one."""
    if options.expected_crc32c is not None:
        _compare("CRC32C", options.expected_crc32c, crc, what)
        return "CRC32C"
    # With the answer of a single request its checksum is the object's. An answer in several
    # ranges may have shown that of one part: only a match proves anything, else ask.
    if decode_crc32c(answer.get("x-amz-checksum-crc32c")) == crc:
        return "CRC32C"
    version = options.version_id or answer.get("x-amz-version-id")
    found: HeadResult = yield from head_task(
        ctx, bucket, key, version if version and version != "null" else None
    )
    if found.etag != answer.etag or found.size != received:
        raise TransportError(f"{what}: the object was replaced while it was read; try again")
    if found.checksum_type == "COMPOSITE":
        return None
    if found.checksum_crc32c is not None:
        _compare("CRC32C", found.checksum_crc32c, crc, what)
        return "CRC32C"
    for name, function, width in (
        ("CRC64NVME", _core.crc64nvme, 8),
        ("CRC32", _core.crc32, 4),
    ):
        stored = found.checksums.get(name)
        if stored is not None and content is not None:
            _compare(name, _number(stored), _checksum(function, content, received), what, width)
            return name
    return None


def _number(base64_text: str) -> int:
    return int.from_bytes(base64.b64decode(base64_text), "big")


def _checksum(function: Callable[[object, int], int], content: memoryview | int, size: int) -> int:
    """A checksum over memory, or over a file that was just written (and is in the page cache)."""
    if isinstance(content, memoryview):
        return function(content, 0)
    value = offset = 0
    while offset < size:
        block = os.pread(content, _BLOCK, offset)
        if not block:
            break
        value = function(block, value)
        offset += len(block)
    return value


def _compare(name: str, stored: int, found: int, what: str, width: int = 4) -> None:
    if stored != found:
        raise ChecksumMismatchError(
            f"{what}: the content has {name} {found:0{2 * width}x}, stored is "
            f"{stored:0{2 * width}x}. It was damaged on the way or in the store; nothing was kept"
        )
