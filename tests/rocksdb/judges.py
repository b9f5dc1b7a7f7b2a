"""What RocksDB's own tools say about a file (Debian: `rocksdb-tools`)."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

LDB = shutil.which("ldb")
SST_DUMP = shutil.which("sst_dump")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def sst_properties(path: Path) -> dict[str, str]:
    """Returns the property lines of `sst_dump --show_properties`."""
    assert SST_DUMP is not None
    text = _run(SST_DUMP, f"--file={path}", "--show_properties", "--command=none")
    pairs = (line.split(":", 1) for line in text.splitlines() if ": " in line)
    return {name.strip().removeprefix("# "): value.strip() for name, value in pairs}


@dataclass
class DumpedFamily:
    """A column family in `ldb manifest_dump`."""

    name: str
    id: int
    log_number: int = 0
    comparator: str = ""
    # (level, number, size, smallest seqno, largest seqno, smallest key, largest key, blob file)
    ssts: list[tuple[int, int, int, int, int, bytes, bytes, int]] = field(default_factory=list)
    # (number, total count, total bytes, garbage count, garbage bytes)
    blobs: list[tuple[int, ...]] = field(default_factory=list)


_FAMILY = re.compile(r'-+ Column family "(.*)"  \(ID (\d+)\) -+')
_SST = re.compile(
    r" (\d+):(\d+)\[(\d+) \.\. (\d+)\]\['([0-9A-F]*)' seq:.* \.\. '([0-9A-F]*)' seq:[^\]]*\]"
    r"(?: blob_file:(\d+))?"
)
_BLOB = re.compile(
    r"blob_file_number: (\d+) total_blob_count: (\d+) total_blob_bytes: (\d+) .*"
    r"garbage_blob_count: (\d+) garbage_blob_bytes: (\d+)"
)
_NUMBERS = re.compile(r"(next_file_number|last_sequence|max_column_family|\w+_to_keep) (\d+)")


def manifest(path: Path) -> tuple[list[DumpedFamily], dict[str, int]]:
    """Returns the column families and the numbers that `ldb manifest_dump` prints."""
    assert LDB is not None
    families: list[DumpedFamily] = []
    numbers: dict[str, int] = {}
    level = 0
    for line in _run(LDB, "manifest_dump", f"--path={path}", "--hex").splitlines():
        if found := _FAMILY.match(line):
            families.append(DumpedFamily(found[1], int(found[2])))
        elif line.startswith("log number: "):
            families[-1].log_number = int(line.split(": ")[1])
        elif line.startswith("comparator: "):
            families[-1].comparator = line.split(": ")[1]
        elif line.startswith("--- level "):
            level = int(line.split()[2])
        elif found := _SST.match(line):
            number, size, first, last = (int(found[i]) for i in range(1, 5))
            keys = (bytes.fromhex(found[5]), bytes.fromhex(found[6]))
            families[-1].ssts.append((level, number, size, first, last, *keys, int(found[7] or 0)))
        elif found := _BLOB.match(line):
            families[-1].blobs.append(tuple(int(value) for value in found.groups()))
        elif line.startswith("next_file_number"):
            numbers = {name: int(value) for name, value in _NUMBERS.findall(line)}
    return families, numbers


def check_consistency(path: Path) -> None:
    """Lets `ldb` compare a database's files with its MANIFEST."""
    assert LDB is not None
    assert _run(LDB, "checkconsistency", f"--db={path}", "--ignore_unknown_options").strip() == "OK"


def verify_checksums(path: Path) -> None:
    """Lets `sst_dump` verify every block of a table file."""
    assert SST_DUMP is not None
    text = _run(SST_DUMP, f"--file={path}", "--command=verify")
    assert "The file is ok" in text, text
