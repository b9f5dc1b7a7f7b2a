"""SST properties against sst_dump, rocksdict and the writer's own options."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from rocksdict import (
    BlockBasedOptions,
    ChecksumType,
    CuckooTableOptions,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    PlainTableFactoryOptions,
    Rdict,
    SliceTransform,
    SstFileWriter,
)

from kumo_crt import _core

from . import judges, sst_encoding
from .conftest import files, table_options
from .encoding import varint

_CHECKSUMS = {
    "none": ChecksumType.no_checksum(),
    "crc32c": ChecksumType.crc32c(),
    "xxhash": ChecksumType.xxhash(),
    "xxhash64": ChecksumType.xxhash64(),
    "xxh3": ChecksumType.xxh3(),
}


def _make(path: Path, options: Options, keys: int = 300) -> _core.SstProperties:
    """Returns the properties of the only SST of a new database."""
    db = Rdict(str(path), options)
    for i in range(keys):
        db[b"key-%06d" % i] = b"value-%d" % i * 3
    db.delete(b"key-000000")
    db.flush()
    db.close()
    (sst,) = files(path, ".sst")
    return _core.sst_properties(sst)


@pytest.mark.parametrize("checksum", _CHECKSUMS)
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_format_and_checksum(tmp_path: Path, version: int, checksum: str) -> None:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    table = BlockBasedOptions()
    table.set_format_version(version)
    table.set_checksum_type(_CHECKSUMS[checksum])
    options.set_block_based_table_factory(table)
    found = _make(tmp_path / "db", options)
    (sst,) = files(tmp_path / "db", ".sst")
    assert found.table_kind == "block_based"
    assert found.format_version == version
    assert found.checksum_type == checksum
    assert found.file_size == sst.stat().st_size
    assert found.db_id == (tmp_path / "db" / "IDENTITY").read_text().strip()
    assert len(found.db_session_id) == 20
    assert found.original_file_number == int(sst.stem)
    assert found.num_entries == 300
    assert found.num_deletions == 1
    assert found.column_family_id == 0
    assert found.column_family_name == "default"
    assert found.comparator == "leveldb.BytewiseComparator"
    assert abs(found.creation_time - time.time()) < 600
    assert found.identity_complete
    # One bit of the properties: every kind of checksum notices, "none" cannot.
    bytes_ = bytearray(sst.read_bytes())
    at = bytes_.rindex(b"leveldb.BytewiseComparator")
    bytes_[at] ^= 1
    sst.write_bytes(bytes_)
    if checksum == "none":
        assert _core.sst_properties(sst).comparator == "meveldb.BytewiseComparator"
    else:
        with pytest.raises(_core.RocksDBFormatError, match="checksum does not match"):
            _core.sst_properties(sst)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(
    ("compression", "name"),
    [
        (DBCompressionType.none(), "NoCompression"),
        (DBCompressionType.snappy(), "Snappy"),
        (DBCompressionType.zlib(), "Zlib"),
        (DBCompressionType.bz2(), "BZip2"),
        (DBCompressionType.lz4(), "LZ4"),
        (DBCompressionType.lz4hc(), "LZ4HC"),
        (DBCompressionType.zstd(), "ZSTD"),
    ],
)
def test_compression(
    tmp_path: Path, version: int, compression: DBCompressionType, name: str
) -> None:
    options = table_options(version)
    options.set_compression_type(compression)
    assert _make(tmp_path / "db", options, keys=3000).compression == name


@pytest.mark.skipif(judges.SST_DUMP is None, reason="needs sst_dump (rocksdb-tools)")
def test_against_sst_dump(busy: Path) -> None:
    ssts = files(busy, ".sst")
    assert len(ssts) >= 3
    for sst in ssts:
        found, dumped = _core.sst_properties(sst), judges.sst_properties(sst)
        assert {
            "entries": str(found.num_entries),
            "deletions": str(found.num_deletions),
            "merge operands": str(found.num_merge_operands),
            "range deletions": str(found.num_range_deletions),
            "raw key size": str(found.raw_key_size),
            "raw value size": str(found.raw_value_size),
            "data block size": str(found.data_size),
            "column family ID": str(found.column_family_id),
            "column family name": found.column_family_name,
            "comparator name": found.comparator,
            "SST file compression algo": found.compression,
            "creation time": str(found.creation_time),
            "file creation time": str(found.file_creation_time),
            "DB identity": found.db_id,
            "DB session identity": found.db_session_id,
            "DB host id": found.db_host_id,
            "original file number": str(found.original_file_number),
        }.items() <= dumped.items()


def test_against_live_files(tmp_path: Path) -> None:
    options = table_options(6)
    db = Rdict(str(tmp_path / "db"), options)
    for turn in range(5):
        for i in range(100):
            db[b"%d-%d" % (turn, i)] = b"v"
        db.delete(b"0-0")
        db.flush()
    live = {str(file["name"]): file for file in db.live_files()}
    assert len(live) == 5
    for name, file in live.items():
        found = _core.sst_properties(tmp_path / "db" / name.lstrip("/"))
        assert found.file_size == file["size"]
        assert found.num_entries == file["num_entries"]
        assert found.num_deletions == file["num_deletions"]
    db.close()


def test_identity_of_ingested_files(tmp_path: Path) -> None:
    options = table_options(6)
    writer = SstFileWriter(options)
    external = tmp_path / "external.sst"
    writer.open(str(external))
    for i in range(10):
        writer[b"%03d" % i] = b"x"
    writer.finish()
    found = _core.sst_properties(external)
    assert found.db_id == "SST Writer"
    assert found.column_family_id is None
    assert found.global_seqno == 0
    assert found.identity_complete
    db = Rdict(str(tmp_path / "db"), options)
    db[b"000"] = b"older"
    db.ingest_external_file([str(external)], IngestExternalFileOptions())
    db.close()
    numbers = {_core.sst_properties(sst).db_id for sst in files(tmp_path / "db", ".sst")}
    assert "SST Writer" in numbers


def test_global_seqno_written_in_place(tmp_path: Path) -> None:
    """Ingestion by old versions changes the file but not its identity or block checksum."""
    writer = SstFileWriter(table_options(5))
    external = tmp_path / "external.sst"
    writer.open(str(external))
    writer[b"key"] = b"value"
    writer.finish()
    content = bytearray(external.read_bytes())
    # Keys are prefix-compressed: the tail of the name is enough to find the value behind it.
    at = content.rindex(b"global_seqno") + len(b"global_seqno")
    assert content[at : at + 8] == bytes(8)
    content[at] = 42
    external.write_bytes(content)
    found = _core.sst_properties(external)
    assert found.global_seqno == 42
    assert not found.identity_complete


def test_plain_and_cuckoo_tables(tmp_path: Path) -> None:
    plain = Options(raw_mode=True)
    plain.create_if_missing(True)
    plain.set_allow_mmap_reads(True)
    plain.set_prefix_extractor(SliceTransform.create_fixed_prefix(4))
    factory = PlainTableFactoryOptions()
    factory.user_key_length = 0
    factory.bloom_bits_per_key = 10
    factory.hash_table_ratio = 0.75
    factory.index_sparseness = 16
    plain.set_plain_table_factory(factory)
    found = _make(tmp_path / "plain", plain)
    assert (found.table_kind, found.num_entries) == ("plain", 300)
    assert found.identity_complete

    cuckoo = Options(raw_mode=True)
    cuckoo.create_if_missing(True)
    cuckoo.set_allow_mmap_reads(True)
    cuckoo.set_cuckoo_table_factory(CuckooTableOptions())
    db = Rdict(str(tmp_path / "cuckoo"), cuckoo)
    for i in range(50):
        db[b"key-%02d" % i] = b"%08d" % i
    db.flush()
    db.close()
    (sst,) = files(tmp_path / "cuckoo", ".sst")
    found = _core.sst_properties(sst)
    assert (found.table_kind, found.num_entries) == ("cuckoo", 50)
    assert found.identity_complete


def test_only_the_tail_is_read(tmp_path: Path) -> None:
    """The cost does not depend on the size of the file."""
    options = table_options(6)
    options.set_compression_type(DBCompressionType.none())
    db = Rdict(str(tmp_path / "db"), options)
    for i in range(2000):
        db[b"key-%06d" % i] = bytes(5000)
    db.flush()
    db.close()
    sst = max(files(tmp_path / "db", ".sst"), key=lambda path: path.stat().st_size)
    assert sst.stat().st_size > 9_000_000

    def bytes_read() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])

    before = bytes_read()
    idle = bytes_read() - before
    before = bytes_read()
    _core.sst_properties(sst)
    assert bytes_read() - before - idle < 100_000


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (b"BuiltinV2;07;", "ZSTD"),
        (b"BuiltinV2;0407;", "LZ4,ZSTD"),
        (b"BuiltinV2;;", "NoCompression"),
        (b"Own;81;", "0x81"),
        (b"Own;gg;", "0xgg"),
        (b"odd", "odd"),
    ],
)
def test_format_7(tmp_path: Path, stored: bytes, name: str) -> None:
    """The RocksDB at hand does not write it: made from its description."""
    sst = tmp_path / "000300.sst"
    sst.write_bytes(sst_encoding.table(sst_encoding.properties(compression=stored)))
    found = _core.sst_properties(sst)
    assert (found.format_version, found.checksum_type) == (7, "crc32c")
    assert (found.original_file_number, found.num_entries) == (300, 1 << 40)
    assert found.compression == name
    assert found.identity_complete


def test_block_offset_is_part_of_the_checksum(tmp_path: Path) -> None:
    """A block in the wrong place is noticed even though its own bytes are right."""
    sst = tmp_path / "000300.sst"
    content = sst_encoding.table(sst_encoding.properties())
    sst.write_bytes(b"x" + content)
    with pytest.raises(_core.RocksDBFormatError, match="footer's checksum"):
        _core.sst_properties(sst)


def test_large_properties_are_read_beyond_the_first_read(tmp_path: Path) -> None:
    sst = tmp_path / "000300.sst"
    sst.write_bytes(
        sst_encoding.table(sst_encoding.properties(user_collected=bytes(50_000)), data=b"d" * 9_999)
    )
    assert _core.sst_properties(sst).original_file_number == 300


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (sst_encoding.properties(num_entries=b"\xff" * 10), "malformed value"),
        (sst_encoding.properties(num_entries=b""), "malformed value"),
        (sst_encoding.properties(user_collected=bytes(5 << 20)), "too large"),
    ],
)
def test_impossible_properties(tmp_path: Path, entries: dict[bytes, bytes], problem: str) -> None:
    sst = tmp_path / "000300.sst"
    sst.write_bytes(sst_encoding.table(entries))
    with pytest.raises(_core.RocksDBFormatError, match=problem):
        _core.sst_properties(sst)


def test_future_footer_feature_is_refused(tmp_path: Path) -> None:
    sst = tmp_path / "000300.sst"
    sst.write_bytes(sst_encoding.table(sst_encoding.properties(), reserved=b"\1" + bytes(7)))
    with pytest.raises(_core.RocksDBFormatError, match="feature of a newer RocksDB"):
        _core.sst_properties(sst)


@pytest.mark.parametrize(
    "changes",
    [
        {"creating_db_identity": b""},
        {"creating_session_identity": b"short"},
        {"creating_session_identity": b"0123456789abcdefghij"},
        {"original_file_number": varint(0)},
    ],
)
def test_incomplete_identity(tmp_path: Path, changes: dict[str, bytes]) -> None:
    sst = tmp_path / "000300.sst"
    sst.write_bytes(sst_encoding.table(sst_encoding.properties(**changes)))
    assert not _core.sst_properties(sst).identity_complete


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    sst = tmp_path / "000300.sst"
    sst.write_bytes(sst_encoding.table(sst_encoding.properties(comparator=b"caf\xe9")))
    assert _core.sst_properties(sst).comparator.encode(errors="surrogateescape") == b"caf\xe9"


def test_newer_format_is_named(tmp_path: Path) -> None:
    _make(tmp_path / "db", table_options(5))
    (sst,) = files(tmp_path / "db", ".sst")
    content = bytearray(sst.read_bytes())
    content[-12:-8] = (8).to_bytes(4, "little")
    sst.write_bytes(content)
    with pytest.raises(_core.RocksDBFormatError, match="format_version 8 is newer") as caught:
        _core.sst_properties(sst)
    assert caught.value.path == str(sst)
    assert caught.value.offset == len(content) - 53
    assert str(sst) in str(caught.value)


def test_what_is_no_sst(tmp_path: Path) -> None:
    assert issubclass(_core.RocksDBFormatError, ValueError)
    other = tmp_path / "other.sst"
    for content in (b"", b"x" * 47, b"x" * 48, b"x" * 100_000):
        other.write_bytes(content)
        with pytest.raises(_core.RocksDBFormatError):
            _core.sst_properties(other)
    with pytest.raises(FileNotFoundError) as missing:
        _core.sst_properties(tmp_path / "missing.sst")
    assert missing.value.filename == str(tmp_path / "missing.sst")
    with pytest.raises(IsADirectoryError):
        _core.sst_properties(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        _core.sst_properties("/dev/null")
