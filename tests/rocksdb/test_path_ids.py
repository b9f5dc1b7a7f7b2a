"""Table files that were in several directories, and are in one now."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kumo_crt import _core

from . import encoding as enc

_RNG = random.Random(5)


def _path_id(value: int) -> bytes:
    return enc.field(65, bytes([value]))


def _edits() -> list[bytes]:
    """Path ids at every place of a block, in records of one and of many fragments."""
    edits = [enc.base_edit()]
    number = 20
    for _ in range(60):
        edit = b""
        for _ in range(_RNG.randrange(1, 5)):
            custom = enc.field(6, enc.varint(77)) + _path_id(number % 4) + enc.field(13, b"\1")
            edit += enc.new_file(number, key=b"k" * _RNG.randrange(1, 9_000), custom=custom)
            number += 1
        edits.append(edit)
    key = enc.text(enc.internal(b"a"))
    old = enc.varint(102) + b"\2" + enc.varint(number) + b"\3\x64" + key + key + b"\7\x08"
    edits.append(old)
    edits.append(enc.new_file(number + 1, key=b"k" * 100_000, custom=_path_id(2)))
    return edits


def test_all_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "M"
    path.write_bytes(enc.log(_edits()))
    before = _core.read_manifest(path, allow_partial=False)
    content = path.read_bytes()
    elsewhere = [sst.number for sst in before.sst_files if sst.path_id]
    assert {sst.path_id for sst in before.sst_files} == {0, 1, 2, 3}
    assert _core.clear_path_ids(path) == len(elsewhere)
    after = _core.read_manifest(path, allow_partial=False)

    def facts(state: _core.ManifestState) -> list[tuple[object, ...]]:
        return [
            (sst.number, sst.level, sst.size, sst.smallest_key, sst.largest_key, sst.epoch_number)
            for sst in state.sst_files
        ]

    assert facts(after) == facts(before)
    assert {sst.path_id for sst in after.sst_files} == {0}
    changed = sum(a != b for a, b in zip(content, path.read_bytes(), strict=True))
    assert changed <= 5 * len(elsewhere)
    assert _core.clear_path_ids(path) == 0


def test_path_ids_at_every_place_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "M"
    for size in range(enc.BLOCK - 160, enc.BLOCK - 20):
        edit = enc.new_file(20, key=b"k" * (size // 2), custom=_path_id(3))
        path.write_bytes(enc.log([enc.base_edit(), edit, enc.new_file(21)]))
        assert _core.clear_path_ids(path) == 1
        state = _core.read_manifest(path, allow_partial=False)
        assert [(sst.number, sst.path_id) for sst in state.sst_files] == [(20, 0), (21, 0)]


def test_a_file_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "M"
    path.write_bytes(enc.log(_edits())[:-10])
    with pytest.raises(_core.RocksDBFormatError, match="ends inside a record"):
        _core.clear_path_ids(path)
    path.write_bytes(enc.log([enc.base_edit(), enc.number(99, 1)]))
    with pytest.raises(_core.RocksDBFormatError, match="tag 99"):
        _core.clear_path_ids(path)
    with pytest.raises(FileNotFoundError):
        _core.clear_path_ids(tmp_path / "nothing")
