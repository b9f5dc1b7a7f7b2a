"""The native sealing against an independent implementation, and against hostile inputs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kumo_crt import _core
from tests.crypto import reference

KEY = bytes(range(32))
CHUNK = _core.SEALED_CHUNK
WHOLE = CHUNK + _core.SEALED_TAG
HEADER = _core.SEALED_HEADER
SIZES = (0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 77)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def examine(key: _core.SealingKey, content: bytes) -> tuple[_core.Examination, bytes, int]:
    examination = key.examine()
    examination.read(content, len(content), len(content))
    return examination, *examination.finish()


def seal(key: _core.SealingKey, content: bytes) -> tuple[bytes, bytes]:
    """Sealed form and salt."""
    examined, salt, _ = examine(key, content)
    into = bytearray(_core.sealed_size(len(content)))
    key.seal(content, len(content), examined, 0, len(into), into)
    return bytes(into), salt


def opened(key: _core.SealingKey, sealed: bytes, salt: bytes) -> bytes:
    """What a reader does: the header, then all chunks."""
    if sealed[:HEADER] != key.header(salt):
        raise _core.SealError("header")
    data = bytearray(sealed[HEADER:])
    return bytes(data[: key.open(data, salt, 0, True)])


@pytest.fixture
def key() -> _core.SealingKey:
    return _core.SealingKey(KEY)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_what_the_format_says(key: _core.SealingKey, size: int) -> None:
    content = content_of(size)
    _, salt, crc = examine(key, content)
    assert salt == reference.salt_of(KEY, content)
    assert crc == _core.crc32c(content)
    sealed, salt = seal(key, content)
    assert sealed == reference.sealed(KEY, content)
    assert len(sealed) == _core.sealed_size(size)
    assert opened(key, sealed, salt) == content == reference.opened(KEY, sealed)


def test_derived_values_are_what_the_format_says(key: _core.SealingKey) -> None:
    assert key.mac("kumo-crt 1 name", b"digits") == reference.mac(KEY, "kumo-crt 1 name", b"digits")
    assert key.header(b"s" * 16)[8:16] == reference.derived(KEY, "kumo-crt 1 id")[:8]
    assert key.material() == KEY


def _ranges(total: int) -> Iterator[tuple[int, int]]:
    yield 0, 0
    yield total, total
    for edge in (0, HEADER, HEADER + CHUNK, HEADER + WHOLE, HEADER + 2 * WHOLE, total):
        for other in (0, 5, HEADER, HEADER + 1, HEADER + WHOLE - 3, total - 1, total):
            yield min(edge, other), max(edge, other)


def test_any_part_can_be_made_by_itself(key: _core.SealingKey, tmp_path: Path) -> None:
    content = content_of(3 * CHUNK + 77)
    path = tmp_path / "content"
    path.write_bytes(content)
    examined, _, _ = examine(key, content)
    sealed, _ = seal(key, content)
    with open(path, "rb") as file:
        for start, stop in _ranges(len(sealed)):
            for source in (content, file.fileno()):
                into = bytearray(stop - start)
                key.seal(source, len(content), examined, start, stop, into)
                assert into == sealed[start:stop], (start, stop)


def test_a_file_is_examined_piece_by_piece(key: _core.SealingKey, tmp_path: Path) -> None:
    content = content_of(3 * CHUNK + 77)
    path = tmp_path / "content"
    path.write_bytes(content)
    examination = key.examine()
    with open(path, "rb") as file:
        for start in range(0, len(content), 50_001):
            stop = min(start + 50_001, len(content))
            examination.read(file.fileno(), len(content), stop)
        assert examination.finish() == examine(key, content)[1:]
        into = bytearray(_core.sealed_size(len(content)))
        key.seal(file.fileno(), len(content), examination, 0, len(into), into)
    assert into == seal(key, content)[0]
    with pytest.raises(RuntimeError, match="over"):
        examination.finish()
    with pytest.raises(RuntimeError, match="over"):
        examination.read(content, len(content), len(content))


def test_what_has_changed_since_is_not_sealed(key: _core.SealingKey) -> None:
    content = content_of(2 * CHUNK + 5)
    examined, _, _ = examine(key, content)
    into = bytearray(_core.sealed_size(len(content)))
    for place in (0, CHUNK, 2 * CHUNK + 4):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(_core.SealError, match=f"chunk {place // CHUNK} is not what it was"):
            key.seal(changed, len(changed), examined, 0, len(into), into)
    with pytest.raises(_core.SealError, match="not the size"):
        key.seal(content[:-1], len(content) - 1, examined, 0, 10, bytearray(10))
    with pytest.raises(RuntimeError, match="not over"):
        key.seal(content, len(content), key.examine(), 0, 10, bytearray(10))


@pytest.mark.parametrize("size", [0, 20, CHUNK, 2 * CHUNK + 5])
def test_no_bit_can_be_changed(key: _core.SealingKey, size: int) -> None:
    content = content_of(size)
    sealed, salt = seal(key, content)
    # Every byte of the header, the edges of every chunk and tag, and some others.
    places = {*range(HEADER + 2), len(sealed) - 1, *range(HEADER, len(sealed), 9_973)}
    for begin in range(HEADER, len(sealed), WHOLE):
        end = min(begin + WHOLE, len(sealed))
        places |= {begin, *range(max(begin, end - 18), end)}
    for place in places:
        for bit in (1, 0x80):
            damaged = bytearray(sealed)
            damaged[place] ^= bit
            with pytest.raises(_core.SealError):
                opened(key, bytes(damaged), salt)


def test_chunks_cannot_be_cut_added_or_moved(key: _core.SealingKey) -> None:
    content = content_of(3 * CHUNK)
    sealed, salt = seal(key, content)
    head, chunks = sealed[:HEADER], [sealed[HEADER + i * WHOLE :][:WHOLE] for i in range(3)]
    other = content_of(3 * CHUNK + 1)[:-1]
    foreign, _ = seal(key, other)
    hostile = {
        "cut at a chunk": head + b"".join(chunks[:2]),
        "nothing left": head,
        "cut in a chunk": sealed[:-1],
        "cut in a tag": sealed[: HEADER + WHOLE + 7],
        "one byte more": sealed + b"\0",
        "an empty chunk more": sealed + bytes(16),
        "the last chunk twice": sealed + chunks[2],
        "two chunks swapped": head + chunks[1] + chunks[0] + chunks[2],
        "the first chunk missing": head + b"".join(chunks[1:]),
        "a chunk of another object": head + chunks[0] + foreign[HEADER + WHOLE :],
        "another object": foreign,
    }
    for what, found in hostile.items():
        with pytest.raises(_core.SealError):
            pytest.fail(f"{what}: {len(opened(key, found, salt))} bytes were opened")


def test_another_key_or_salt_opens_nothing(key: _core.SealingKey) -> None:
    content = content_of(1000)
    sealed, salt = seal(key, content)
    stranger = _core.SealingKey(bytes(32))
    with pytest.raises(_core.SealError):
        opened(stranger, sealed, salt)
    for wrong_key, wrong_salt in ((stranger, salt), (key, bytes(16))):
        with pytest.raises(_core.SealError, match="chunk 0 is not authentic"):
            wrong_key.open(bytearray(sealed[HEADER:]), wrong_salt, 0, True)


def test_a_part_is_opened_only_in_its_place(key: _core.SealingKey) -> None:
    content = content_of(4 * CHUNK)
    sealed, salt = seal(key, content)
    middle = sealed[HEADER + WHOLE : HEADER + 3 * WHOLE]
    data = bytearray(middle)
    assert key.open(data, salt, 1, False) == 2 * CHUNK
    assert data[: 2 * CHUNK] == content[CHUNK : 3 * CHUNK]
    for first, final in ((0, False), (2, False), (1, True), (2**63, False)):
        with pytest.raises(_core.SealError):
            key.open(bytearray(middle), salt, first, final)


def test_nothing_of_a_damaged_chunk_is_seen(key: _core.SealingKey) -> None:
    content = bytes(2 * CHUNK)
    sealed, salt = seal(key, content)
    data = bytearray(sealed[HEADER:])
    data[WHOLE + 5] ^= 1
    before = bytes(data[WHOLE:])
    with pytest.raises(_core.SealError, match="chunk 1"):
        key.open(data, salt, 0, True)
    assert data[WHOLE:] == before


def test_what_does_not_fit_is_refused(key: _core.SealingKey, tmp_path: Path) -> None:
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="a key has 32 bytes"):
            _core.SealingKey(bytes(size))
    with pytest.raises(ValueError, match="a salt has 16 bytes"):
        key.header(bytes(15))
    salt = bytes(16)
    examined, _, _ = examine(key, b"abc")
    with pytest.raises(ValueError, match="the buffer has not the size"):
        key.seal(b"abc", 4, examined, 0, 4, bytearray(4))
    with pytest.raises(ValueError, match="not as long"):
        key.seal(b"abc", 3, examined, 0, 5, bytearray(4))
    with pytest.raises(ValueError, match="not as long"):
        key.seal(b"abc", 3, examined, 5, 0, bytearray(4))
    with pytest.raises(ValueError, match="beyond the sealed form"):
        key.seal(b"abc", 3, examined, 0, 52, bytearray(52))
    with pytest.raises(ValueError, match="beyond the content"):
        key.examine().read(b"abc", 3, 4)
    with pytest.raises(ValueError, match="more than an object can have"):
        _core.sealed_size(1 << 60)
    with pytest.raises(ValueError, match="more than an object can have"):
        key.examine().read(0, 1 << 60, 1)
    with pytest.raises(BufferError):
        key.open(b"not to be written", salt, 0, True)
    for data in (b"", bytes(15), bytes(WHOLE + 3), bytes(WHOLE + 16)):
        with pytest.raises(_core.SealError, match="does not end where a chunk does"):
            key.open(bytearray(data), salt, 0, True)


def test_a_file_that_becomes_shorter_is_noticed(key: _core.SealingKey, tmp_path: Path) -> None:
    content = content_of(2 * CHUNK)
    path = tmp_path / "content"
    path.write_bytes(content)
    examined, _, _ = examine(key, content)
    descriptor = os.open(path, os.O_RDWR)
    os.truncate(path, CHUNK)
    try:
        with pytest.raises(OSError, match="became shorter"):
            key.examine().read(descriptor, len(content), len(content))
        into = bytearray(_core.sealed_size(len(content)))
        with pytest.raises(OSError, match="became shorter"):
            key.seal(descriptor, len(content), examined, 0, len(into), into)
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        key.examine().read(descriptor, 100, 100)
