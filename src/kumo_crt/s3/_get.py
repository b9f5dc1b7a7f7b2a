"""Downloads, checked against the checksum that is stored with the object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from kumo_crt import _core
from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    KumoError,
    PreconditionFailedError,
    TransportError,
)
from kumo_crt.s3._answers import (
    SSE,
    SSE_KEY,
    Headers,
    check_origin,
    decode_crc32c,
    public_checksums,
    quoted,
    raise_for,
)
from kumo_crt.s3._context import Context
from kumo_crt.s3._paths import place_of, temporary_beside
from kumo_crt.s3._results import GetResult
from kumo_crt.s3._validate import compare, composite_task, full_task

# From so many bytes on, space is reserved before a file is written: ext4 then takes a third less
# CPU time to write it, and leaves it in one piece. XFS and btrfs take as long as without.
_RESERVED = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


class GetOptions(NamedTuple):
    """What is read, and what it has to be.

    Attributes:
        range: Half-open byte range; a stop of None means to the end.
        if_match: ETag the object must have.
        version_id: Version to read.
        expected_size: Size the object must have, where the caller knows it.
        expected_crc32c: CRC32C that what is read must have, where the caller knows it; saves asking
            for the stored one of the whole object.
        object_size: Size that the whole object must have of which a range is read, likewise.
        max_size: Bytes that the caller has room for.
        span: Bytes of one request for a long object; None: the client's part size.
        progress: Called with bytes done and total.
        meter: Counts the bytes of several downloads.
    """

    range: tuple[int, int | None] | None = None
    if_match: str | None = None
    version_id: str | None = None
    expected_size: int | None = None
    expected_crc32c: int | None = None
    object_size: int | None = None
    max_size: int | None = None
    span: int | None = None
    progress: Callable[[int, int], object] | None = None
    meter: Meter | None = None


class TooLargeError(KumoError):
    """An object has more bytes than `GetOptions.max_size`; it was not read."""

    def __init__(self, what: str, size: int) -> None:
        super().__init__(f"{what}: {size} bytes are more than expected")
        self.size = size


def get_task(
    ctx: Context, bucket: str, key: str, into: object, options: GetOptions
) -> Task[GetResult]:
    """Reads an object into fresh memory (None), a writable buffer, a path, or nowhere.

    ``into`` is None, ``"discard"`` wrapped in `Discard`, a writable buffer, or a `Path`.
    """
    if not isinstance(into, Path):
        return (yield from _receive(ctx, bucket, key, _sink_of(into), None, options))
    into = place_of(into)
    with temporary_beside(into) as (fd, temporary):
        try:
            result = yield from _receive(ctx, bucket, key, (fd, 0), fd, options)
        except KumoError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, KumoError):
                raise
            # It is this machine's disk that failed, not the service.
            cause.filename = str(into)
            failure = KumoError(f"{into}: {error}")
            raise failure from cause
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


def _range_header(wanted: tuple[int, int | None]) -> str:
    start, stop = wanted
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"range {wanted}: expected (start, stop) with 0 <= start < stop")
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


@dataclass(slots=True, eq=False, repr=False)
class _Download:
    """One download: where its bytes go, and what is known of the object."""

    ctx: Context
    bucket: str
    key: str
    what: str
    options: GetOptions
    meter: Meter
    sink: object  # for the first request; see `Call.sink`
    done: dict[int, int] = field(default_factory=dict)  # pieces that are whole: offset and size

    @property
    def span(self) -> int:
        """Bytes of one request."""
        return self.options.span or self.ctx.settings.part_size

    def ask(
        self, headers: dict[str, str], sink: object, expected: int, stop_after: int = 0
    ) -> Task[_core.Response]:
        """Sends a GetObject."""
        if expected >= _RESERVED and isinstance(sink, tuple):
            fd, offset = sink
            _core.reserve_space(fd, offset, expected)
        version = self.options.version_id
        return self.ctx.request(
            "GetObject",
            "GET",
            self.bucket,
            self.key,
            query=[("versionId", version)] if version else [],
            headers=headers,
            sink=sink,
            crc32c_of_response=True,
            stop_after=stop_after,
            meter=self.meter,
            expected=expected,
        )

    def valid(self) -> int:
        """Bytes from the start that are whole, of a download that failed."""
        end = 0
        while end in self.done:
            end += self.done[end]
        return end


@dataclass(slots=True, eq=False, repr=False)
class _Received:
    """What the first request brought: offsets are the wanted content's."""

    response: _core.Response
    answer: Headers
    start: int  # of the wanted content, in the object
    length: int  # of the wanted content
    target: object  # where pieces go: memory, descriptor, "discard"

    def sink_at(self, offset: int, size: int) -> object:
        if isinstance(self.target, memoryview):
            return self.target[offset : offset + size]
        return (self.target, offset) if isinstance(self.target, int) else self.target


