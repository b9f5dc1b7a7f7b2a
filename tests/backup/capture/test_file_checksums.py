"""RocksDB's own checksums of whole files, from its flush to S3's disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import Capture, capture
from tests.backup.helpers import (
    PREFIX,
    flipped,
    keys,
    manifest,
    manifest_key,
    open_uploads,
    stored_files,
    url,
)
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def _make(path: Path, *, values: int = 30, value_size: int = 3_000, blobs: bool = True) -> Rdict:
    """An open database that records the CRC32C of its files: rocksdict has no setter for that."""
    Rdict(str(path), databases.options(blobs=blobs)).close()
    options = max(path.glob("OPTIONS-*"))
    text = options.read_text()
    old = "file_checksum_gen_factory=nullptr"
    assert old in text
    options.write_text(text.replace(old, "file_checksum_gen_factory=FileChecksumGenCrc32cFactory"))
    db = Rdict(str(path))
    for start in (0, 1_000):
        databases.fill(db, start, start + values, value_size=value_size)
        databases.fill(db, start + 500, start + 500 + values)
        db.flush()
    return db


def _tables(taken: Capture) -> dict[str, int | None]:
    return {file.path: file.checksum for file in taken.files if file.kind in ("sst", "blob")}


def _damage(path: Path, pattern: str) -> Path:
    file = min(path.glob(pattern))
    file.write_bytes(flipped(file.read_bytes(), 100))
    return file


def test_they_are_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "db"
    db = _make(path)
    with capture(db) as taken:
        found = _tables(taken)
        truth = {f.path: kumo_crt.crc32c(f.source.read_bytes()) for f in taken.files}
    assert {Path(name).suffix for name in found} == {".sst", ".blob"}
    assert found == {name: truth[name] for name in found}
    with capture(path, live=True) as taken:
        assert _tables(taken) == found
    db.close()
    with capture(path) as taken:
        assert _tables(taken) == found


@pytest.mark.parametrize("pattern", ["*.sst", "*.blob"])
@pytest.mark.parametrize("live", [False, True], ids=["closed", "live"])
def test_damage_on_the_disk(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    tmp_path: Path,
    pattern: str,
    live: bool,
) -> None:
    db = _make(tmp_path / "db")
    if not live:
        db.close()
    damaged = _damage(tmp_path / "db", pattern)
    with pytest.raises(kumo_crt.IntegrityError, match=f"{damaged}: has CRC32C"):
        repository.backup(tmp_path / "db", live=live)
    assert repository.snapshots() == []
    # What is damaged was not stored under the name of what is not.
    size = damaged.stat().st_size
    assert not any(f"-{size}{damaged.suffix}" in key for key in keys(boto, bucket, "data/"))
    if live:
        db.close()


def test_damage_in_a_file_of_many_parts(
    small_parts: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path
) -> None:
    db = _make(tmp_path / "db", values=600, value_size=20_000, blobs=False)
    db.close()
    damaged = _damage(tmp_path / "db", "*.sst")
    assert damaged.stat().st_size > 10_000_000
    with kumo_crt.Repository.create(url(bucket), client=small_parts) as repository:
        with pytest.raises(kumo_crt.IntegrityError, match=f"{damaged}: has CRC32C"):
            repository.backup(tmp_path / "db")
        assert repository.snapshots() == []
        # Another file's upload may stay, to be gone on with.
        own = f"-{int(damaged.stem)}-{damaged.stat().st_size}.sst"
        assert [key for key in open_uploads(boto, bucket) if key.endswith(own)] == []
        damaged.write_bytes(flipped(damaged.read_bytes(), 100))
        snapshot = repository.backup(tmp_path / "db")
        assert open_uploads(boto, bucket) == []
        assert repository.verify(level="full").ok
    assert damaged.name in {file.path for file in stored_files(snapshot, "sst")}


def test_what_a_manifest_claims_is_compared(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path
) -> None:
    """A file is not taken for stored where the repository knows it by another CRC32C."""
    _make(tmp_path / "db").close()
    first = repository.backup(tmp_path / "db")
    document = manifest(boto, bucket, first)
    wrong = next(file for file in document["files"] if file["kind"] == "sst")
    right = wrong["crc32c"]
    wrong["crc32c"] = "00000001"
    boto.put_object(
        Bucket=bucket,
        Key=f"{PREFIX}/{manifest_key(first)}",
        Body=json.dumps(document).encode(),
        ChecksumAlgorithm="CRC32C",
    )
    second = repository.backup(tmp_path / "db")
    found = {file.path: f"{file.crc32c:08x}" for file in second.files}
    assert found[wrong["path"]] == right
    assert repository.verify(second.id, level="full").ok


def test_other_functions_are_left_alone(tmp_path: Path) -> None:
    """A database without a factory, which is the default, has none."""
    db = Rdict(str(tmp_path / "db"), databases.options())
    databases.fill(db, 0, 10)
    db.close()
    with capture(tmp_path / "db") as taken:
        assert set(_tables(taken).values()) == {None}
    state = _core.read_manifest(tmp_path / "db" / (tmp_path / "db/CURRENT").read_text().strip())
    assert {sst.file_checksum_func_name for sst in state.sst_files} == {""}
