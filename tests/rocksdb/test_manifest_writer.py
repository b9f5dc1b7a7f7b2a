"""MANIFESTs with fewer column families, judged by RocksDB itself and by ldb."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rocksdict import Rdict

from kumo_crt import _core
from tests.support import databases

from . import encoding as enc
from . import judges
from .conftest import manifest_of

# Flushed and unflushed data in three column families, blobs among it; then the process dies.
_PROGRAM = """
import os, sys
from tests.support import databases as d
db = d.Rdict(sys.argv[1], d.options(blobs=True))
for number, name in enumerate(("default", "a", "b")):
    family = db if name == "default" else db.create_column_family(name, d.options(blobs=True))
    d.fill(family, 1000 * number, 1000 * number + 200)
    d.fill(family, 1000 * number + 200, 1000 * number + 210, value_size=5000)
    family.flush()
    d.fill(family, 1000 * number + 210, 1000 * number + 300)
db.flush_wal(True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crashed database with the column families default, a and b."""
    path = tmp_path_factory.mktemp("three") / "db"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    program = [sys.executable, "-c", _PROGRAM, str(path)]
    subprocess.run(program, check=True, env=environment, timeout=60)
    (path / "LOCK").unlink()
    return path


@pytest.fixture(scope="module")
def truth(three: Path, tmp_path_factory: pytest.TempPathFactory) -> list[databases.Entry]:
    """What is in it."""
    copy = tmp_path_factory.mktemp("truth") / "db"
    shutil.copytree(three, copy)
    return databases.read_all(copy)


@pytest.mark.parametrize("keep", [{0}, {1}, {2}, {1, 2}, {0, 2}, {0, 1, 2}, set()])
def test_rocksdb_opens_what_is_left(
    three: Path, truth: list[databases.Entry], tmp_path: Path, keep: set[int]
) -> None:
    name = manifest_of(three).name
    before = _core.read_manifest(three / name)
    logs = sorted(three.glob("*.log"))
    state = _core.keep_column_families(
        three / name, tmp_path / name, keep=keep, newest_wal=int(logs[-1].stem)
    )
    assert {sst.column_family_id for sst in state.sst_files} == keep
    assert {family.id for family in state.column_families} == keep | {0}
    assert state.last_sequence == before.last_sequence
    # Only the files of what is kept are there.
    numbers = [f"{sst.number:06d}.sst" for sst in state.sst_files]
    numbers += [f"{blob.number:06d}.blob" for blob in state.blob_files]
    for file in [*numbers, *(log.name for log in logs), "CURRENT"]:
        shutil.copy2(three / file, tmp_path)
    names = {family.name for family in before.column_families if family.id in keep}
    expected = [entry for entry in truth if entry[0] in names]
    for _ in range(2):  # the second time without write-ahead logs
        assert databases.read_all(tmp_path) == expected
    assert set(Rdict.list_cf(str(tmp_path))) == names | {"default"}


@pytest.mark.skipif(judges.LDB is None, reason="needs ldb (rocksdb-tools)")
def test_against_ldb(three: Path, tmp_path: Path) -> None:
    name = manifest_of(three).name
    state = _core.keep_column_families(three / name, tmp_path / name, keep={2}, newest_wal=99)
    families, _ = judges.manifest(tmp_path / name)
    kept = {family.name: family for family in families if family.ssts or family.name == "default"}
    assert [sst[1] for sst in kept["b"].ssts] == [sst.number for sst in state.sst_files]
    assert kept["default"].ssts == []
    assert kept["default"].log_number == max(
        100, _core.read_manifest(three / name).next_file_number
    )
    assert "a" not in kept


@pytest.mark.parametrize("files", [1, 2000, 9000])
@pytest.mark.parametrize("room", range(-1, 15, 3))
def test_framing_at_the_end_of_blocks(tmp_path: Path, files: int, room: int) -> None:
    """The records begin at any distance from the end of a block, and span several."""
    source = tmp_path / "MANIFEST-000001"
    edits = [
        enc.base_edit(next_file=100_000) + b"".join(map(enc.new_file, range(1000, 1000 + files)))
    ]
    edits += [
        enc.number(200, i) + enc.field(201, b"cf-%d" % i) + enc.field(1, enc.COMPARATOR)
        for i in (1, 2)
    ]
    padding = enc.BLOCK - len(enc.log(edits)) % enc.BLOCK - 7 - room
    if padding > 7:
        edits.append(enc.field(8192 + 99, b"x" * (padding - 7)))  # unknown, to be skipped
    source.write_bytes(enc.log(edits) + b"\x01\x02")  # the beginning of a record
    target = tmp_path / "MANIFEST-000002"
    state = _core.keep_column_families(source, target, keep={2}, newest_wal=7)
    assert [family.id for family in state.column_families] == [0, 2]
    assert state.sst_files == ()
    assert state.valid_bytes == state.file_size == target.stat().st_size
    assert target.read_bytes().startswith(enc.log(edits))
    again = _core.read_manifest(target, allow_partial=False)
    assert again.column_families[0].log_number == 100_000


def test_nothing_is_overwritten(three: Path, tmp_path: Path) -> None:
    target = tmp_path / "MANIFEST-000001"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        _core.keep_column_families(manifest_of(three), target, keep={0}, newest_wal=0)
    assert target.read_text() == "precious"


def test_damaged_source(tmp_path: Path) -> None:
    source = tmp_path / "MANIFEST-000001"
    source.write_bytes(enc.log([enc.number(2, 1)]))
    with pytest.raises(_core.RocksDBFormatError, match="no next file number"):
        _core.keep_column_families(source, tmp_path / "MANIFEST-2", keep={0}, newest_wal=0)
    assert not (tmp_path / "MANIFEST-2").exists()