def _receive(
    ctx: Context, bucket: str, key: str, sink: object, fd: int | None, options: GetOptions
) -> Task[GetResult]:
    what = f"getting s3://{bucket}/{key}"
    meter = Meter(options.progress, options.expected_size or 0, options.meter)
    download = _Download(ctx, bucket, key, what, options, meter, sink)
    try:
        first = yield from _first(download)
        crc = yield from _rest(download, first)
        body: memoryview | None = None
        content: memoryview | int | None = fd
        if sink is None:
            content = body = memoryview(first.response.body)
        elif isinstance(sink, memoryview):
            content = sink[: first.length]
        validated = None
        if options.range is None or options.expected_crc32c is not None:
            validated = yield from _validate(download, first, crc, content)
    except KumoError as error:
        if isinstance(sink, memoryview):
            damaged = isinstance(error, ChecksumMismatchError)
            error.valid_bytes = 0 if damaged else download.valid()
        raise
    meter.total = first.length
    meter.flush()
    answer = first.answer
    return GetResult(
        body=body,
        size=first.length,
        etag=answer.etag,
        version_id=answer.get("x-amz-version-id"),
        checksum_crc32c=crc,
        validated=validated,
        last_modified=answer.time("last-modified"),
        metadata=answer.metadata,
        content_type=answer.get("content-type"),
        server_time=answer.time("date"),
        storage_class=answer.get("x-amz-storage-class"),
        content_encoding=answer.content_encoding,
        sse=answer.get(SSE),
        kms_key_id=answer.get(SSE_KEY),
    )


def _first(download: _Download) -> Task[_Received]:
    """The first request: of a small object the only one.

    Where the size is not known before, it asks for everything and is cut when there turns out to be
    much: that needs no question beforehand, and brings the whole object's checksum along.
    """
    options = download.options
    span = download.span
    headers = {"x-amz-checksum-mode": "ENABLED"}
    if options.if_match is not None:
        headers["If-Match"] = quoted(options.if_match)
    start, stop = options.range if options.range is not None else (0, None)
    wanted = stop - start if stop is not None else None
    if options.range is None and options.expected_size is not None:
        wanted = options.expected_size
    ranged = options.range is not None
    if ranged:
        headers["Range"] = _range_header((start, stop))
    cut = span
    if wanted is not None and wanted >= 2 * span and download.sink is not None:
        headers["Range"] = f"bytes={start}-{start + span - 1}"
        ranged, cut = True, 0
    response = yield from download.ask(headers, download.sink, min(wanted or 0, span), cut)
    raise_for(response, download.what, download.ctx.endpoint(download.bucket))
    answer = Headers(response.headers)
    check_origin(answer, response.status, download.what)
    # Memory of a cut body has room for what was announced, not for what came.
    cut_of = (answer.number("content-length") or 0) if response.truncated else None
    arrived = response.received if cut_of is None else cut_of
    if ranged:
        total = _check_range(download, answer, start, arrived)
        if options.object_size not in (None, total):
            raise TransportError(
                f"{download.what}: the object has {total} bytes where {options.object_size} were "
                "expected; try again"
            )
        length = min(stop if options.range and stop is not None else total, total) - start
        # What came into memory of its own has room for that much only.
        short = download.sink is None and arrived < length
        if arrived > length or short:
            raise TransportError(
                f"{download.what}: {arrived} bytes came where {length} were asked for; try again"
            )
    else:
        if response.status != 200:  # a cache's 206, say: it would be taken for the whole
            raise TransportError(
                f"{download.what}: the service answered {response.status} where the whole object "
                "was asked for; try again, or another endpoint"
            )
        promised = answer.number("content-length")
        length = response.received if promised is None else promised
    if options.max_size is not None and length > options.max_size:
        raise TooLargeError(download.what, length)
    if options.expected_size is not None and length != options.expected_size:
        raise TransportError(
            f"{download.what}: {length} bytes arrived where {options.expected_size} were "
            "expected; try again"
        )
    target: object = download.sink
    if target is None:
        target = memoryview(response.body.writable()) if response.truncated else b""
    elif isinstance(target, tuple):
        target = target[0]
    download.done[0] = response.received
    return _Received(response, answer, start, length, target)


