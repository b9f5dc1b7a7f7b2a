"""What a restored database holds, and what its files say that RocksDB will find in them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._coordination._ledger import FamilyContent
from kumo_crt.backup._format._results import Snapshot

_BATCH = 1 << 20


def scan(database: Any, name: str) -> FamilyContent:
    """Reads a column family to its end; RocksDB checks every block of it."""
    family = database if name == "default" else database.get_column_family(name)
    entries = 0
    crc = 0
    batch = bytearray()
    pack = struct.Struct("<QQ").pack
    # Objects that rocksdict has pickled stay bytes: nothing that is stored may run code here.
    family.set_loads(bytes)
    try:
        # Not `items`: it ends at what RocksDB cannot read as if that were the end.
        reader = family.iter()
        reader.seek_to_first()
        while reader.valid():
            entries += 1
            key, value = reader.key(), reader.value()
            if type(key) is not bytes:
                key = _typed(key)
            if type(value) is not bytes:
                value = _typed(value)
            batch += pack(len(key), len(value))
            batch += key
            batch += value
            if len(batch) >= _BATCH:
                crc = _core.crc32c(batch, crc)
                batch = bytearray()
            reader.next()
        reader.status()  # raises what ended it
    finally:
        if family is not database:
            family.close()
    return FamilyContent(entries, _core.crc32c(batch, crc))


def _typed(value: object) -> bytes:
    """The bytes that stand for a number or text of rocksdict's own mode."""
    return f"{type(value).__name__} {value!r}".encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Expected:
    """What the files say that RocksDB will find in them.

    Attributes:
        tables: Entries in all tables.
        most: The most that each column family can have, with the logs.
        last_batch: The last sequence number in the logs, and how many operations its batch has.
    """

    tables: int
    most: Mapping[str, int]
    last_batch: tuple[int, int]

    def may_lack(self, snapshot: Snapshot) -> int:
        """By how much RocksDB may count fewer sequence numbers, with all batches replayed.

        A range deletion of an empty range takes a number when it is written, and none when it is
        replayed. The batch after it has its own number, so only the last one matters.
        """
        last, operations = self.last_batch
        return operations if last >= snapshot.sequence_number else 0


def expected(target: Path) -> Expected:
    state = _core.read_manifest(target / _core.read_current(target / "CURRENT"))
    logs = [_core.scan_wal(path) for path in target.glob("*.log")]
    # Of a compressed log only RocksDB knows how much is in it.
    unflushed = 0
    for log in logs:
        unflushed = unflushed + log.entries if not log.compressed else 1 << 62
    most = {family.id: unflushed for family in state.column_families}
    tables = 0
    for sst in state.sst_files:
        properties = _core.sst_properties(target / f"{sst.number:06d}.sst")
        tables += properties.num_entries
        most[sst.column_family_id] += properties.num_entries - properties.num_deletions
    return Expected(
        tables,
        {family.name: most[family.id] for family in state.column_families},
        max(((log.last_sequence or 0, log.last_entries) for log in logs), default=(0, 0)),
    )
