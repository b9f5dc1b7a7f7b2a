"""The MANIFEST reader against ldb, rocksdict and hand-made records."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from kumo_crt import _core

from . import encoding as enc
from . import judges
from .conftest import files, manifest_of


def _write(path: Path, *edits: bytes) -> Path:
    path.write_bytes(enc.log(edits))
    return path


def _numbers(state: _core.ManifestState) -> list[int]:
    return [sst.number for sst in state.sst_files]


@pytest.mark.skipif(judges.LDB is None, reason="needs ldb (rocksdb-tools)")
@pytest.mark.parametrize("which", ["busy", "crashed", "small"])
def test_against_ldb(which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    families, numbers = judges.manifest(manifest_of(path))
    state = _core.read_manifest(manifest_of(path), allow_partial=False)
    assert [(cf.id, cf.name, cf.log_number, cf.comparator) for cf in state.column_families] == [
        (cf.id, cf.name, cf.log_number, cf.comparator) for cf in families
    ]
    for family in families:
        ssts = [sst for sst in state.sst_files if sst.column_family_id == family.id]
        assert sorted(family.ssts) == [
            (
                sst.level,
                sst.number,
                sst.size,
                sst.smallest_seqno,
                sst.largest_seqno,
                sst.smallest_key,
                sst.largest_key,
                sst.oldest_blob_file_number,
            )
            for sst in ssts
        ]
        assert family.blobs == [
            (
                blob.number,
                blob.total_count,
                blob.total_bytes,
                blob.garbage_count,
                blob.garbage_bytes,
            )
            for blob in state.blob_files
            if blob.column_family_id == family.id
        ]
    assert numbers == {
        # Recovery, which ldb does, takes one number for its own next MANIFEST.
        "next_file_number": state.next_file_number + 1,
        "last_sequence": state.last_sequence,
        "max_column_family": state.max_column_family,
        "min_log_number_to_keep": state.min_log_number_to_keep,
    }
    assert state.valid_bytes == state.file_size == manifest_of(path).stat().st_size


def test_closed_database_has_exactly_the_live_files(busy: Path) -> None:
    state = _core.read_manifest(manifest_of(busy))
    assert [cf.name for cf in state.column_families] == ["default", "users"]
    assert state.db_id == (busy / "IDENTITY").read_text().strip()
    on_disk = {int(path.stem): path.stat().st_size for path in files(busy, ".sst")}
    assert {sst.number: sst.size for sst in state.sst_files} == on_disk
    blobs = {int(path.stem): path for path in files(busy, ".blob")}
    assert blobs.keys() == {blob.number for blob in state.blob_files}
    for blob in state.blob_files:
        assert blob.total_count == _core.read_blob_file(blobs[blob.number]).blob_count
        assert blob.total_bytes < blobs[blob.number].stat().st_size
    assert any(blob.garbage_count for blob in state.blob_files)
    assert len({sst.level for sst in state.sst_files}) > 1
    for sst in state.sst_files:
        properties = _core.sst_properties(busy / f"{sst.number:06}.sst")
        assert properties.column_family_id == sst.column_family_id
        assert properties.file_creation_time == sst.file_creation_time
        assert (sst.path_id, sst.file_checksum, sst.file_checksum_func_name) == (0, b"", "")
        assert len(sst.unique_id) == 16
        assert sst.epoch_number > 0


def test_against_an_open_database(tmp_path: Path) -> None:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    db = Rdict(str(tmp_path / "db"), options)
    for turn in range(30):
        for i in range(50):
            db[b"%d-%03d" % (turn % 3, i)] = b"%d" % turn
        db.flush()
        state = _core.read_manifest(manifest_of(tmp_path / "db"))
        # A compaction may finish between the two looks: the keys in the files stay the same.
        assert state.last_sequence == db.latest_sequence_number()
    db.compact_range(None, None)
    state = _core.read_manifest(manifest_of(tmp_path / "db"))
    live = {str(file["name"]).strip("/"): file for file in db.live_files()}
    assert {f"{sst.number:06}.sst": (sst.size, sst.level) for sst in state.sst_files} == {
        name: (file["size"], file["level"]) for name, file in live.items()
    }
    db.close()


def test_wal_numbers_of_a_crashed_database(crashed: Path) -> None:
    state = _core.read_manifest(manifest_of(crashed))
    wals = [int(path.stem) for path in files(crashed, ".log")]
    needed = [number for number in wals if number >= state.min_wal_number]
    assert needed
    last = max(_core.scan_wal(crashed / f"{number:06}.log").last_sequence or 0 for number in needed)
    assert last == state.last_sequence + 30


def test_custom_fields(tmp_path: Path) -> None:
    custom = (
        enc.field(3, (77).to_bytes(8, "little"))
        + enc.field(4, enc.varint(11))
        + enc.field(5, enc.varint(1000))
        + enc.field(6, enc.varint(2000))
        + enc.field(7, b"\x12\x34\x56\x78")
        + enc.field(8, b"FileChecksumCrc32c")
        + enc.field(9, b"\x0c")
        + enc.field(12, bytes(range(16)))
        + enc.field(13, enc.varint(9))
        + enc.field(14, enc.varint(1))
        + enc.field(33, b"ignorable")
        + enc.field(65, b"\x02")
    )
    state = _core.read_manifest(
        _write(tmp_path / "M", enc.base_edit(), enc.new_file(12, level=3, custom=custom))
    )
    (sst,) = state.sst_files
    assert (sst.number, sst.level, sst.size, sst.path_id) == (12, 3, 1012, 2)
    assert (sst.smallest_key, sst.largest_key) == (b"k", b"k")
    assert (sst.smallest_seqno, sst.largest_seqno) == (1, 2)
    assert sst.file_checksum == b"\x12\x34\x56\x78"
    assert sst.file_checksum_func_name == "FileChecksumCrc32c"
    assert (sst.oldest_ancester_time, sst.file_creation_time) == (1000, 2000)
    assert (sst.epoch_number, sst.temperature, sst.oldest_blob_file_number) == (9, 12, 11)
    assert sst.unique_id == bytes(range(16))
    assert state.min_log_number_to_keep == 77
    assert state.min_wal_number == 77


def test_every_other_field(tmp_path: Path) -> None:
    key = enc.text(enc.internal(b"a"))
    old_files = (
        enc.varint(7) + b"\0\x05\x64" + key + key
        + enc.varint(100) + b"\1\x06\x64" + key + key + b"\7\x08"
        + enc.varint(102) + b"\2\x07\1\x64" + key + key + b"\7\x08"
    )  # fmt: skip
    edit = (
        enc.field(8193, b"the-id")
        + enc.number(9, 3)
        + enc.number(10, 2)
        + enc.number(203, 6)
        + enc.varint(5) + b"\1" + key
        + old_files
        + enc.field(8198, b"timestamp")
        + enc.field(8201, b"\0")
        + enc.field(8202, b"subcompaction progress")
        + enc.field(8203, enc.varint(5))
        + enc.field((1 << 13) + 900, b"from the future")
    )  # fmt: skip
    wals = (
        enc.number(8196, 20) + b"\1"  # first version: no length
        + enc.field(8199, enc.varint(21) + b"\2" + enc.varint(500) + b"\1")
        + enc.field(8199, enc.varint(10) + b"\1")
    )  # fmt: skip
    state = _core.read_manifest(
        _write(tmp_path / "M", enc.base_edit(), edit, wals, enc.field(8200, enc.varint(20)))
    )
    assert (state.db_id, state.prev_log_number, state.max_column_family) == ("the-id", 3, 6)
    assert [(sst.number, sst.level, sst.path_id) for sst in state.sst_files] == [
        (5, 0, 0),
        (6, 1, 0),
        (7, 2, 1),
    ]
    (family,) = state.column_families
    assert family.full_history_ts_low == b"timestamp"
    assert not family.persist_user_defined_timestamps
    assert state.wals == {20: None, 21: 500}


def test_column_families_come_and_go(tmp_path: Path) -> None:
    def add(number: int, name: bytes) -> bytes:
        return enc.number(200, number) + enc.field(201, name)

    state = _core.read_manifest(
        _write(
            tmp_path / "M",
            enc.base_edit(log_number=9),
            add(1, b"one") + enc.number(2, 5),
            add(2, b"tw\xf6"),
            enc.number(200, 1) + enc.new_file(10),
            enc.number(200, 2) + enc.new_file(11),
            enc.number(200, 1) + enc.varint(202),
            enc.number(200, 2) + enc.number(2, 8),
        )
    )
    assert [(cf.id, cf.name) for cf in state.column_families] == [(0, "default"), (2, "tw\udcf6")]
    assert _numbers(state) == [11]
    assert state.max_column_family == 2
    assert state.min_wal_number == 8


def test_live_blob_files(tmp_path: Path) -> None:
    def blob(number: int, count: int = 10) -> bytes:
        return enc.number(400, number) + enc.varint(count) + enc.varint(100) + b"\0\0\0"

    def garbage(number: int, count: int) -> bytes:
        return enc.number(401, number) + enc.varint(count) + enc.varint(10 * count) + b"\0"

    linked = enc.field(4, enc.varint(22))
    path = tmp_path / "M"
    _write(
        path,
        enc.base_edit(),
        blob(21) + blob(22) + blob(23) + blob(24) + enc.new_file(30, custom=linked),
        garbage(24, 10) + garbage(23, 9),
    )
    # 21 is older than what any table refers to, 24 is all garbage.
    found = _core.read_manifest(path).blob_files
    assert [(file.number, file.garbage_count, file.garbage_bytes) for file in found] == [
        (22, 0, 0),
        (23, 9, 90),
    ]
    _write(path, enc.base_edit(), blob(21))
    assert _core.read_manifest(path).blob_files == ()
    for edit in (garbage(99, 1), blob(21) + garbage(21, 11), blob(21) + blob(21)):
        _write(path, enc.base_edit(), edit)
        with pytest.raises(_core.RocksDBFormatError, match="blob file"):
            _core.read_manifest(path)


def test_atomic_groups_are_applied_whole(tmp_path: Path) -> None:
    def member(remaining: int, number: int) -> bytes:
        return enc.number(300, remaining) + enc.new_file(number)

    group = [member(2, 10), member(1, 11), member(0, 12)]
    path = tmp_path / "M"
    _write(path, enc.base_edit(), *group, enc.new_file(13))
    assert _numbers(_core.read_manifest(path)) == [10, 11, 12, 13]

    _write(path, enc.base_edit(), *group[:2])
    state = _core.read_manifest(path)
    assert _numbers(state) == []
    assert state.valid_bytes == len(enc.log([enc.base_edit()]))
    with pytest.raises(_core.RocksDBFormatError, match="atomic group"):
        _core.read_manifest(path, allow_partial=False)

    for broken in (
        [group[0], group[2]],
        [group[0], enc.new_file(13)],
        [group[1], group[1]],
        [group[1], group[0]],
    ):
        _write(path, enc.base_edit(), *broken)
        with pytest.raises(_core.RocksDBFormatError, match="atomic group"):
            _core.read_manifest(path)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (enc.number(99, 1), "tag 99 is unknown"),
        (enc.new_file(5, custom=enc.field(70, b"")), "newer RocksDB"),
        (enc.new_file(5, custom=enc.field(65, b"\x04")), "path id"),
        (enc.new_file(5, custom=enc.field(4, b"")), "past its length"),
        (enc.new_file(5) + enc.new_file(5), "added twice"),
        (enc.varint(6) + b"\0\x05", "table file 5 is deleted"),
        (enc.new_file(5, level=1) + enc.varint(6) + b"\0\x05", "table file 5 is deleted"),
        (enc.number(200, 4) + enc.new_file(5), "column family 4"),
        (enc.field(201, b"default"), "added twice"),
        (enc.varint(202), "default column family is dropped"),
        (enc.varint(2) + b"\xff" * 10, "64 bits"),
        (enc.varint(203) + b"\xff\xff\xff\xff\x7f", "32 bits"),
        (enc.varint(1) + enc.varint(500) + b"short", "past the end"),
        (enc.varint(8999), "past the end"),
        (enc.field(8199, b"\1"), "past its length"),
        (enc.varint(103) + b"\0\5\6" + enc.text(b"short"), "internal key"),
    ],
)
def test_edits_that_cannot_be(tmp_path: Path, edit: bytes, problem: str) -> None:
    path = _write(tmp_path / "MANIFEST-000001", enc.base_edit(), edit)
    with pytest.raises(_core.RocksDBFormatError, match=problem) as caught:
        _core.read_manifest(path)
    assert caught.value.path == str(path)
    assert caught.value.offset == len(enc.log([enc.base_edit()]))


@pytest.mark.parametrize("edit", [b"", enc.number(2, 1), enc.number(2, 1) + enc.number(3, 9)])
def test_a_manifest_without_its_beginning(tmp_path: Path, edit: bytes) -> None:
    with pytest.raises(_core.RocksDBFormatError, match="MANIFEST has no"):
        _core.read_manifest(_write(tmp_path / "M", edit))
    with pytest.raises(_core.RocksDBFormatError, match="MANIFEST has no"):
        _core.read_manifest(_write(tmp_path / "M"))


def test_growing_manifest(tmp_path: Path) -> None:
    edits = [enc.base_edit(), *(enc.new_file(number, key=b"k" * 9000) for number in range(20, 40))]
    whole = enc.log(edits)
    ends = [len(enc.log(edits[:count])) for count in range(1, len(edits) + 1)]
    path = tmp_path / "M"
    for size in range(ends[0], len(whole), 997):
        path.write_bytes(whole[:size])
        state = _core.read_manifest(path)
        count = sum(end <= size for end in ends)
        assert state.valid_bytes == ends[count - 1]
        assert _numbers(state) == list(range(20, 20 + count - 1))
        if size not in ends:
            with pytest.raises(_core.RocksDBFormatError, match="the file ends inside"):
                _core.read_manifest(path, allow_partial=False)
    path.write_bytes(whole + bytes(100_000))
    state = _core.read_manifest(path)
    assert (state.valid_bytes, state.file_size) == (len(whole), len(whole) + 100_000)
    path.write_bytes(whole + bytes(100_000) + b"x")
    with pytest.raises(_core.RocksDBFormatError, match="data follows"):
        _core.read_manifest(path)


def test_one_large_edit(tmp_path: Path) -> None:
    """A new MANIFEST lists a column family's files in one record; here also one long key."""
    count = 50_000
    edit = b"".join(enc.new_file(number) for number in range(10, 10 + count))
    long_key = enc.new_file(5, key=b"x" * 2_000_000)
    path = _write(tmp_path / "M", enc.base_edit(), edit + long_key)
    state = _core.read_manifest(path)
    assert _numbers(state) == [5, *range(10, 10 + count)]
    assert len(state.sst_files[0].smallest_key) == 2_000_000
    assert state.sst_files is state.sst_files
    path = _write(tmp_path / "M", enc.base_edit(), enc.new_file(5, key=b"x" * (17 << 20)))
    with pytest.raises(_core.RocksDBFormatError, match="exceeds 16 MiB"):
        _core.read_manifest(path)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _core.read_manifest(tmp_path / "MANIFEST-000001")
