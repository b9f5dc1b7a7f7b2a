"""RocksDB databases with known, repeatable content, and a reader that compares them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

Entry = tuple[str, bytes, bytes]
# The newest SST format that Debian's rocksdb-tools 7.8 read.
_FORMAT_VERSION = 5


def options(*, blobs: bool = False, small_files: bool = False) -> Options:
    """Returns options for databases of plain bytes.

    Args:
        blobs: Keep values of 1 KiB and more in blob files.
        small_files: Small memtables and no compaction: many SSTs from little data.
    """
    result = Options(raw_mode=True)
    result.create_if_missing(True)
    result.set_compression_type(DBCompressionType.none())
    table = BlockBasedOptions()
    table.set_format_version(_FORMAT_VERSION)
    result.set_block_based_table_factory(table)
    if blobs:
        result.set_enable_blob_files(True)
        result.set_min_blob_size(1024)
    if small_files:
        result.set_disable_auto_compactions(True)
        result.set_write_buffer_size(64 * 1024)
        result.set_level_zero_slowdown_writes_trigger(10_000)
        result.set_level_zero_stop_writes_trigger(10_000)
    return result


def value_of(seed: int, size: int) -> bytes:
    """Returns bytes that depend on the seed alone and do not compress."""
    return random.Random(seed).randbytes(size)


def fill(db: Rdict, first: int, last: int, *, value_size: int = 200) -> None:
    """Writes the keys `first` to `last` - 1."""
    for number in range(first, last):
        db[b"key-%08d" % number] = value_of(number, value_size)


def make_plain(path: Path) -> None:
    """Two SSTs in the default column family."""
    db = Rdict(str(path), options())
    fill(db, 0, 2_000)
    db.flush()
    fill(db, 2_000, 4_000)
    db.close()


def make_column_families(path: Path) -> None:
    """Three column families; one of them is empty."""
    db = Rdict(str(path), options())
    fill(db, 0, 500)
    users = db.create_column_family("users", options())
    fill(users, 100, 900)
    db.create_column_family("empty", options()).close()
    users.close()
    db.close()


def make_deletions(path: Path) -> None:
    """Tombstones and a deleted range, in SSTs of their own, over keys in an older SST."""
    db = Rdict(str(path), options(small_files=True))
    fill(db, 0, 1_000)
    db.flush()
    for number in range(0, 1_000, 3):
        del db[b"key-%08d" % number]
    db.delete_range(b"key-%08d" % 500, b"key-%08d" % 600)
    db.close()


def make_blobs(path: Path) -> None:
    """Large values in blob files, small ones in the SST."""
    db = Rdict(str(path), options(blobs=True))
    fill(db, 0, 200)
    for number in range(200, 300):
        db[b"key-%08d" % number] = value_of(number, 20_000)
    db.close()


def make_unflushed_wal(path: Path) -> None:
    """A database whose process was killed: the newest writes are in the WAL alone."""
    # Closing would flush, so another process makes it and leaves without closing.
    program = (
        "import os, sys; from pathlib import Path; from tests.support import databases as d;"
        "db = d.Rdict(sys.argv[1], d.options()); d.fill(db, 0, 1000); db.flush();"
        "d.fill(db, 1000, 1500); db.flush_wal(True); os._exit(0)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", program, str(path)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
    )


def make_empty(path: Path) -> None:
    """No key at all."""
    Rdict(str(path), options()).close()


def make_one_key(path: Path) -> None:
    """One key."""
    db = Rdict(str(path), options())
    fill(db, 0, 1)
    db.close()


def make_many_files(path: Path) -> None:
    """Forty SSTs, never compacted, with overlapping keys."""
    db = Rdict(str(path), options(small_files=True))
    for round_number in range(40):
        for number in range(round_number, round_number + 50):
            db[b"key-%08d" % number] = value_of(1_000 * round_number + number, 500)
        db.flush()
    db.close()


MAKERS: dict[str, Callable[[Path], None]] = {
    "plain": make_plain,
    "column_families": make_column_families,
    "deletions": make_deletions,
    "blobs": make_blobs,
    "unflushed_wal": make_unflushed_wal,
    "empty": make_empty,
    "one_key": make_one_key,
    "many_files": make_many_files,
}


def make_many_tables(path: Path) -> None:
    """1,000 tables that do not overlap, of one entry each: more than a process may have open."""
    made = options()
    made.set_target_file_size_base(4096)
    db = Rdict(str(path), made)
    for half in (0, 1):  # a single table would only be moved
        for number in range(half, 1000, 2):
            db[b"%d" % number] = value_of(number, 5000)
        db.flush()
    db.compact_range(None, None)
    db.close()
    assert len(list(path.glob("*.sst"))) > 450


def pairs(family: Rdict) -> Iterator[tuple[bytes, bytes]]:
    """Yields every (key, value) of a column family, in key order."""
    for key, value in family.items():
        assert isinstance(key, bytes)  # raw mode
        yield key, value


def entries(db: Rdict) -> Iterator[Entry]:
    """Yields every (column family, key, value) of an open database, in key order."""
    for name in sorted(Rdict.list_cf(db.path(), Options(raw_mode=True))):
        family = db if name == "default" else db.get_column_family(name)
        for key, value in pairs(family):
            yield name, key, value


def read_all(path: Path) -> list[Entry]:
    """Returns every (column family, key, value) of a closed database.

    The database is opened for writing, so its WAL is replayed as an application would do it.
    """
    plain = options(blobs=True)
    plain.create_if_missing(False)
    families = dict.fromkeys(Rdict.list_cf(str(path), Options(raw_mode=True)), plain)
    db = Rdict(str(path), plain, column_families=families)
    try:
        return list(entries(db))
    finally:
        db.close()
