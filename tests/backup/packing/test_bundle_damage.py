"""Bundles that are damaged, lost or half dead: told by file, and put together again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._repair import _rebuild
from tests.backup.conftest import Make
from tests.backup.damaging import damage
from tests.backup.helpers import (
    bundles_of,
    compact_tables,
    content_of,
    delete,
    get,
    key_of,
    keys,
    stored_files,
    write_tables,
)
from tests.backup.interleaving import without_waiting
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


def test_damage_is_told_by_file(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    file = stored_files(snapshot, "sst")[5]
    content = get(boto, bucket, key_of(file))
    damage(boto, bucket, key_of(file), "checksum", (file.offset or 0) + 100)
    assert repository.verify(level="quick").ok
    (stored, *more) = repository.verify(level="stored").problems
    assert len(more) == 39
    assert stored.kind == "checksum"
    (problem,) = repository.verify(level="full").problems
    assert (problem.kind, problem.path, problem.key) == ("checksum", file.path, file.key)
    assert problem.snapshots == (snapshot.id,)
    assert (problem.column_family, problem.smallest_key is not None) == ("default", True)
    with pytest.raises(kumo_crt.IntegrityError, match=file.path):
        repository.restore(tmp_path / "restored")
    # The file that is on the disk, and of the others what is good.
    good = tmp_path / "good"
    good.mkdir()
    shutil.copy(path / file.path, good)
    report = repository.repair(good)
    assert report.ok
    (repaired,) = report.repaired
    assert (repaired.key, repaired.files) == (file.key, 40)
    assert repaired.quarantine in keys(boto, bucket, "quarantine/")
    assert get(boto, bucket, key_of(file)) == content
    assert repository.verify(level="full").ok


@pytest.mark.parametrize("how", ["missing", "size"])
def test_whole_bundles_are_repaired(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    how: str,
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    (key,) = bundles_of(snapshot)
    content = get(boto, bucket, key)
    damage(boto, bucket, key, how)
    for level in ("quick", "stored", "full"):
        problems = repository.verify(level=level).problems
        assert {problem.kind for problem in problems} == {how}
        assert len({problem.path for problem in problems}) == 40
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(tmp_path / "restored")
    assert repository.repair(path, dry_run=True).ok
    assert repository.repair(path).ok
    assert get(boto, bucket, key) == content
    # Without a file, nothing can be done.
    delete(boto, bucket, key)
    next(path.glob("*.sst")).unlink()
    report = repository.repair(path)
    assert not report.ok
    assert len(report.remaining) == 40
    assert key not in keys(boto, bucket)


def _half_dead(repository: kumo_crt.Repository, path: Path) -> tuple[str, kumo_crt.Snapshot]:
    """A bundle of which a third belongs to no snapshot any more."""
    write_tables(path, 0, 60, value_size=2000)
    first = repository.backup(path)
    (key,) = bundles_of(first)
    compact_tables(path, 19)
    second = repository.backup(path)
    assert bundles_of(second) == {key}
    assert len([file for file in second.files if file.key == key]) == 40
    repository.delete_snapshot(first.id)
    return key, second


def test_half_dead_bundles_stay_and_are_told(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    key, second = _half_dead(repository, memory_path / "db")
    whole = next(file.stored.size for file in second.files if file.key == key)
    used = sum(file.size for file in second.files if file.key == key)
    with without_waiting():
        for dry_run in (True, False):
            report = repository.prune(dry_run=dry_run)
            assert report.wasted_bytes == whole - used > whole / 4
        repository.prune()
    assert keys(boto, bucket, "data/") == second.object_keys
    assert repository.verify(level="full").ok
    repository.restore(memory_path / "restored")
    assert content_of(memory_path / "restored") == content_of(memory_path / "db")


def test_lost_half_dead_bundles_are_repaired(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    """Nobody has the bytes that nobody names: others take their place, and the CRC32C is right."""
    key, second = _half_dead(repository, memory_path / "db")
    before = get(boto, bucket, key)
    # Damage where nothing is that a snapshot names: told, and no file is blamed.
    named = [file for file in second.files if file.key == key]
    start = min(file.offset or 0 for file in named)
    assert start > 100
    damage(boto, bucket, key, "checksum", 50)
    (problem,) = repository.verify(level="full").problems
    assert (problem.kind, problem.path, problem.key) == ("checksum", "", key)
    assert problem.snapshots == (second.id,)
    delete(boto, bucket, key)
    report = repository.repair(memory_path / "db")
    assert report.ok
    assert get(boto, bucket, key) != before
    for level in ("quick", "stored", "full"):
        assert repository.verify(level=level).ok
    repository.restore(memory_path / "restored")
    assert content_of(memory_path / "restored") == content_of(memory_path / "db")


def test_what_other_snapshots_need_is_repaired_too(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    path = memory_path / "db"
    write_tables(path, 0, 60, value_size=2000)
    first = repository.backup(path)
    (key,) = bundles_of(first)
    shutil.copytree(path, memory_path / "copy")
    compact_tables(path, 19)
    second = repository.backup(path)
    delete(boto, bucket, key)
    # The database has not all that the old snapshot needs.
    report = repository.repair(path, snapshot=second.id)
    assert not report.ok
    assert {name for problem in report.remaining for name in problem.snapshots} == {
        first.id,
        second.id,
    }
    assert repository.repair([path, memory_path / "copy"], snapshot=second.id).ok
    assert repository.verify(first.id, level="full").ok


def test_bundles_that_are_hardly_used_are_given_up(
    repository: kumo_crt.Repository, boto: Any, bucket: str, memory_path: Path
) -> None:
    path = memory_path / "db"
    write_tables(path, 0, 60, value_size=2000)
    first = repository.backup(path)
    compact_tables(path, 49)
    second = repository.backup(path)
    assert len([f for f in second.files if f.kind == "sst" and f.size < 10_000]) == 10
    assert not bundles_of(first) & second.object_keys
    third = repository.backup(path)
    assert third.uploaded_bytes == 0
    repository.delete_snapshot(first.id)
    with without_waiting():
        for _ in range(2):
            repository.prune()
    assert keys(boto, bucket, "data/") == second.object_keys
    assert repository.verify(level="full").ok


def test_filler_gives_any_crc() -> None:
    for head, tail, crc in ((0, 0, 0), (1, 5, 0xDEADBEEF), (4096, 100_000, 0xFFFFFFFF)):
        content = bytearray(databases.value_of(head, head + 4 + tail))
        room = head + 4
        content[head:room] = _rebuild._filler(content, room, crc)
        assert kumo_crt.crc32c(content) == crc
