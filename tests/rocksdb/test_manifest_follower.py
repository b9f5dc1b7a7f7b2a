"""Following a MANIFEST that grows: the same files, and what happened in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import IngestExternalFileOptions, Rdict, SstFileWriter

from kumo_crt import _core

from . import encoding as enc
from .conftest import manifest_of, table_options


class _Follower:
    """Keeps account of what a follower tells, and compares it with what a fresh reader finds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._follower = _core.ManifestFollower(path)
        self.tables: dict[int, int] = {}

    def advance(self) -> _core.ManifestChanges:
        """The changes."""
        changes = self._follower.advance()
        for number in changes.removed_tables:
            self.tables.pop(number, None)  # it may have come and gone
        assert not self.tables.keys() & dict(changes.added_tables).keys()
        self.tables.update(changes.added_tables)
        state = _core.read_manifest(self._path)
        assert self.tables == {sst.number: sst.size for sst in state.sst_files}
        assert changes.blob_files == [blob.number for blob in state.blob_files]
        assert changes.valid_bytes == state.valid_bytes
        assert changes.needed_wal_number == state.needed_wal_number
        return changes


def _deleted(number: int, level: int = 0) -> bytes:
    return enc.varint(6) + enc.varint(level) + enc.varint(number)


def test_files_are_those_of_a_fresh_reader(tmp_path: Path) -> None:
    edits = [
        enc.base_edit(),
        enc.new_file(20) + enc.number(2, 7) + enc.number(10, 7),
        enc.number(200, 1) + enc.field(201, b"users"),
        *(enc.number(300, rest) + enc.new_file(30 + rest, key=b"k" * 9_000) for rest in (2, 1, 0)),
        enc.new_file(40, key=b"k" * 40_000),
        _deleted(20),
        _deleted(30) + enc.new_file(30, level=1),
        enc.new_file(50) + enc.number(200, 1),
        enc.number(200, 1) + enc.varint(202),
    ]
    whole = enc.log(edits)
    path = tmp_path / "MANIFEST-000001"
    sizes = [len(enc.log(edits[:1])), *range(len(enc.log(edits[:1])) + 1, len(whole), 777)]
    path.write_bytes(b"")
    follower = _Follower(path)
    total = 0
    for size in [*sizes, len(whole), len(whole), len(whole)]:
        path.write_bytes(whole[:size])
        total += follower.advance().edits
    assert total == len(edits)
    assert follower.advance().edits == 0


def test_pieces_of_every_size(tmp_path: Path) -> None:
    """Records end anywhere in a block, also where no header fits behind them."""
    edits = [enc.base_edit(), *(enc.new_file(n, key=b"k" * (n * 61)) for n in range(20, 60))]
    path = tmp_path / "M"
    path.write_bytes(b"")
    follower = _Follower(path)
    for count in range(1, len(edits) + 1):
        path.write_bytes(enc.log(edits[:count]))
        assert follower.advance().edits == 1
    assert len(follower.tables) == 40


@pytest.mark.parametrize(
    ("edit", "flushes", "ingestions", "removals"),
    [
        (enc.new_file(30) + enc.number(2, 9), 1, 0, 0),
        (enc.number(2, 9), 0, 0, 0),
        (_deleted(20) + _deleted(21) + enc.new_file(30, level=1), 0, 0, 0),
        (_deleted(20) + enc.new_file(20, level=6), 0, 0, 0),
        (enc.new_file(30), 0, 1, 0),
        (enc.new_file(30, level=6), 0, 1, 0),
        # Replaces a file by one with a newer sequence number: no compaction does that.
        (_deleted(20) + enc.new_file(30, largest=900), 0, 1, 0),
        (_deleted(20), 0, 0, 1),
        (_deleted(20) + _deleted(21), 0, 0, 1),
    ],
)
def test_what_happened(
    tmp_path: Path, edit: bytes, flushes: int, ingestions: int, removals: int
) -> None:
    path = tmp_path / "M"
    start = [enc.base_edit(), enc.new_file(20) + enc.new_file(21) + enc.number(2, 4)]
    path.write_bytes(enc.log(start))
    follower = _core.ManifestFollower(path)
    follower.advance()
    path.write_bytes(enc.log([*start, edit]))
    found = follower.advance()
    assert (found.edits, found.flushes, found.ingestions, found.removals) == (
        1,
        flushes,
        ingestions,
        removals,
    )


def test_needed_logs(tmp_path: Path) -> None:
    path = tmp_path / "M"
    edits = [enc.base_edit(log_number=4)]
    path.write_bytes(enc.log(edits))
    follower = _core.ManifestFollower(path)
    assert follower.advance().needed_wal_number == 4
    edits.append(enc.number(2, 9))
    path.write_bytes(enc.log(edits))
    assert follower.advance().needed_wal_number == 9
    # Two-phase commit: what is flushed may still be needed for a prepared transaction.
    edits.append(enc.number(10, 6))
    path.write_bytes(enc.log(edits))
    assert follower.advance().needed_wal_number == 6
    state = _core.read_manifest(path)
    assert (state.needed_wal_number, state.min_wal_number) == (6, 9)


def test_a_real_database(tmp_path: Path) -> None:
    db = Rdict(str(tmp_path / "db"), table_options(6))
    for key in (b"a", b"k", b"z"):  # overlapping, or the files would only be moved
        db[key] = b"1"
    db.flush()
    follower = _Follower(manifest_of(tmp_path / "db"))
    follower.advance()

    def since() -> tuple[object, ...]:
        found = follower.advance()
        return (
            found.families_added,
            found.families_dropped,
            found.flushes,
            found.ingestions,
            found.removals,
        )

    assert since() == ((), (), 0, 0, 0)
    db.create_column_family("users", table_options(6)).close()
    assert since() == (("users",), (), 0, 0, 0)
    db[b"b"] = db[b"k"] = b"2"
    db.flush()
    assert since() == ((), (), 1, 0, 0)
    db.compact_range(None, None)
    assert since() == ((), (), 0, 0, 0)
    assert len(follower.tables) == 1
    writer = SstFileWriter(table_options(6))
    writer.open(str(tmp_path / "ingested.sst"))
    writer[b"k"] = b"3"
    writer.finish()
    db.ingest_external_file([str(tmp_path / "ingested.sst")], IngestExternalFileOptions())
    assert since() == ((), (), 0, 1, 0)
    db.drop_column_family("users")
    assert since() == ((), ("users",), 0, 0, 0)
    db.close()


def test_errors(tmp_path: Path) -> None:
    path = tmp_path / "M"
    with pytest.raises(FileNotFoundError):
        _core.ManifestFollower(path).advance()
    path.write_bytes(enc.log([enc.base_edit(), enc.new_file(20)]))
    follower = _core.ManifestFollower(path)
    follower.advance()
    path.write_bytes(enc.log([enc.base_edit()]))
    with pytest.raises(_core.RocksDBFormatError, match="shorter than it was"):
        follower.advance()
    path.write_bytes(enc.log([enc.base_edit(), _deleted(20)]))
    with pytest.raises(_core.RocksDBFormatError, match="table file 20 is deleted"):
        _core.ManifestFollower(path).advance()
