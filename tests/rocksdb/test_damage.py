"""Damaged files: a right answer or an error, never a crash, a hang or a wrong answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kumo_crt import _core

from . import encoding as enc
from . import sst_encoding
from .conftest import files, manifest_of

_SEED = 20240607
_MUTATION_SECONDS = 1.0

Reader = Callable[[Path], Any]
_READERS: dict[str, Reader] = {
    "sst": _core.sst_properties,
    "manifest": _core.read_manifest,
    "wal": _core.scan_wal,
    "blob": _core.read_blob_file,
    "current": _core.read_current,
}


def _sample(kind: str, database: Path) -> bytes:
    path = {
        "sst": lambda: files(database, ".sst")[0],
        "manifest": lambda: manifest_of(database),
        "wal": lambda: files(database, ".log")[-1],
        "blob": lambda: files(database, ".blob")[0],
        "current": lambda: database / "CURRENT",
    }[kind]()
    return path.read_bytes()


def _facts(found: Any) -> Any:
    """The answer in a form that can be compared."""
    if isinstance(found, (str, int, bytes, dict, type(None))):
        return found
    if isinstance(found, tuple):
        return [_facts(item) for item in found]
    names = [name for name in dir(found) if not name.startswith("_")]
    return {name: _facts(getattr(found, name)) for name in names}


def _read(kind: str, path: Path, content: bytes) -> Any:
    """The answer for a file of this content, or None if it was refused."""
    path.write_bytes(content)
    try:
        found = _READERS[kind](path)
    except _core.RocksDBFormatError as error:
        assert str(path) in str(error)  # noqa: PT017 - any answer is allowed, not any error
        return None
    return _facts(found)


@pytest.mark.parametrize("kind", _READERS)
def test_truncation_at_every_byte(kind: str, small: Path, tmp_path: Path) -> None:
    content = _sample(kind, small)
    path = tmp_path / "000001.log"
    whole = _read(kind, path, content)
    assert whole is not None
    refused = 0
    sequences: list[int] = []
    for size in range(len(content)):
        found = _read(kind, path, content[:size])
        if found is None:
            refused += 1
        elif kind == "wal":
            assert found["tail"] in ("clean", "partial")
            assert found["valid_bytes"] <= size
            sequences.append(found["last_sequence"] or 0)
        elif kind == "manifest":
            assert found["valid_bytes"] <= size
            assert found["last_sequence"] <= whole["last_sequence"]
        elif kind == "blob":
            assert found["blob_count"] is None
        else:
            pytest.fail(f"{kind} cut to {size} of {len(content)} bytes was accepted")
    if kind == "wal":
        assert refused == 0
        assert sequences == sorted(sequences)
        assert len(set(sequences)) == whole["records"]
    else:
        assert refused > 0


@pytest.mark.parametrize("kind", ["sst", "manifest", "wal"])
def test_every_flipped_bit_of_checksummed_files(kind: str, small: Path, tmp_path: Path) -> None:
    """What a checksum covers is never believed when it is wrong."""
    content = bytearray(_sample(kind, small))
    path = tmp_path / "000001.log"
    whole = _read(kind, path, bytes(content))
    rng = random.Random(_SEED)
    for position in range(len(content)):
        bit = 1 << rng.randrange(8)
        content[position] ^= bit
        found = _read(kind, path, bytes(content))
        content[position] ^= bit
        if kind == "wal":
            assert found["tail"] != "clean"
            assert found["valid_bytes"] <= position
        elif kind == "manifest":
            # A longer length in the last header looks like a record that is still being written.
            assert found is None or found["valid_bytes"] <= position
        else:
            # Data, index and other blocks are not read.
            assert found is None or found == whole


def _mutate(rng: random.Random, content: bytes) -> bytes:
    out = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = rng.randbytes(1)
            case 1:
                del out[at : at + rng.randrange(1, 20)]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 3:
                out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x80" * 8])
            case 4:
                source = rng.randrange(len(out) + 1)
                out[at:at] = out[source : source + rng.randrange(1, 200)]
            case _:
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize("kind", _READERS)
def test_random_damage(kind: str, small: Path, tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    content = _sample(kind, small)
    path = tmp_path / "000001.log"
    stop = time.monotonic() + _MUTATION_SECONDS
    rounds = 0
    while time.monotonic() < stop:
        _read(kind, path, _mutate(rng, content))
        rounds += 1
    assert rounds > 100


def _edits(rng: random.Random) -> bytes:
    custom = b"".join(
        enc.field(rng.choice([3, 4, 6, 7, 9, 12, 30, 65]), rng.randbytes(rng.randrange(9)))
        for _ in range(rng.randrange(3))
    )
    return b"".join(
        rng.choice(
            [
                enc.new_file(rng.randrange(20), level=rng.randrange(3), custom=custom),
                enc.varint(6) + enc.varint(rng.randrange(3)) + enc.varint(rng.randrange(20)),
                enc.number(400, rng.randrange(5)) + b"\5\x32\0\0\0",
                enc.number(401, rng.randrange(5)) + b"\1\x0a\0",
                enc.number(200, rng.randrange(3)),
                enc.field(201, b"cf"),
                enc.number(300, rng.randrange(3)),
                enc.field(8199, rng.randbytes(4)),
                enc.field(8500, rng.randbytes(rng.randrange(30))),
            ]
        )
        for _ in range(rng.randrange(1, 5))
    )


def test_a_field_with_fields_without_end(tmp_path: Path) -> None:
    """Ones that begin anew with each fragment of their record would take 8 s."""
    path = tmp_path / "MANIFEST-000001"
    size = 15 << 20
    long = enc.new_file(5, custom=enc.field(30, b"") * (size // len(enc.field(30, b""))))
    path.write_bytes(enc.log([enc.base_edit(), long]))
    start = time.monotonic()
    assert len(_core.read_manifest(path).sst_files) == 1
    assert time.monotonic() - start < 3


def test_damage_behind_a_right_checksum(tmp_path: Path) -> None:
    """The decoders see these bytes: the checksums of the records and blocks are right."""
    rng = random.Random(_SEED)
    path = tmp_path / "000001.log"
    stop = time.monotonic() + _MUTATION_SECONDS
    good = sst_encoding.properties(user_collected=bytes(300))
    read = {"manifest": 0, "sst": 0}
    while time.monotonic() < stop:
        edits = [_edits(rng) for _ in range(rng.randrange(1, 4))]
        if rng.randrange(3) == 0:
            edits[-1] = _mutate(rng, edits[-1])
        found = _read("manifest", path, enc.log([enc.base_edit(), *edits]))
        read["manifest"] += found is not None
        block = sst_encoding.block(good)
        if rng.randrange(3):
            block = _mutate(rng, block)
        found = _read("sst", path, sst_encoding.table_of_block(block))
        read["sst"] += found is not None
        entry = {rng.randbytes(5): rng.randbytes(9) for _ in range(3)}
        entry[b"rocksdb.properties"] = rng.randbytes(rng.randrange(20))
        _read("sst", path, sst_encoding.table_of_metaindex(sst_encoding.block(entry)))
    assert min(read.values()) > 10
