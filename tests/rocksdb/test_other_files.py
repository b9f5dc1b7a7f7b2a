"""Blob files, CURRENT and file names."""

from __future__ import annotations

import struct
from pathlib import Path

import awscrt.checksums
import pytest
from rocksdict import DBCompressionType, Rdict

from kumo_crt import _core

from . import encoding as enc
from .conftest import copy_live, files, manifest_of, table_options


def test_blob_files(tmp_path: Path) -> None:
    options = table_options(6)
    options.set_enable_blob_files(True)
    options.set_blob_compression_type(DBCompressionType.zstd())
    db = Rdict(str(tmp_path / "db"), options)
    family = db.create_column_family("cf", options)
    for i in range(37):
        family[b"%d" % i] = b"v" * 100
    family.flush()
    family.close()
    db.close()
    (blob,) = files(tmp_path / "db", ".blob")
    found = _core.read_blob_file(blob)
    assert (found.version, found.column_family_id, found.blob_count) == (1, 1, 37)
    assert (found.compression, found.closed, found.has_ttl) == ("ZSTD", True, False)
    assert found.file_size == blob.stat().st_size

    content = blob.read_bytes()
    blob.write_bytes(content[:-40])
    assert _core.read_blob_file(blob).blob_count is None
    assert not _core.read_blob_file(blob).closed
    blob.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(_core.RocksDBFormatError, match="footer's checksum"):
        _core.read_blob_file(blob)
    blob.write_bytes(b"x" + content)
    with pytest.raises(_core.RocksDBFormatError, match="not a blob file"):
        _core.read_blob_file(blob)
    blob.write_bytes(content[:4] + b"\2" + content[5:])
    with pytest.raises(_core.RocksDBFormatError, match="version 2"):
        _core.read_blob_file(blob)


def test_blob_file_with_time_to_live(tmp_path: Path) -> None:
    header = struct.pack("<IIIBBQQ", 0x00248F37, 1, 3, 1, 99, 10, 20)
    footer = struct.pack("<IQQQ", 0x00248F37, 1 << 33, 10, 20)
    footer += struct.pack("<I", enc.mask(awscrt.checksums.crc32c(footer)))
    path = tmp_path / "000001.blob"
    path.write_bytes(header + footer)
    found = _core.read_blob_file(path)
    assert (found.has_ttl, found.compression, found.blob_count) == (True, "", 1 << 33)


def test_current(busy: Path, tmp_path: Path) -> None:
    assert _core.read_current(busy / "CURRENT") == manifest_of(busy).name
    path = tmp_path / "CURRENT"
    for content in (
        b"",
        b"\n",
        b"MANIFEST-000005",
        b"MANIFEST-000005\n\n",
        b"MANIFEST-000005\r\n",
        b"MANIFEST-\n",
        b"MANIFEST-5x\n",
        b"MANIFEST--5\n",
        b"../MANIFEST-000005\n",
        b"MANIFEST-99999999999999999999999\n",
        b"MANIFEST-000005\0\n",
        b"MANIFEST-" + b"0" * 60 + b"5\n",
    ):
        path.write_bytes(content)
        with pytest.raises(_core.RocksDBFormatError, match="CURRENT must be"):
            _core.read_current(path)
    with pytest.raises(FileNotFoundError):
        _core.read_current(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        ("000012.sst", "sst", 12),
        ("7.ldb", "sst", 7),
        ("1234567.sst", "sst", 1234567),
        ("18446744073709551615.sst", "sst", 2**64 - 1),
        ("000013.blob", "blob", 13),
        ("000014.log", "wal", 14),
        ("MANIFEST-000005", "manifest", 5),
        ("OPTIONS-000007", "options", 7),
        ("OPTIONS-000007.dbtmp", "temp", 7),
        ("000009.dbtmp", "temp", 9),
        ("CURRENT", "current", None),
        ("IDENTITY", "identity", None),
        ("LOCK", "lock", None),
        ("LOG", "info_log", None),
        ("LOG.old", "info_log", None),
        ("LOG.old.1700000000", "info_log", 1700000000),
        ("", "other", None),
        (".sst", "other", None),
        ("x.sst", "other", None),
        ("+1.sst", "other", None),
        ("-1.sst", "other", None),
        (" 1.sst", "other", None),
        ("1.sst.tmp", "other", None),
        ("000012.sst\n", "other", None),
        ("dir/000012.sst", "other", None),
        ("18446744073709551616.sst", "other", None),
        ("MANIFEST-", "other", None),
        ("MANIFEST-5.bak", "other", None),
        ("CURRENT.bak", "other", None),
        ("OPTIONS-x", "other", None),
        ("LOG.old.x", "other", None),
        ("LOGBOOK", "other", None),
        ("rocksdict-config.json", "other", None),
        ("caf\udce9.sst", "other", None),
    ],
)
def test_file_names(name: str, kind: str, number: int | None) -> None:
    assert _core.classify_file(name) == (kind, number)


def test_names_of_a_real_database(crashed: Path, tmp_path: Path) -> None:
    kinds = {_core.classify_file(path.name)[0] for path in crashed.iterdir()}
    assert kinds == {
        "sst", "blob", "wal", "manifest", "options", "current", "identity", "info_log", "other"
    }  # fmt: skip
    other = [
        path.name for path in crashed.iterdir() if _core.classify_file(path.name)[0] == "other"
    ]
    assert other == ["rocksdict-config.json"]
    # A copy can be made of the very files that the classification names.
    copy = copy_live(crashed, tmp_path / "copy")
    assert _core.read_manifest(copy / _core.read_current(copy / "CURRENT")).sst_files
