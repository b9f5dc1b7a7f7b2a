"""Sealed archives that are damaged, tampered with, and repaired."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import IntegrityError, SnapshotFile, _core
from tests.backup.conftest import Library, Make
from tests.backup.damaging import forged
from tests.backup.helpers import content_of, delete, flipped, get, keys, put, stored_files
from tests.backup.packing.test_single_object import _two_families, archive_key
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

CHUNK = _core.SEALED_CHUNK + _core.SEALED_TAG
HEADER = _core.SEALED_HEADER


class Stored(NamedTuple):
    """Two archives of one repository, and in the first a file of many chunks and a small one."""

    key: str
    content: bytes
    large: SnapshotFile
    small: SnapshotFile
    log: SnapshotFile
    other: bytes
    other_large: SnapshotFile


def _chunk(file: SnapshotFile, number: int) -> tuple[int, int]:
    """Where a whole chunk of a file is in its archive."""
    start = (file.offset or 0) + HEADER + number * CHUNK
    return start, start + CHUNK


def _replaced(content: bytes, place: tuple[int, int], by: bytes) -> bytes:
    assert place[1] - place[0] == len(by)
    return content[: place[0]] + by + content[place[1] :]


def _swapped_within(stored: Stored) -> bytes:
    first, second = _chunk(stored.large, 1), _chunk(stored.large, 130)
    content = _replaced(stored.content, first, stored.content[slice(*second)])
    return _replaced(content, second, stored.content[slice(*first)])


def _of_another_archive(stored: Stored) -> bytes:
    """The chunk of the same number of a file that is almost the same."""
    chunk = stored.other[slice(*_chunk(stored.other_large, 1))]
    return _replaced(stored.content, _chunk(stored.large, 1), chunk)


def _of_another_file(stored: Stored) -> bytes:
    """The header, with the salt of the other archive's file."""
    start = stored.other_large.offset or 0
    place = (stored.large.offset or 0, (stored.large.offset or 0) + HEADER)
    return _replaced(stored.content, place, stored.other[start : start + HEADER])


def _forged_at(file: SnapshotFile, content: bytes) -> bytes:
    """What neither S3's checksum nor any in the manifest can tell."""
    start = file.offset or 0
    return forged(content, start, start + file.stored_size)


def _in_member(stored: Stored, name: str) -> int:
    with tarfile.open(fileobj=io.BytesIO(stored.content)) as tar:
        return tar.getmember(name).offset_data + 40


