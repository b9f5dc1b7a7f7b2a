"""A process that never leaves its database alone, and what may be in a state of it.

Every batch puts its number into every column family that there is, so that a reader can tell which
batches a state holds, and whether one is torn. What happens beside them happens at the end of a
turn of `TURN` batches and names the turn: so a state's number says what must be there.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rocksdict import (
    AccessType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
    WriteOptions,
)

from tests.support import databases

TURN = 3
STEADY = ("default", "left", "right")
_COUNTER = b"counter"
_CYCLE = 8
_CREATED, _SPECIAL, _DROPPED = 1, 3, 7
# Batches that the writer with a buffered log may keep to itself.
_UNFLUSHED = 4


def _recycle(options: Options) -> None:
    options.set_recycle_log_file_num(2)


def _wal_dir(options: Options) -> None:
    options.set_wal_dir(os.environ["LIVE_WRITER_WAL_DIR"])


def _blobs(options: Options) -> None:
    options.set_enable_blob_files(True)
    options.set_min_blob_size(500)
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(1.0)
    options.set_blob_gc_force_threshold(0.1)


def _rolling(options: Options) -> None:
    options.set_max_manifest_file_size(3_000)


def _atomic(options: Options) -> None:
    options.set_atomic_flush(True)


def _pipelined(options: Options) -> None:
    options.set_enable_pipelined_write(True)


def _unordered(options: Options) -> None:
    options.set_unordered_write(True)


def _archiving(options: Options) -> None:
    options.set_wal_ttl_seconds(3_600)


def _nothing(options: Options) -> None:
    pass


# Ways to run the database in, by name.
VARIANTS: dict[str, Callable[[Options], None]] = {
    "plain": _nothing,
    "recycled": _recycle,
    "wal_dir": _wal_dir,
    "blobs": _blobs,
    "rolling": _rolling,
    "atomic_flush": _atomic,
    "pipelined": _pipelined,
    "unordered": _unordered,
    "archiving": _archiving,
    # Options that rocksdict has no setter for: as texts in the OPTIONS file.
    "manual_wal_flush": _nothing,
    "compressed_wal": _nothing,
    "tracked_wals": _nothing,
    "unlogged": _nothing,
    "ingesting": _nothing,
}
_TEXTS = {
    "manual_wal_flush": ("manual_wal_flush=false", "manual_wal_flush=true"),
    "tracked_wals": (
        "track_and_verify_wals_in_manifest=false",
        "track_and_verify_wals_in_manifest=true",
    ),
    "compressed_wal": ("wal_compression=kNoCompression", "wal_compression=kZSTD"),
}


def _options(variant: str) -> Options:
    """Small memtables, and files that are compacted soon."""
    result = databases.options()
    result.set_write_buffer_size(64 << 10)
    result.set_level_zero_file_num_compaction_trigger(3)
    result.set_target_file_size_base(128 << 10)
    VARIANTS[variant](result)
    return result


def _open(path: str, variant: str) -> Rdict:
    options = _options(variant)
    if variant in _TEXTS:
        Rdict(path, options).close()
        newest = sorted(Path(path).glob("OPTIONS-*"))[-1]
        text = newest.read_text()
        old, new = _TEXTS[variant]
        assert old in text
        newest.write_text(text.replace(old, new))
        options, _ = Options.load_latest(path)
    return Rdict(path, options)


class Writer:
    """Writes numbered batches, flushes, compacts, creates and drops column families."""

    def __init__(self, path: str, variant: str, acknowledged: Path) -> None:
        self._variant = variant
        self._options = _options(variant)
        self.db = _open(path, variant)
        self._families: dict[str, Rdict] = {"default": self.db}
        for name in STEADY[1:]:
            self._families[name] = self.db.create_column_family(name, self._options)
        self._number = 0
        self._acknowledged = _shared(acknowledged)
        self._scratch = Path(tempfile.mkdtemp(dir=acknowledged.parent))

    def batch(self) -> None:
        """One atomic batch over all column families."""
        self._number += 1
        batch = WriteBatch(raw_mode=True)
        for name in self._families:
            handle = self.db.get_column_family_handle(name)
            batch.put(_COUNTER, b"%d" % self._number, handle)
            batch.put(b"%08d" % self._number, os.urandom(2_000), handle)
        self.db.write(batch)
        if self._variant == "manual_wal_flush":
            # Only now and then: in between, batches are in this process alone.
            if self._number % _UNFLUSHED:
                return
            self.db.flush_wal(False)
        self._acknowledged[:8] = struct.pack("<Q", self._number)

    def turn(self, turn: int) -> None:
        """A few batches and something that changes files."""
        while 0 < struct.unpack("<Q", self._acknowledged[8:])[0] <= self._number:
            time.sleep(0.001)
        for _ in range(TURN):
            self.batch()
        match turn % _CYCLE:
            case 1:
                name = f"passing-{turn}"
                self._families[name] = self.db.create_column_family(name, self._options)
            case 3:
                self._write_special(turn)
            case 4:
                self.db.flush()
            case 5:
                self._families["left"].flush()
            case 6:
                self.db.compact_range(None, None)
            case 7:
                for name in [name for name in self._families if name not in STEADY]:
                    self._families.pop(name).close()
                    self.db.drop_column_family(name)

    def _write_special(self, turn: int) -> None:
        """Data that does not go through the write-ahead log."""
        key = _special(turn)
        if self._variant == "unlogged":
            options = WriteOptions()
            options.disable_wal = True  # type: ignore[method-assign, assignment]
            self.db.put(key, b"", write_opt=options)
            self.db.flush()
        elif self._variant == "ingesting":
            file = self._scratch / f"{turn}.sst"
            writer = SstFileWriter(self._options)
            writer.open(str(file))
            writer[key] = b""
            writer.finish()
            self.db.ingest_external_file([str(file)], IngestExternalFileOptions())


def _special(turn: int) -> bytes:
    return b"special-%d" % turn


def _shared(path: Path) -> mmap.mmap:
    with open(path, "a+b") as opened:
        opened.truncate(16)
        return mmap.mmap(opened.fileno(), 16)


class Acknowledged:
    """The number of the last batch that the writer was told is safe, and how far it may go."""

    def __init__(self, path: Path) -> None:
        self._map = _shared(path)

    def allow(self, batches: int) -> None:
        """Lets the writer write so many more: it waits for slow readers, who have to read all."""
        self._map[8:] = struct.pack("<Q", self.number() + batches)

    def number(self) -> int:
        found: int = struct.unpack("<Q", self._map[:8])[0]
        return found


@dataclass
class Content:
    """What a column family holds.

    Attributes:
        counter: Number of the last batch; 0 before the first.
        numbers: Numbers of all batches, in order.
        others: Other keys.
    """

    counter: int
    numbers: list[int]
    others: set[bytes]


def read(path: Path, *, read_only: bool = True) -> dict[str, Content]:
    """What every column family of a closed database holds.

    Read-only, its files stay as they are; else RocksDB recovers it as it would for its application.
    RocksDB 9.8 crashes when it opens one with tracked logs read-only, also one that is closed.
    """
    plain = Options(raw_mode=True)
    plain.create_if_missing(False)
    names = Rdict.list_cf(str(path), plain)
    access = AccessType.read_only() if read_only else AccessType.read_write()
    db = Rdict(str(path), plain, column_families=dict.fromkeys(names, plain), access_type=access)
    try:
        return {
            name: _content(db if name == "default" else db.get_column_family(name))
            for name in names
        }
    finally:
        db.close()


def _content(family: Rdict) -> Content:
    keys = [key for key, _ in databases.pairs(family)]
    numbers = [int(key) for key in keys if key.isdigit()]
    return Content(
        int(family.get(_COUNTER) or 0),
        numbers,
        {key for key in keys if not key.isdigit() and key != _COUNTER},
    )


def check(content: Mapping[str, Content], variant: str) -> int:
    """Asserts that a state is one that the database was in; returns its last batch's number."""
    assert set(STEADY) <= set(content)
    last = content["default"].counter
    # What a crash would lose of the buffered log, while column families are never buffered.
    ahead = last + (_UNFLUSHED if variant == "manual_wal_flush" else 0)
    for name, family in content.items():
        first = 1
        if name not in STEADY:
            turn = int(name.removeprefix("passing-"))
            first = TURN * turn + 1
            assert turn % _CYCLE == _CREATED
            assert first - 1 <= ahead, (name, last)
            assert last <= TURN * (turn + _DROPPED - _CREATED), (name, last)
        # The batches are there without a hole up to the last one, which is the same everywhere.
        assert family.numbers == list(range(first, last + 1)), name
        assert family.counter == (last if family.numbers else 0), name
    for turn in range(_CREATED, last // TURN + 1, _CYCLE):
        dropped = TURN * (turn + _DROPPED - _CREATED)
        if TURN * turn < last and ahead < dropped:
            assert f"passing-{turn}" in content
    found = content["default"].others
    if variant in ("unlogged", "ingesting"):
        turns = range(_SPECIAL, last // TURN + 1, _CYCLE)
        assert {_special(turn) for turn in turns if TURN * turn < last} <= found
        assert found <= {_special(turn) for turn in turns}
    else:
        assert not found
    return last


def main(path: str, variant: str, acknowledged: str) -> None:
    """Writes until standard input ends."""
    writer = Writer(path, variant, Path(acknowledged))
    os.set_blocking(0, False)
    turn = 0
    while True:
        turn += 1
        writer.turn(turn)
        if turn == _CYCLE:
            print("ready", flush=True)
        try:
            if os.read(0, 1) == b"":
                return
        except BlockingIOError:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
