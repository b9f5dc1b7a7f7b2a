"""Bodies to upload, and the headers that go with them."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, Protocol, TypeAlias, cast
from urllib.parse import quote

from kumo_crt._config import MIB
from kumo_crt._engine import NO_ROOM, Blocking, Reservation, Reserve, Sleep, Task
from kumo_crt.s3._answers import quoted

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class LentSource(Protocol):
    """A body of known size, of which any part can be sent from where it is, also again."""

    size: int

    def part(self, offset: int, size: int) -> object:
        """What `Call.body` takes for these bytes."""


class MemorySource:
    """Memory of the caller's, sent from where it is."""

    def __init__(self, data: object) -> None:
        view = memoryview(cast("bytes", data))
        if not view.c_contiguous:
            raise ValueError("body: the buffer is not C-contiguous; pass a contiguous copy")
        self._view = view.cast("B") if view.format != "B" or view.ndim != 1 else view
        self.size = self._view.nbytes

    def part(self, offset: int, size: int) -> object:
        """A slice of the memory; no copy."""
        return self._view[offset : offset + size]


class FileSource:
    """A regular file, read by the native engine."""

    def __init__(self, fd: int, start: int = 0) -> None:
        self._fd = fd
        self._start = start
        self.size = max(0, os.fstat(fd).st_size - start)

    def part(self, offset: int, size: int) -> object:
        """Descriptor, offset and length; nothing is read for an empty part."""
        return (self._fd, self._start + offset, size) if size else b""


class ProducedSource:
    """A body of known size whose parts are made when their turn has come, and held until sent.

    Args:
        size: Bytes.
        read: Makes the bytes from a start to a stop: the same ones whenever it is asked. It may
            block, and is never asked for two parts at once.
        sent: Told, by start and stop, of what the service has of an upload in parts. It may be
            asked for that once more, if the upload has to begin again.
        prepare: What to do, in small steps, before a part is made that takes long; without that
            making it does it.
    """

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], object],
        sent: Callable[[int, int], object] | None = None,
        prepare: Callable[[int, int], Iterable[Callable[[], object]]] | None = None,
    ) -> None:
        self.size = size
        self.read = read
        self.sent = sent
        self.prepare = prepare


Source: TypeAlias = LentSource | ProducedSource


def take_task(source: Source, offset: int, size: int) -> Task[tuple[object, Reservation]]:
    """A part, as `Call.body` takes it, and the room in memory that it has until it is sent."""
    if not isinstance(source, ProducedSource):
        return source.part(offset, size), NO_ROOM
    yield from prepare_task(source, offset, size)
    room: Reservation = yield Reserve(size)
    try:
        body: object = yield Blocking(partial(source.read, offset, offset + size))
        found = memoryview(cast("bytes", body)).nbytes
        if found != size:
            raise ValueError(f"a part of {size} bytes at {offset} was made with {found} bytes")
        return body, room
    except BaseException:
        room.close()
        raise


def prepare_task(source: Source, offset: int, size: int) -> Task[None]:
    """Does what has to be done before a part can be read soon."""
    if isinstance(source, ProducedSource) and source.prepare is not None:
        for step in source.prepare(offset, offset + size):
            yield Blocking(step)
            yield Sleep(0)  # others have to go on


def read_up_to(stream: BinaryIO, size: int) -> bytes:
    """Reads until there are ``size`` bytes, or no more."""
    chunks: list[bytes] = []
    while size > 0:
        chunk = stream.read(min(size, 8 * MIB))
        if chunk is None:
            raise ValueError("the file object is non-blocking and has no data: pass a blocking one")
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError("the file object gives text: open it in binary mode")
        if not chunk:
            break
        chunks.append(bytes(chunk))
        size -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def regular_file(stream: Any) -> tuple[int, int] | None:
    """Descriptor and position of a file object over a regular file, opened by `open`; else None.

    Only the standard binary classes qualify: others may give something else than the file holds.
    """
    if type(stream) not in (io.BufferedReader, io.FileIO, io.BufferedRandom):
        return None
    if not stream.readable():
        raise ValueError("the file object is not open for reading")
    if type(stream) is io.BufferedRandom:
        stream.flush()
    fd = stream.fileno()
    return (fd, stream.tell()) if stat.S_ISREG(os.fstat(fd).st_mode) else None


def header_value(name: str, value: str) -> str:
    """Refuses values that would break out of their header.

    Raises:
        TypeError: It is no text.
        ValueError: It has control characters or is not ASCII.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, not {type(value).__name__}")
    if not value.isascii() or not all(c.isprintable() for c in value):
        raise ValueError(f"{name}: {value!r} is not printable ASCII, as S3 headers need")
    return value


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """The headers of user metadata.

    Raises:
        TypeError: They are no texts by their names.
        ValueError: A name cannot be part of a header's.
    """
    _check_texts("metadata", metadata)
    for name in metadata:
        if not _TOKEN.fullmatch(name):
            raise ValueError(
                f"metadata name {name!r}: letters, digits and - . _ only, as it becomes a header"
            )
    return {f"x-amz-meta-{name}": value for name, value in metadata.items()}


def _check_texts(what: str, values: Mapping[str, str]) -> None:
    if not isinstance(values, Mapping) or not all(
        isinstance(text, str) for item in values.items() for text in item
    ):
        raise TypeError(f"{what}: expected names and values that are texts, not {values!r}")


def _same(value: str) -> str:
    return value


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"retain_until {value}: needs a time zone, such as datetime.UTC")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def tagging(tags: Mapping[str, str]) -> str:
    """The x-amz-tagging form of tags."""
    _check_texts("tags", tags)
    return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in tags.items())


# What goes with an object: the clients' arguments, S3's headers, and how one becomes the other.
_OBJECT_HEADERS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "content_type": ("Content-Type", _same),
    "cache_control": ("Cache-Control", _same),
    "content_disposition": ("Content-Disposition", _same),
    "content_encoding": ("Content-Encoding", _same),
    "content_language": ("Content-Language", _same),
    "storage_class": ("x-amz-storage-class", _same),
    "tags": ("x-amz-tagging", tagging),
    "sse": ("x-amz-server-side-encryption", _same),
    "kms_key_id": ("x-amz-server-side-encryption-aws-kms-key-id", _same),
    "legal_hold": ("x-amz-object-lock-legal-hold", lambda on: "ON" if on else "OFF"),
}


def object_headers(
    metadata: Mapping[str, str] | None,
    *,
    lock_mode: str | None = None,
    retain_until: datetime | None = None,
    **properties: object,
) -> dict[str, str]:
    """The headers of what goes with an object; what is None is left to the service.

    Raises:
        ValueError: A name or a value cannot be part of a header, or only one of two was given that
            belong together.
    """
    if (lock_mode is None) != (retain_until is None):
        raise ValueError("lock_mode and retain_until go together: give both or neither")
    headers = metadata_headers(metadata) if metadata else {}
    for name, value in properties.items():
        if value is not None:
            header, convert = _OBJECT_HEADERS[name]
            headers[header] = convert(value)
    if retain_until is not None and lock_mode is not None:
        headers["x-amz-object-lock-mode"] = lock_mode
        headers["x-amz-object-lock-retain-until-date"] = _time(retain_until)
    for name, value in headers.items():
        header_value(name, value)
    return headers


def conditions(if_match: str | None, if_none_match: str | None) -> dict[str, str]:
    """The headers of conditions on what is there."""
    headers = {}
    if if_none_match is not None:
        headers["If-None-Match"] = if_none_match
    if if_match is not None:
        headers["If-Match"] = quoted(if_match)
    return headers
