"""Compares content with the checksums that the service stores with it."""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from kumo_crt import _core
from kumo_crt._engine import Blocking, Task
from kumo_crt.exceptions import ChecksumMismatchError, S3Error
from kumo_crt.s3._answers import parse_xml, raise_for, text_of
from kumo_crt.s3._context import Context

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# In memory, or in a file that was just written and is in the page cache.
Content: TypeAlias = memoryview | int
_BLOCK = 1 << 20


def _crc(function: Callable[[object, int], int], width: int) -> Callable[[Iterable[object]], bytes]:
    def digest(blocks: Iterable[object]) -> bytes:
        value = 0
        for block in blocks:
            value = function(block, value)
        return value.to_bytes(width, "big")

    return digest


def _sha(name: str) -> Callable[[Iterable[memoryview]], bytes]:
    def digest(blocks: Iterable[memoryview]) -> bytes:
        import hashlib

        state = hashlib.new(name, usedforsecurity=False)
        for block in blocks:
            state.update(block)
        return state.digest()

    return digest


# From the cheapest: of an object that has several, one is enough.
_DIGESTS: Mapping[str, Callable[[Iterable[memoryview]], bytes]] = {
    "CRC32C": _crc(_core.crc32c, 4),
    "CRC64NVME": _crc(_core.crc64nvme, 8),
    "CRC32": _crc(_core.crc32, 4),
    "SHA256": _sha("sha256"),
    "SHA1": _sha("sha1"),
}


def _blocks(content: Content, start: int, size: int) -> Iterator[memoryview]:
    if isinstance(content, memoryview):
        yield content[start : start + size]
        return
    end = start + size
    while start < end:
        block = os.pread(content, min(_BLOCK, end - start), start)
        if not block:
            return
        yield memoryview(block)
        start += len(block)


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return b""


def compare(name: str, stored: bytes, found: bytes, what: str) -> None:
    """Raises if a checksum is not the stored one.

    Raises:
        ChecksumMismatchError: It is not.
    """
    if stored != found:
        raise ChecksumMismatchError(
            f"{what}: the content has {name} {found.hex()}, stored is {stored.hex()}. It was "
            "damaged on the way or in the store; nothing was kept"
        )


def full_task(
    checksums: Mapping[str, str], content: Content, size: int, what: str
) -> Task[str | None]:
    """Compares content with a stored checksum of the whole, other than the CRC32C.

    Returns:
        Which one it was; None if there is none.
    """
    for name, digest in _DIGESTS.items():
        stored = _decoded(checksums.get(name, "")) if name != "CRC32C" else b""
        if stored:
            found = yield Blocking(partial(digest, _blocks(content, 0, size)))
            compare(name, stored, found, what)
            return name
    return None


def composite_task(
    ctx: Context,
    bucket: str,
    key: str,
    version_id: str | None,
    checksums: Mapping[str, str],
    content: Content,
    size: int,
    what: str,
) -> Task[str | None]:
    """Compares content with a checksum of the checksums of the parts that it was uploaded in.

    Where the parts begin and end has to be asked for. That needs a permission of its own, and not
    every service knows it: without it nothing can be compared.

    Returns:
        Which one it was; None if there is none, or if nothing could be compared.
    """
    for name, digest in _DIGESTS.items():
        text, _, count = checksums.get(name, "").partition("-")
        stored = _decoded(text)
        if not stored or not count.isascii() or not count.isdigit():
            continue
        sizes = yield from _part_sizes_task(ctx, bucket, key, version_id)
        if len(sizes) != int(count) or sum(sizes) != size:
            return None
        found = yield Blocking(partial(_composite, digest, content, sizes))
        compare(f"composite {name}", stored, found, what)
        return name
    return None


def _composite(
    digest: Callable[[Iterable[memoryview]], bytes], content: Content, sizes: list[int]
) -> bytes:
    digests = []
    start = 0
    for size in sizes:
        digests.append(digest(_blocks(content, start, size)))
        start += size
    return digest([memoryview(b"".join(digests))])


def _part_sizes_task(
    ctx: Context, bucket: str, key: str, version_id: str | None
) -> Task[list[int]]:
    what = f"asking for the parts of s3://{bucket}/{key}"
    sizes: dict[int, int] = {}
    marker = 0
    while True:
        response = yield from ctx.request(
            "GetObjectAttributes",
            "GET",
            bucket,
            key,
            query=[("attributes", "")] + ([("versionId", version_id)] if version_id else []),
            headers={
                "x-amz-object-attributes": "ObjectParts",
                "x-amz-part-number-marker": str(marker),
            },
        )
        try:
            raise_for(response, what, ctx.endpoint(bucket))
            root = parse_xml(memoryview(response.body), what)
        except S3Error:
            return []
        sizes.update(_numbered(root.iter("Part")))
        following = text_of(root, "ObjectParts/NextPartNumberMarker")
        if text_of(root, "ObjectParts/IsTruncated") != "true":
            return [size for _, size in sorted(sizes.items())]
        if not following.isdigit() or int(following) <= marker:
            return []
        marker = int(following)


def _numbered(parts: Iterable[Element]) -> Iterator[tuple[int, int]]:
    for part in parts:
        number, size = text_of(part, "PartNumber"), text_of(part, "Size")
        if number.isdigit() and size.isdigit():
            yield int(number), int(size)