def _check_range(download: _Download, answer: Headers, start: int, received: int) -> int:
    """Checks that the range that came is the one asked for; returns the object's size."""
    said = _CONTENT_RANGE.fullmatch(answer.get("content-range") or "")
    if said is None:
        raise TransportError(
            f"{download.what}: the service did not say which range it sent "
            f"(Content-Range: {answer.get('content-range')!r}); try again, or another endpoint"
        )
    first, last, total = (int(number) for number in said.groups())
    sent = last + 1 - first
    if first != start or last >= total or received != sent:
        raise TransportError(
            f"{download.what}: {received} bytes came as range {first}-{last} of {total}, where one "
            f"from {start} was asked for; try again"
        )
    return total


def _rest(download: _Download, first: _Received) -> Task[int]:
    """Fetches what the first request left, in ranges beside each other; returns the CRC32C."""
    crc = first.response.crc32c_received
    received = first.response.received
    if received >= first.length:
        return crc
    spans = [
        (offset, min(download.span, first.length - offset))
        for offset in range(received, first.length, download.span)
    ]
    tasks = (_piece(download, first, offset, size) for offset, size in spans)
    found: list[int] = yield Gather(tasks, download.ctx.settings.max_connections)
    for piece, (_, size) in zip(found, spans, strict=True):
        crc = _core.crc32c_combine(crc, piece, size)
    return crc


def _piece(download: _Download, first: _Received, offset: int, size: int) -> Task[int]:
    start = first.start + offset
    headers = {"Range": f"bytes={start}-{start + size - 1}"}
    if first.answer.etag:
        headers["If-Match"] = f'"{first.answer.etag}"'
    response = yield from download.ask(headers, first.sink_at(offset, size), size)
    try:
        raise_for(response, download.what, download.ctx.endpoint(download.bucket))
    except PreconditionFailedError:
        raise _replaced(download.what) from None
    answer = Headers(response.headers)
    _check_range(download, answer, start, response.received)
    if answer.etag != first.answer.etag:  # of a service that ignores the condition
        raise _replaced(download.what)
    if response.received != size:
        raise TransportError(
            f"{download.what}: {response.received} bytes came where {size} were asked for; "
            "try again"
        )
    download.done[offset] = size
    crc: int = response.crc32c_received
    return crc


def _replaced(what: str) -> TransportError:
    return TransportError(f"{what}: the object was replaced while it was read; try again")


def _validate(
    download: _Download, first: _Received, crc: int, content: memoryview | int | None
) -> Task[str | None]:
    """Compares the content with the stored checksum of the whole object, if there is one."""
    what, answer, options = download.what, first.answer, download.options
    if options.expected_crc32c is not None:
        wanted = options.expected_crc32c.to_bytes(4, "big")
        compare("CRC32C", wanted, crc.to_bytes(4, "big"), what)
        return "CRC32C"
    # An answer to a request for everything shows the object's checksum. One to a range may show
    # that of a part: only a match proves anything, else ask.
    if decode_crc32c(answer.get("x-amz-checksum-crc32c")) == crc:
        return "CRC32C"
    checksums, kind = public_checksums(answer), answer.checksum_type
    version = options.version_id or answer.get("x-amz-version-id")
    version = version if version != "null" else None
    if first.response.status != 200:
        from kumo_crt.s3._head import head_task  # takes long to load

        found = yield from head_task(download.ctx, download.bucket, download.key, version)
        if found.etag != answer.etag or found.size != first.length:
            raise _replaced(what)
        checksums, kind = found.checksums, found.checksum_type
    stored = decode_crc32c(checksums.get("CRC32C"))
    if kind != "COMPOSITE" and stored is not None:
        compare("CRC32C", stored.to_bytes(4, "big"), crc.to_bytes(4, "big"), what)
        return "CRC32C"
    if not checksums or content is None:
        return None
    if kind != "COMPOSITE":
        return (yield from full_task(checksums, content, first.length, what))
    return (
        yield from composite_task(
            download.ctx,
            download.bucket,
            download.key,
            version,
            checksums,
            content,
            first.length,
            what,
        )
    )
