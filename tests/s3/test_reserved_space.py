"""Space of a file that is about to come is reserved, and nothing else shows that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt import _core
from tests.s3.conftest import PART
from tests.support.data import MIB, payload

_BLOCK = 512  # of st_blocks, whatever the file system's are


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory in a file system that can reserve space."""
    with (tmp_path / "probe").open("wb") as file:
        _core.reserve_space(file.fileno(), 0, MIB)
        if os.fstat(file.fileno()).st_blocks * _BLOCK < MIB:
            pytest.skip("this file system reserves nothing")
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_a_file_keeps_its_size(place: Path) -> None:
    with (place / "file").open("w+b") as file:
        file.write(b"before")
        file.flush()
        _core.reserve_space(file.fileno(), 4 * MIB, 8 * MIB)
        found = os.fstat(file.fileno())
        assert found.st_size == 6
        assert found.st_blocks * _BLOCK >= 8 * MIB
        assert os.pread(file.fileno(), 100, 0) == b"before"


@pytest.mark.parametrize(
    ("offset", "size"), [(1 << 63, MIB), (0, 1 << 63), (0, (1 << 64) - 1), (0, 0)]
)
def test_what_cannot_be_had_changes_nothing(place: Path, offset: int, size: int) -> None:
    with (place / "file").open("wb") as file:
        _core.reserve_space(file.fileno(), offset, size)
        found = os.fstat(file.fileno())
        assert (found.st_size, found.st_blocks) == (0, 0)
    _core.reserve_space(-1, 0, MIB)


@pytest.mark.servers("seaweed-http")
def test_what_comes_in_pieces(
    s3_parts: kumo_crt.S3Client, bucket: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = payload(8 * PART + 5)
    s3_parts.put_object(bucket, "key", data)
    reserved, reserve = [], _core.reserve_space

    def record(fd: int, offset: int, size: int) -> None:
        reserve(fd, offset, size)
        reserved.append((offset, size))
        found = os.fstat(fd)
        assert found.st_blocks * _BLOCK >= size
        assert found.st_size < len(data)

    monkeypatch.setattr(_core, "reserve_space", record)
    s3_parts.get_object(bucket, "key", into=place / "file")
    # The first is asked for before anybody knows how much there is; the last is too small.
    assert sorted(reserved) == [(number * PART, PART) for number in range(1, 8)]
    (file,) = place.iterdir()
    assert file.read_bytes() == data
    assert file.stat().st_blocks * _BLOCK < len(data) + MIB
    reserved.clear()
    s3_parts.get_object(bucket, "key", into=bytearray(len(data)))
    assert reserved == []
