"""Bodies to upload, and the headers that go with them."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import quote

from kumo_crt._config import MIB

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Source(Protocol):
    """A body of known size, of which any part can be sent, also again."""

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
        ValueError: It has control characters or is not ASCII.
    """
    if not value.isascii() or not all(c.isprintable() for c in value):
        raise ValueError(f"{name}: {value!r} is not printable ASCII, as S3 headers need")
    return value


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """The headers of user metadata.

    Raises:
        ValueError: A name cannot be part of a header's.
    """
    for name in metadata:
        if not _TOKEN.fullmatch(name):
            raise ValueError(
                f"metadata name {name!r}: letters, digits and - . _ only, as it becomes a header"
            )
    return {f"x-amz-meta-{name}": value for name, value in metadata.items()}


_OBJECT_HEADERS = {
    "content_type": "Content-Type",
    "storage_class": "x-amz-storage-class",
    "tagging": "x-amz-tagging",
    "sse": "x-amz-server-side-encryption",
    "kms_key_id": "x-amz-server-side-encryption-aws-kms-key-id",
}


def object_headers(metadata: Mapping[str, str] | None, **properties: str | None) -> dict[str, str]:
    """The headers that tell what goes with an object.

    Raises:
        ValueError: A name or a value cannot be part of a header.
    """
    headers = metadata_headers(metadata) if metadata else {}
    for name, value in properties.items():
        if value is not None:
            headers[_OBJECT_HEADERS[name]] = value
    for name, value in headers.items():
        header_value(name, value)
    return headers


def tagging(tags: Mapping[str, str]) -> str:
    """The x-amz-tagging form of tags."""
    return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in tags.items())
