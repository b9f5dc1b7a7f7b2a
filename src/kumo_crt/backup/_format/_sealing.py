"""What encrypted repositories do with their key; see docs/format.md, "Encryption"."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt._engine import Blocking, Task
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed
from kumo_crt.exceptions import IntegrityError
from kumo_crt.s3._body import ProducedSource

ALGORITHM = "AES-256-GCM-STREAM-1"
_SEAL = b',"seal":"'
_END = b'"'
_DIGITS = 64
# An interrupt is noticed, and others go on, after as much.
_SLICE = 16 << 20


def key_check(key: Key, repository_id: str) -> str:
    """What a repository's configuration has, to tell its key."""
    return key._native.mac("kumo-crt 1 check", repository_id.encode())[:16].hex()


def name_of(key: Key | None, digest: str) -> str:
    """What a name has for the SHA-256 of a content."""
    return digest if key is None else key._native.mac("kumo-crt 1 name", digest.encode()).hex()


def masked(key: Key, salt: bytes, crc: int) -> int:
    """What a manifest has for the CRC32C of a content; and the reverse."""
    return crc ^ int.from_bytes(key._native.mac("kumo-crt 1 crc", salt)[:4], "big")


def masked_drill(key: Key | None, snapshot: str, family: str, crc: int) -> int:
    """What a ledger has for the CRC32C of a column family; and the reverse."""
    if key is None:
        return crc
    context = f"{snapshot} {family}".encode("utf-8", "surrogatepass")
    return crc ^ int.from_bytes(key._native.mac("kumo-crt 1 drill", context)[:4], "big")


def with_seal(key: Key, content: bytes) -> bytes:
    """A manifest's members, with the seal that nobody can make without the key."""
    return content + _SEAL + _document_mac(key, content) + _END


def has_seal(key: Key, members: memoryview) -> bool:
    """Whether a manifest's members were sealed with this key, and have not been changed."""
    import hmac  # loads OpenSSL, which little else needs

    length = len(_SEAL) + _DIGITS + len(_END)
    content, end = members[:-length], bytes(members[-length:])
    return hmac.compare_digest(end, _SEAL + _document_mac(key, content) + _END)


def _document_mac(key: Key, content: bytes | memoryview) -> bytes:
    return key._native.mac("kumo-crt 1 manifest", content).hex().encode()


def sealed_size(key: Key | None, size: int) -> int:
    """Bytes that are stored of a content."""
    return size if key is None else _core.sealed_size(size)


class Examined(NamedTuple):
    """What has to be known of a content before it is sealed.

    Attributes:
        size: Its bytes.
        crc32c: Its CRC32C.
        salt: Its salt.
    """

    size: int
    crc32c: int
    salt: bytes
    native: _core.Examination


def examine(key: Key, source: object, size: int, path: Path | None = None) -> Examined:
    """Reads a content: a buffer, or a file by its descriptor."""
    native = key._native.examine()
    with reading(path):
        for stop in stops(size):
            native.read(source, size, stop)
    return examined(native, size)


def examine_task(key: Key, descriptor: int, size: int, path: Path) -> Task[Examined]:
    """Reads a file, and lets others go on meanwhile."""
    native = key._native.examine()
    with reading(path):
        for stop in stops(size):
            yield Blocking(partial(native.read, descriptor, size, stop))
    return examined(native, size)


def stops(size: int) -> Iterator[int]:
    """Up to where a content is read at once."""
    yield from range(_SLICE, size, _SLICE)
    yield size


def examined(native: _core.Examination, size: int) -> Examined:
    """What was found out, once all of a content has been read."""
    salt, crc = native.finish()
    return Examined(size, crc, salt, native)


class reading:  # noqa: N801 - a context manager
    """Names the file in what goes wrong while it is read."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, _core.SealError):
            raise IntegrityError(
                f"{self._path}: changed while it was being read: {error}. Nothing of it was "
                "stored; run this again"
            ) from None
        if isinstance(error, OSError) and error.filename is None and self._path is not None:
            raise OSError(error.errno, error.strerror, str(self._path)) from None


def seal(
    key: Key, source: object, examined: Examined, start: int, stop: int, path: Path | None = None
) -> bytearray:
    """The bytes from ``start`` to ``stop`` of a content's sealed form.

    Raises:
        IntegrityError: The content is not what was examined any more.
    """
    into = bytearray(stop - start)
    seal_into(key, source, examined, start, into, path)
    return into


def seal_into(
    key: Key,
    source: object,
    examined: Examined,
    start: int,
    into: bytearray | memoryview,
    path: Path | None = None,
) -> None:
    """Fills a buffer with a content's sealed form, from ``start`` on.

    Raises:
        IntegrityError: The content is not what was examined any more.
    """
    with reading(path):
        key._native.seal(source, examined.size, examined.native, start, start + len(into), into)


def sealed_source(key: Key, descriptor: int, examined: Examined, path: Path) -> ProducedSource:
    """A file's sealed form, to be sent: made part by part."""
    return ProducedSource(
        _core.sealed_size(examined.size),
        lambda start, stop: seal(key, descriptor, examined, start, stop, path),
    )


def sealed_crc32c(key: Key, descriptor: int, examined: Examined, path: Path) -> int:
    """CRC32C of a file's sealed form."""
    crc = 0
    size = _core.sealed_size(examined.size)
    for start in range(0, size, _SLICE):
        block = seal(key, descriptor, examined, start, min(start + _SLICE, size), path)
        crc = _core.crc32c(block, crc)
    return crc


def seal_memory(key: Key, content: bytes | bytearray | memoryview) -> tuple[bytearray, Sealed, int]:
    """A content's sealed form, what manifests have of it, and the content's own CRC32C."""
    examined = examine(key, content, len(content))
    sealed = seal(key, content, examined, 0, _core.sealed_size(len(content)))
    return sealed, Sealed(len(sealed), _core.crc32c(sealed), examined.salt), examined.crc32c


def open_memory(key: Key, stored: bytearray | memoryview, salt: bytes) -> memoryview:
    """Opens a whole sealed form in a buffer, where it is.

    Raises:
        SealError: It was not sealed with this key, or has been changed.
    """
    view = memoryview(stored)
    check_header(key, view, salt)
    chunks = view[_core.SEALED_HEADER :]
    return chunks[: key._native.open(chunks, salt, 0, True)]


def check_header(key: Key, stored: memoryview, salt: bytes) -> None:
    """Compares the beginning of a sealed form with what it has to be.

    Raises:
        SealError: It is something else.
    """
    wanted = key._native.header(salt)
    found = bytes(stored[: _core.SEALED_HEADER])
    if found == wanted:
        return
    if found[:8] != wanted[:8]:
        raise _core.SealError("it does not begin as what kumo_crt has sealed")
    if found[8:16] != wanted[8:16]:
        raise _core.SealError(f"it was sealed with key {found[8:16].hex()}, this is key {key.id}")
    raise _core.SealError("it has another salt: it is another object")
