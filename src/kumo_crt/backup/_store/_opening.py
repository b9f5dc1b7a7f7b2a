"""Reads sealed files: a few hundred chunks with one request, opened in memory."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed, SnapshotFile

_CHUNK = _core.SEALED_CHUNK + _core.SEALED_TAG
# Chunks that are read with one request: 8 MiB of a content.
_CHUNKS = 128
PIECES_AT_ONCE = 4


class Piece(NamedTuple):
    """A part of a sealed file: what is stored, and what came of it.

    Attributes:
        size: Bytes that are stored.
        crc32c: CRC32C of them.
        plain_size: Bytes of the content.
        plain_crc32c: CRC32C of them.
        problem: Why it could not be opened.
    """

    size: int
    crc32c: int
    plain_size: int = 0
    plain_crc32c: int = 0
    problem: str | None = None


def spans(sealed_size: int) -> list[tuple[int, int]]:
    """Where the pieces of a sealed file begin and end; the first one has the header, too."""
    step = _CHUNKS * _CHUNK
    edges = [0, *range(_core.SEALED_HEADER + step, sealed_size, step), sealed_size]
    return list(pairwise(edges))


def plain_offset(start: int) -> int:
    """Where in the content a piece begins."""
    return max(0, start - _core.SEALED_HEADER) // _CHUNK * _core.SEALED_CHUNK


def open_piece(
    key: Key, sealed: Sealed, content: memoryview, start: int
) -> tuple[Piece, memoryview]:
    """Opens a piece where it is; also gives the plaintext."""
    size, crc = len(content), _core.crc32c(content)
    header = _core.SEALED_HEADER
    try:
        if start == 0:
            _sealing.check_header(key, content, sealed.salt)
        chunks = content[max(0, header - start) :]
        first = (max(start, header) - header) // _CHUNK
        final = start + size == sealed.size
        plain = chunks[: key._native.open(chunks, sealed.salt, first, final)]
    except _core.SealError as error:
        return Piece(size, crc, problem=str(error)), content[:0]
    return Piece(size, crc, len(plain), _core.crc32c(plain)), plain


def judge(file: SnapshotFile, key: Key | None, pieces: list[Piece]) -> str | None:
    """What is wrong with the pieces of a file, if anything is.

    Without a key, or of a file that is not sealed, it is what is stored that is judged.
    """
    stored = plain = 0
    for piece in pieces:
        stored = _core.crc32c_combine(stored, piece.crc32c, piece.size)
        plain = _core.crc32c_combine(plain, piece.plain_crc32c, piece.plain_size)
    if stored != file.stored_crc32c:
        return (
            f"the content has CRC32C {stored:08x}, the manifest says {file.stored_crc32c:08x}. It "
            "was damaged in the store"
        )
    if file.sealed is None or key is None:
        return None
    problem = next((piece.problem for piece in pieces if piece.problem is not None), None)
    if problem is not None:
        return f"it has the CRC32C that the manifest says, but {problem}"
    if plain != file.crc32c:
        return (
            f"opened, it has CRC32C {plain:08x}, the manifest says {file.crc32c:08x}: it was "
            "damaged before it was sealed"
        )
    return None
