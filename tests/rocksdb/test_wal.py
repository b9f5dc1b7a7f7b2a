"""The WAL scanner against real logs and hand-made ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from rocksdict import Rdict, WriteBatch

from kumo_crt import _core

from . import encoding as enc
from .conftest import copy_live, files, table_options


def _scan(path: Path, content: bytes) -> _core.WalInfo:
    path.write_bytes(content)
    return _core.scan_wal(path)


def test_real_log(tmp_path: Path) -> None:
    options = table_options(6)
    db = Rdict(str(tmp_path / "db"), options)
    path = tmp_path / "db"
    for i in range(50):
        db[b"flushed-%d" % i] = b"v"
    db.flush()
    batch = WriteBatch(raw_mode=True)
    for i in range(20):
        batch.put(b"batch-%d" % i, b"value" * 1000)
    batch.delete(b"flushed-1")
    db.write(batch)
    for i in range(5):
        db[b"key-%d" % i] = bytes(70_000)  # spans blocks
    copy = copy_live(path, tmp_path / "copy")
    wal = files(copy, ".log")[-1]
    found = _core.scan_wal(wal)
    assert (found.first_sequence, found.last_sequence) == (51, db.latest_sequence_number())
    assert (found.records, found.entries, found.last_entries) == (6, 26, 1)
    assert found.file_size == found.valid_bytes == wal.stat().st_size
    assert (found.tail, found.tail_problem) == ("clean", "")
    assert not found.compressed
    assert not found.recycled
    assert found.predecessor is None
    db.close()


def test_cut_at_valid_bytes_is_a_whole_log(crashed: Path, tmp_path: Path) -> None:
    """RocksDB itself replays what the scanner calls valid, with nothing lost and nothing more."""
    wal = files(crashed, ".log")[-1]
    content = wal.read_bytes()
    cut = _scan(tmp_path / wal.name, content[:-3])
    assert (cut.tail, cut.tail_offset) == ("partial", cut.valid_bytes)
    assert cut.last_sequence is not None
    copy = copy_live(crashed, tmp_path / "copy")
    (copy / wal.name).write_bytes(content[: cut.valid_bytes])
    options = table_options(5)
    options.create_if_missing(False)
    db = Rdict(str(copy), options, column_families={"users": options})
    assert db.latest_sequence_number() == cut.last_sequence
    db.close()


def test_empty_log(tmp_path: Path) -> None:
    found = _scan(tmp_path / "000001.log", b"")
    assert (found.tail, found.valid_bytes, found.records) == ("clean", 0, 0)
    assert (found.first_sequence, found.last_sequence) == (None, None)


def test_every_record_size_around_a_block_boundary(tmp_path: Path) -> None:
    for size in range(enc.BLOCK - 60, enc.BLOCK - 12):
        records = [enc.batch(1, 2, size), enc.batch(3, 1, 40), enc.batch(4, 1, 90_000)]
        for log_number in (None, 1):
            content = enc.log(records, log_number=log_number)
            found = _scan(tmp_path / "000001.log", content)
            assert (found.records, found.last_sequence, found.tail) == (3, 4, "clean")
            assert found.valid_bytes == len(content)
            assert found.recycled == (log_number is not None)


def test_batches_without_operations(tmp_path: Path) -> None:
    found = _scan(tmp_path / "000001.log", enc.log([enc.batch(7, 0), enc.batch(7, 3)]))
    assert (found.first_sequence, found.last_sequence, found.entries) == (7, 9, 3)
    found = _scan(tmp_path / "000001.log", enc.log([enc.batch(7, 0)]))
    assert (found.first_sequence, found.last_sequence) == (7, None)


def test_holes(tmp_path: Path) -> None:
    batches = [enc.batch(5, 2), enc.batch(7, 1), enc.batch(9, 1), enc.batch(9, 0), enc.batch(20, 3)]
    assert _scan(tmp_path / "000001.log", enc.log(batches)).holes == 2
    assert _scan(tmp_path / "000001.log", enc.log(batches[:2])).holes == 0


@pytest.mark.parametrize("record", [b"", b"short", enc.batch(1 << 56, 1), enc.batch(1 << 63, 0)])
def test_records_that_are_no_batches(tmp_path: Path, record: bytes) -> None:
    good = enc.log([enc.batch(1, 1)])
    found = _scan(tmp_path / "000001.log", enc.log([record], start=good))
    assert (found.tail, found.tail_problem) == ("damaged", "a record is no write batch")
    assert found.valid_bytes == found.tail_offset == len(good)
    assert found.last_sequence == 1


def test_compressed_log(tmp_path: Path) -> None:
    start = enc.physical(enc.SET_COMPRESSION, struct.pack("<I", 7))
    found = _scan(tmp_path / "000001.log", enc.log([b"zstd", b"data"], start=start))
    assert found.compressed
    assert (found.records, found.first_sequence, found.last_sequence) == (2, None, None)
    assert found.tail == "clean"
    late = enc.log([enc.batch(1, 1)]) + start
    assert _scan(tmp_path / "000001.log", late).tail == "damaged"


def test_metadata_records(tmp_path: Path) -> None:
    start = (
        enc.physical(enc.PREDECESSOR, struct.pack("<QQQ", 41, 12345, 678))
        + enc.physical(enc.TIMESTAMP_SIZE, struct.pack("<IH", 1, 8))
        + enc.physical(200, b"a newer version's record that may be skipped")
    )
    found = _scan(tmp_path / "000042.log", enc.log([enc.batch(679, 1)], start=start))
    assert found.predecessor == (41, 12345, 678)
    assert (found.first_sequence, found.tail) == (679, "clean")
    found = _scan(tmp_path / "000042.log", enc.log([enc.batch(9, 1)]) + enc.physical(100, b""))
    assert (found.tail, found.tail_problem) == ("damaged", "unknown record type 100")
    assert found.last_sequence == 9
    inside = enc.physical(enc.FIRST, enc.batch(1, 1)) + start
    assert _scan(tmp_path / "000042.log", inside).tail == "damaged"


@pytest.mark.parametrize(
    ("kinds", "records", "tail"),
    [
        ([enc.FIRST, enc.MIDDLE, enc.LAST], 1, "clean"),
        ([enc.FIRST, enc.MIDDLE], 0, "partial"),
        ([enc.MIDDLE], 0, "damaged"),
        ([enc.FULL, enc.LAST], 1, "damaged"),
        ([enc.FIRST, enc.FULL], 0, "damaged"),
        ([enc.FIRST, enc.FIRST, enc.LAST], 0, "damaged"),
    ],
)
def test_order_of_fragments(tmp_path: Path, kinds: list[int], records: int, tail: str) -> None:
    content = b"".join(enc.physical(kind, enc.batch(1, 1)) for kind in kinds)
    found = _scan(tmp_path / "000001.log", content)
    assert (found.records, found.tail) == (records, tail)


def test_empty_first_fragment_of_old_writers(tmp_path: Path) -> None:
    content = enc.physical(enc.FIRST, b"") + enc.physical(enc.FULL, enc.batch(5, 1))
    found = _scan(tmp_path / "000001.log", content)
    assert (found.records, found.last_sequence, found.tail) == (1, 5, "clean")


def test_recycled_log(tmp_path: Path) -> None:
    old = enc.log([enc.batch(1, 1, 100)] * 50, log_number=7)
    new = enc.log([enc.batch(900, 1, 100)] * 20, log_number=12)
    # On a record boundary, and inside an old record.
    for content in (new + old[len(new) :], new + b"\x55" + old[len(new) + 1 :]):
        found = _scan(tmp_path / "000012.log", content)
        assert (found.records, found.last_sequence) == (20, 900)
        assert (found.tail, found.valid_bytes, found.recycled) == ("recycled", len(new), True)
    plain = enc.log([enc.batch(1, 1)])
    assert _scan(tmp_path / "000012.log", new + plain).tail == "recycled"
    assert _scan(tmp_path / "000012.log", plain + new).tail == "damaged"
    # A file not named as a log: its first record says whose records count.
    assert _scan(tmp_path / "copy", new + old[len(new) :]).records == 20


def test_preallocated_log(tmp_path: Path) -> None:
    content = enc.log([enc.batch(1, 1)])
    found = _scan(tmp_path / "000001.log", content + bytes(80_000))
    assert (found.tail, found.valid_bytes) == ("zeros", len(content))
    found = _scan(tmp_path / "000001.log", content + bytes(80_000) + b"x")
    assert (found.tail, found.valid_bytes) == ("damaged", len(content))


def test_flipped_bit(tmp_path: Path) -> None:
    records = [enc.batch(1 + i, 1, 500) for i in range(100)]
    content = bytearray(enc.log(records))
    position = len(enc.log(records[:60]))
    content[position + 100] ^= 4
    found = _scan(tmp_path / "000001.log", bytes(content))
    assert (found.records, found.last_sequence, found.tail) == (60, 60, "damaged")
    assert found.tail_offset == found.valid_bytes == position
    assert "checksum" in found.tail_problem