# What is done, which file it hits ("": none), and the kind of problem.
Damage = Callable[[Stored], bytes | None]
DAMAGE: dict[str, tuple[Damage, str | None, str]] = {
    "a bit of a large file": (
        lambda s: flipped(s.content, _chunk(s.large, 140)[0] + 100), "large", "checksum"),
    "a bit of a tag": (
        lambda s: flipped(s.content, _chunk(s.large, 0)[1] - 1), "large", "checksum"),
    "a bit of a sealed file's header": (
        lambda s: flipped(s.content, (s.large.offset or 0) + 20), "large", "checksum"),
    "a bit of a small file": (
        lambda s: flipped(s.content, (s.small.offset or 0) + 100), "small", "checksum"),
    "a bit of a log": (
        lambda s: flipped(s.content, (s.log.offset or 0) + s.log.stored_size - 1), "log",
        "checksum"),
    "a bit of a tar header": (
        lambda s: flipped(s.content, (s.large.offset or 0) - 512), "", "checksum"),
    "a bit of the padding": (
        lambda s: flipped(s.content, len(s.content) - 1), "", "checksum"),
    "a bit of the index": (
        lambda s: flipped(s.content, _in_member(s, "kumo-index.sealed")), "", "checksum"),
    "a bit of the guide": (
        lambda s: flipped(s.content, _in_member(s, "kumo-index.json")), "", "checksum"),
    "chunks in each other's place": (_swapped_within, "large", "checksum"),
    "a chunk of another archive": (_of_another_archive, "large", "checksum"),
    "a header of another archive": (_of_another_file, "large", "checksum"),
    "truncated": (lambda s: s.content[:-1], None, "size"),
    "half of it": (lambda s: s.content[: len(s.content) // 2], None, "size"),
    "grown": (lambda s: s.content + bytes(512), None, "size"),
    "another archive of the same size": (lambda s: s.other, None, "checksum"),
    "gone": (lambda s: None, None, "missing"),
}  # fmt: skip


def _database(path: Path, word: str) -> Path:
    """A table of 12 MiB, a small one, and a log."""
    original = path.with_name("original")
    db = Rdict(str(original), databases.options())
    databases.fill(db, 0, 600, value_size=20_000)
    db.flush()
    databases.fill(db, 1_000, 1_010)
    db[b"which"] = word.encode()
    db.flush()
    db[b"in the log"] = word.encode() * 50
    shutil.copytree(original, path)
    db.close()
    shutil.rmtree(original)
    return path


@pytest.fixture
def stored(encrypted: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path) -> Stored:
    """What is in the repository; the newest snapshot is of the second archive."""
    first = encrypted.backup(_database(tmp_path / "one", "one"), single_object=True)
    second = encrypted.backup(_database(tmp_path / "two", "fourteen"), single_object=True)
    encrypted.pin(first.id)
    tables = stored_files(first, "sst")
    other = get(boto, bucket, second.single_object or "")
    assert len(other) == stored_files(first)[0].stored.size
    return Stored(
        first.single_object or "",
        get(boto, bucket, first.single_object or ""),
        tables[0],
        tables[-1],
        stored_files(first, "wal")[0],
        other,
        stored_files(second, "sst")[0],
    )


def test_all_damage_is_told(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    stored: Stored,
    tmp_path: Path,
    alive: Callable[[], None],
) -> None:
    one, other = encrypted.snapshots()
    truth = content_of(tmp_path / "one")
    assert content_of(tmp_path / "two") != truth
    for name, (damage, where, kind) in DAMAGE.items():
        alive()
        content = damage(stored)
        assert content != stored.content
        delete(boto, bucket, stored.key)
        if content is not None:
            put(boto, bucket, stored.key, content)
        path = {"large": stored.large, "small": stored.small, "log": stored.log}.get(where or "")
        for repository in (encrypted, keyless):
            assert repository.verify("all", level="quick").ok is (kind == "checksum"), name
            assert not repository.verify("all", level="stored").ok, name
            problems = repository.verify("all", level="full").problems
            assert {p.key for p in problems} == {stored.key}, name
            assert {p.kind for p in problems} == {kind}, name
            assert {p.snapshots for p in problems} == {(one.id,)}, name
            if where is not None:
                assert [p.path for p in problems] == [path.path if path else ""], name
        target = tmp_path / f"restored, {name}"  # each by itself: restores keep what was good
        if where == "":
            encrypted.restore(target, one.id)  # what a restore reads is whole
            assert content_of(target) == truth
        else:
            with pytest.raises(IntegrityError, match=path.path if path else "archive-"):
                encrypted.restore(target, one.id)
            assert not target.exists()
            for left in tmp_path.glob(".restored, *"):
                shutil.rmtree(left)
    assert not encrypted.drill(one.id).ok
    # The other one is not touched by any of it.
    encrypted.restore(tmp_path / "restored", other.id)
    assert content_of(tmp_path / "restored") == content_of(tmp_path / "two")


@pytest.mark.parametrize("which", ["large", "small"])
def test_what_only_the_key_can_tell(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    stored: Stored,
    tmp_path: Path,
    which: str,
) -> None:
    one, _ = encrypted.snapshots()
    file = stored.large if which == "large" else stored.small
    put(boto, bucket, stored.key, _forged_at(file, stored.content))
    for level in ("quick", "stored", "full"):
        assert keyless.verify("all", level=level).ok
    (problem,) = encrypted.verify("all", level="full").problems
    assert (problem.key, problem.path, problem.kind) == (stored.key, file.path, "checksum")
    assert f"1 of {len([f for f in one.files if f.key])} files" in problem.message
    assert (
        f"{file.path} the first of them: it has the CRC32C that the manifest says, but chunk"
        in (problem.message)
    )
    assert "is not authentic" in problem.message
    assert problem.column_family == "default"
    with pytest.raises(IntegrityError, match=file.path):
        encrypted.restore(tmp_path / "target", one.id)
    assert not (tmp_path / "target").exists()


def test_whole_files_of_another_archive(
    encrypted: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    stored: Stored,
    tmp_path: Path,
) -> None:
    """Of the same size, and sealed with the same key."""
    one, two = encrypted.snapshots()
    (first,) = (f for f in one.files if f.kind == "manifest")
    (second,) = (f for f in two.files if f.kind == "manifest")
    assert (first.path, first.size, first.offset) == (second.path, second.size, second.offset)
    start = first.offset or 0
    place = (start, start + first.stored_size)
    put(boto, bucket, stored.key, _replaced(stored.content, place, stored.other[slice(*place)]))
    (problem,) = encrypted.verify("all", level="full").problems
    assert problem.path == first.path
    with pytest.raises(IntegrityError, match=first.path):
        encrypted.restore(tmp_path / "target", one.id, column_families=["default"])


# -- repair ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "forged", "header", "index", "missing", "shorter"])
def test_repair(
    encrypted: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path, place: str
) -> None:
    path = _two_families(tmp_path / "db")
    snapshot = encrypted.backup(path, single_object=True)
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    sst = stored_files(snapshot, "sst")[-1]
    if place == "missing":
        delete(boto, bucket, key)
    elif place == "shorter":
        put(boto, bucket, key, content[: len(content) // 2])
    elif place == "forged":
        put(boto, bucket, key, _forged_at(sst, content))
    else:
        places = {"file": (sst.offset or 0) + 1, "header": 0, "index": len(content) - 2500}
        put(boto, bucket, key, flipped(content, places[place]))
    # Of what is good no source is needed.
    source = tmp_path / "source"
    source.mkdir()
    if place not in ("header", "index"):
        report = encrypted.repair(source, level="full")
        assert not report.ok
        assert {problem.key for problem in report.remaining} == {key}
        for file in path.iterdir():
            if place in ("missing", "shorter") or file.name == sst.path:
                shutil.copy2(file, source)
    assert encrypted.repair(source, level="full", dry_run=True).ok
    report = encrypted.repair(source, level="full")
    assert report.ok, report.remaining
    (repaired,) = report.repaired
    assert (repaired.key, repaired.size) == (key, len(content))
    assert (repaired.quarantine is None) == (place == "missing")
    # The same bytes again: whoever knew the object still does.
    assert get(boto, bucket, key) == content
    assert encrypted.verify(level="full").ok


def test_a_large_archive_is_repaired(
    encrypted: kumo_crt.Repository,
    one_part_sealed: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    """In parts, from a restored copy."""
    snapshot = encrypted.backup(make("large"), single_object=True)
    key = archive_key(boto, bucket)
    content = get(boto, bucket, key)
    encrypted.restore(tmp_path / "copy")
    put(boto, bucket, key, flipped(content))
    assert one_part_sealed.repair(tmp_path / "copy", level="full").ok
    assert get(boto, bucket, key) == content
    assert keys(boto, bucket, "quarantine/")
    encrypted.restore(tmp_path / "restored", snapshot.id)
    assert content_of(tmp_path / "restored") == library.truth("large")
