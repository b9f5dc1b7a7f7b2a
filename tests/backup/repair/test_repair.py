"""Damaged and lost objects come back from a database that still has the files."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.damaging import HOWS, damage, largest_table
from tests.backup.helpers import (
    content_of,
    delete,
    flipped,
    get,
    key_of,
    keys,
    put,
    replace_manifest,
    stored_files,
    tree,
    url,
)
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.servers("seaweed-http", "moto")
@pytest.mark.parametrize("how", HOWS)
def test_one_object(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    how: str,
) -> None:
    path = make("deletions")
    _, file, good = largest_table(repository, boto, bucket, path)
    bad = damage(boto, bucket, key_of(file), how)
    others = keys(boto, bucket, "data/")
    level = "full"  # moto keeps no checksums to compare

    planned = repository.repair(path, level=level, dry_run=True)
    assert planned.ok
    assert [item.key for item in planned.repaired] == [file.key]
    assert planned.uploaded_bytes == 0
    assert keys(boto, bucket, "quarantine/") == set()

    before = tree(path)
    report = repository.repair(path, level=level)
    assert report.ok
    assert tree(path) == before
    (item,) = report.repaired
    assert (item.key, item.path, item.size) == (file.key, file.path, file.size)
    assert item.kind == {"empty": "size"}.get(how, how)
    assert item.source == str(path / file.path)
    assert report.uploaded_bytes == file.size
    assert get(boto, bucket, key_of(file)) == good
    assert keys(boto, bucket, "data/") == others | {key_of(file)}
    if how == "missing":
        assert item.quarantine is None
        assert keys(boto, bucket, "quarantine/") == set()
    else:
        assert item.quarantine is not None
        assert item.quarantine.startswith("quarantine/" + key_of(file).rpartition("/")[2])
        assert get(boto, bucket, item.quarantine) == bad
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("deletions")


def test_every_kind_of_file(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("blobs")
    snapshot = repository.backup(path)
    files = stored_files(snapshot)
    for file in files:
        damage(boto, bucket, key_of(file), "missing")
    # A copy has other times, which are in the names of blob files.
    shutil.copytree(path, path.with_name("copy"), copy_function=shutil.copyfile)
    report = repository.repair(path.with_name("copy"))
    assert report.ok
    assert {item.path for item in report.repaired} == {file.path for file in files}
    assert repository.verify(level="full").ok


def test_large_objects(small_parts: kumo_crt.S3Client, boto: Any, bucket: str, make: Make) -> None:
    repository = kumo_crt.Repository.create(url(bucket), client=small_parts)
    path = make("large")
    file = stored_files(repository.backup(path))[0]
    assert file.size > 10_000_000
    damage(boto, bucket, key_of(file), "checksum")
    report = repository.repair(path)
    assert report.ok
    assert [item.kind for item in report.repaired] == ["checksum"]
    assert repository.verify(level="full").ok


@pytest.mark.usefixtures("each_alone")
def test_from_what_was_found_before(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    first, second, third = stored_files(snapshot, "sst")[:3]
    for file in (first, second):
        damage(boto, bucket, key_of(file), "missing")
    found = repository.verify()
    # One has come back by itself, and one was damaged that nobody has reported.
    put(boto, bucket, key_of(first), (path / first.path).read_bytes())
    damage(boto, bucket, key_of(third), "missing")
    report = repository.repair(path, problems=found.problems)
    assert [item.key for item in report.repaired] == [second.key]
    assert (report.sound, report.ok) == (1, True)
    assert [problem.key for problem in repository.verify().problems] == [third.key]


@pytest.mark.usefixtures("each_alone")
def test_files_that_are_not_the_wanted_ones(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    snapshot = repository.backup(path)
    flip, swap, short, gone, fifo, kept = stored_files(snapshot, "sst")[:6]
    for file in (flip, swap, short, gone, fifo, kept):
        damage(boto, bucket, key_of(file), "missing")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(path / kept.path, source)
    (source / flip.path).write_bytes(flipped((path / flip.path).read_bytes()))
    (source / swap.path).write_bytes((path / kept.path).read_bytes())
    (source / short.path).write_bytes((path / short.path).read_bytes()[:-1])
    os.mkfifo(source / fifo.path)
    (source / "directory.sst").mkdir()
    report = repository.repair(source)
    assert [item.key for item in report.repaired] == [kept.key]
    assert {problem.key for problem in report.remaining} == {
        file.key for file in (flip, swap, short, gone, fifo)
    }
    assert not report.ok
    assert all(problem.snapshots == (snapshot.id,) for problem in report.remaining)
    # Several sources: what one does not have, another may.
    assert repository.repair([source, path]).ok
    assert repository.verify(level="full").ok


def test_objects_of_old_snapshots(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    """From a copy that was restored, while its database is open and written to."""
    path = make("deletions")
    snapshot = repository.backup(path)
    repository.restore(tmp_path / "restored")
    db = Rdict(str(path), databases.options())
    databases.fill(db, 5_000, 5_100)
    db.compact_range(None, None)
    repository.backup(db)
    file = stored_files(snapshot, "sst")[0]
    assert not (path / file.path).exists()
    damage(boto, bucket, key_of(file), "checksum")
    assert not repository.repair(db).ok
    copy = Rdict(str(tmp_path / "restored"), databases.options(small_files=True))
    report = repository.repair([db, copy])
    assert [item.key for item in report.repaired] == [file.key]
    copy.close()
    db.close()


def test_what_cannot_be_repaired(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    snapshot = repository.backup(path)
    replace_manifest(boto, bucket, snapshot, b"{}")
    report = repository.repair(path)
    assert [problem.kind for problem in report.remaining] == ["manifest"]
    with pytest.raises(kumo_crt.RepositoryError, match="no such directory"):
        repository.repair(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="source"):
        repository.repair(17)
    with pytest.raises(ValueError, match="quick, stored, full"):
        repository.repair(path, level="restore")


def test_another_environment(s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make) -> None:
    path = make("plain")
    with kumo_crt.Repository.create(url(bucket), client=s3, environment="prod") as repository:
        file = stored_files(repository.backup(path))[0]
    damage(boto, bucket, key_of(file), "missing")
    with (
        kumo_crt.Repository.open(url(bucket), client=s3, environment="dev") as other,
        pytest.raises(kumo_crt.EnvironmentMismatchError),
    ):
        other.repair(path)
    assert key_of(file) not in keys(boto, bucket)


def test_it_is_remembered(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    file = stored_files(repository.backup(path), "sst")[0]
    while not repository.health()[0].damaged:
        damage(boto, bucket, key_of(file), "missing")
        assert not repository.verify().ok
    while repository.health()[0].damaged:  # by the second
        delete(boto, bucket, key_of(file))
        assert repository.repair(path).ok


def test_somebody_else_writes_to_the_key(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is replaced is what was looked at, or nothing is."""
    from kumo_crt.backup._repair import _replacing

    path = make("plain")
    _, file, good = largest_table(repository, boto, bucket, path)
    real = _replacing.put_aside
    for other in (good, b"something else"):
        damage(boto, bucket, key_of(file), "checksum")

        def aside(*arguments: Any, other: bytes = other) -> Any:
            result = yield from real(*arguments)
            put(boto, bucket, key_of(file), other)
            return result

        monkeypatch.setattr(_replacing, "put_aside", aside)
        if other == good:
            assert repository.repair(path).ok
        else:
            with pytest.raises(kumo_crt.IntegrityError, match="Somebody else"):
                repository.repair(path)
        assert get(boto, bucket, key_of(file)) == other


_KILLED = """
import os, signal, sys
import kumo_crt
from kumo_crt.backup._repair import _replacing
def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(_replacing, sys.argv[3], killed)
with kumo_crt.Repository.open(sys.argv[1]) as repository:
    repository.repair(sys.argv[2])
"""


@pytest.mark.parametrize("point", ["put_task", "_confirm"])
def test_killed(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
    point: str,
) -> None:
    path = make("plain")
    _, file, good = largest_table(repository, boto, bucket, path)
    bad = damage(boto, bucket, key_of(file), "checksum")
    arguments = (url(bucket), str(path), point)
    with start_python(_KILLED, *arguments, env=s3_server.environment()) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert get(boto, bucket, key_of(file)) == (bad if point == "put_task" else good)
    (aside,) = keys(boto, bucket, "quarantine/")
    assert get(boto, bucket, aside) == bad
    assert repository.repair(path).ok
    assert repository.verify(level="full").ok
