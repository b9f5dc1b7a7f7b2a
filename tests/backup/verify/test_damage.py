"""Damage in the repository: each level of verify finds what it promises, restore gives nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.backup.conftest import Make
from tests.backup.helpers import (
    PREFIX,
    delete,
    flipped,
    get,
    key_of,
    manifest_key,
    put,
    replace_manifest,
    stored_files,
    tree,
    url,
)

Damage = Callable[[Any, str, kumo_crt.SnapshotFile, kumo_crt.SnapshotFile], None]


def _flip(boto: Any, bucket: str, file: kumo_crt.SnapshotFile, _: kumo_crt.SnapshotFile) -> None:
    put(boto, bucket, key_of(file), flipped(get(boto, bucket, key_of(file))))


def _truncate(
    boto: Any, bucket: str, file: kumo_crt.SnapshotFile, _: kumo_crt.SnapshotFile
) -> None:
    put(boto, bucket, key_of(file), get(boto, bucket, key_of(file))[:-1])


def _empty(boto: Any, bucket: str, file: kumo_crt.SnapshotFile, _: kumo_crt.SnapshotFile) -> None:
    put(boto, bucket, key_of(file), b"")


def _lengthen(
    boto: Any, bucket: str, file: kumo_crt.SnapshotFile, _: kumo_crt.SnapshotFile
) -> None:
    put(boto, bucket, key_of(file), get(boto, bucket, key_of(file)) + b"x")


def _remove(boto: Any, bucket: str, file: kumo_crt.SnapshotFile, _: kumo_crt.SnapshotFile) -> None:
    delete(boto, bucket, key_of(file))


def _swap(
    boto: Any, bucket: str, file: kumo_crt.SnapshotFile, other: kumo_crt.SnapshotFile
) -> None:
    put(boto, bucket, key_of(file), get(boto, bucket, key_of(other)))


# Kind of problem that quick, stored and full report; None: not found at this level.
CASES: dict[str, tuple[Damage, tuple[str | None, str, set[str]]]] = {
    "flipped": (_flip, (None, "checksum", {"checksum"})),
    "truncated": (_truncate, ("size", "size", {"size", "checksum"})),
    "empty": (_empty, ("size", "size", {"size", "checksum"})),
    "longer": (_lengthen, ("size", "size", {"size", "checksum"})),
    "missing": (_remove, ("missing", "missing", {"missing"})),
    "another's content": (_swap, ("size", "size", {"size", "checksum"})),
}


def _restore_fails(
    repository: kumo_crt.Repository, tmp_path: Path, file: kumo_crt.SnapshotFile
) -> None:
    """Into nothing, and over a database: the error names the file, the target stays as it is."""
    target = tmp_path / "out" / "target"
    target.parent.mkdir()
    with pytest.raises(kumo_crt.IntegrityError, match=re.escape(file.path)) as caught:
        repository.restore(target)
    assert key_of(file) in str(caught.value)
    assert not target.exists()
    assert [p for p in target.parent.rglob("*") if p.name == "CURRENT" or ".part" in p.name] == []
    existing = next(path for path in tmp_path.iterdir() if (path / "CURRENT").exists())
    before = tree(existing)
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(existing, overwrite=True)
    assert tree(existing) == before


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("case", CASES)
def test_damaged_object(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    case: str,
) -> None:
    snapshot = repository.backup(make("deletions"))
    for level in ("quick", "stored", "full"):
        report = repository.verify(level=level)
        assert report.ok
        assert report.problems == ()
        assert report.files == len(stored_files(snapshot))
    file, *_, other = stored_files(snapshot, "sst")
    damage, (quick, stored, full) = CASES[case]
    damage(boto, bucket, file, other)
    for level, expected in (("quick", {quick}), ("stored", {stored}), ("full", full)):
        report = repository.verify(level=level)
        assert report.ok is (expected == {None})
        assert {problem.kind for problem in report.problems} <= expected
        for problem in report.problems:
            assert (problem.snapshot, problem.path, problem.key) == (
                snapshot.id,
                file.path,
                file.key,
            )
            assert key_of(file) in problem.message
    _restore_fails(repository, tmp_path, file)


@pytest.mark.servers("moto")
@pytest.mark.parametrize("case", ["flipped", "missing"])
def test_damaged_object_on_another_server(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    case: str,
) -> None:
    snapshot = repository.backup(make("deletions"))
    assert repository.verify(level="full").ok
    file, *_, other = stored_files(snapshot, "sst")
    CASES[case][0](boto, bucket, file, other)
    assert [p.path for p in repository.verify(level="full").problems] == [file.path]
    _restore_fails(repository, tmp_path, file)


@pytest.mark.servers("seaweed-http")
def test_every_kind_of_file_is_checked(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("blobs"))
    files = stored_files(snapshot)
    assert {"sst", "blob"} <= {file.kind for file in files}
    for file in files:
        _flip(boto, bucket, file, file)
    for level in ("stored", "full"):
        found = repository.verify(level=level).problems
        assert {problem.path for problem in found} == {file.path for file in files}


@pytest.mark.servers("seaweed-http")
def test_large_file_with_a_damaged_part(
    small_parts: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    repository = kumo_crt.Repository.create(url(bucket), client=small_parts)
    snapshot = repository.backup(make("large"))
    file = stored_files(snapshot)[0]
    content = get(boto, bucket, key_of(file))
    put(boto, bucket, key_of(file), flipped(content, len(content) - 100_000))
    assert [p.kind for p in repository.verify(level="full").problems] == ["checksum"]
    _restore_fails(repository, tmp_path, file)


@pytest.mark.servers("seaweed-http")
def test_stored_without_a_checksum(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, s3_server: Any
) -> None:
    snapshot = repository.backup(make("plain"))
    file = stored_files(snapshot)[0]
    content = get(boto, bucket, key_of(file))
    bare = s3_server.boto3_client(request_checksum_calculation="when_required")
    delete(boto, bucket, key_of(file))
    bare.put_object(Bucket=bucket, Key=f"{PREFIX}/{file.key}", Body=content)
    assert "ChecksumCRC32C" not in boto.head_object(
        Bucket=bucket, Key=f"{PREFIX}/{file.key}", ChecksumMode="ENABLED"
    )
    assert repository.verify(level="quick").ok
    (problem,) = repository.verify(level="stored").problems
    assert (problem.kind, problem.path) == ("unverifiable", file.path)
    assert "full" in problem.message
    assert repository.verify(level="full").ok


@pytest.mark.servers("seaweed-http")
def test_damaged_manifest(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    good = repository.backup(path)
    bad = repository.backup(path)
    key = manifest_key(bad)
    replace_manifest(boto, bucket, bad, flipped(get(boto, bucket, key), 30))
    for level in ("quick", "stored", "full"):
        report = repository.verify(level=level)
        assert [(p.kind, p.key, p.path) for p in report.problems] == [("manifest", key, "")]
    hint = rf"{re.escape(key)}.*\. Choose another snapshot \(kumo-crt snapshots tells them\)"
    with pytest.raises(kumo_crt.FormatError, match=hint):
        repository.restore(tmp_path / "restored")
    # The other one is as good as it was.
    repository.restore(tmp_path / "restored", good.id)


@pytest.mark.servers("seaweed-http")
def test_verify_of_nothing(repository: kumo_crt.Repository, make: Make) -> None:
    for snapshot in ("latest", "all"):
        with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no snapshot yet"):
            repository.verify(snapshot)
    repository.backup(make("one_key"))
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="20200101T000000Z-00000000"):
        repository.verify("20200101T000000Z-00000000")
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="no snapshot id"):
        repository.verify("../../etc/passwd")
    with pytest.raises(ValueError, match="quick, stored, full"):
        repository.verify(level="thorough")


@pytest.mark.servers("seaweed-http")
def test_bytes_read_are_told(repository: kumo_crt.Repository, make: Make) -> None:
    snapshot = repository.backup(make("plain"))
    size = sum(file.size for file in stored_files(snapshot))
    read = {level: repository.verify(level=level) for level in ("quick", "stored", "full")}
    assert {level: report.bytes_read for level, report in read.items()} == {
        "quick": 0,
        "stored": 0,
        "full": size,
    }
    assert all(report.snapshot == snapshot.id for report in read.values())
