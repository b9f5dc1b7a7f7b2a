"""What cannot be backed up, and that a backup leaves nothing beside the database."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from rocksdict import AccessType, Rdict

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import capture
from kumo_crt.backup._capture._options import newest_options
from kumo_crt.backup._send import _upload
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Make
from tests.backup.helpers import flipped, keys, leftovers, tree
from tests.support import databases
from tests.support.processes import start_python

pytestmark = pytest.mark.servers("seaweed-http")


def _refused(
    repository: kumo_crt.Repository, source: object, match: str
) -> kumo_crt.RepositoryError:
    with pytest.raises(kumo_crt.RepositoryError, match=match) as caught:
        repository.backup(source)
    assert repository.snapshots() == []
    return caught.value


def test_nothing_there(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    error = _refused(repository, tmp_path / "nothing", "no such directory")
    assert str(tmp_path / "nothing") in str(error)
    _refused(repository, str(tmp_path / "nothing"), "no such directory")


@pytest.mark.parametrize("kind", ["empty", "other files", "a file", "CURRENT is a directory"])
def test_no_database(repository: kumo_crt.Repository, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source"
    if kind == "a file":
        path.write_text("text")
    else:
        path.mkdir()
    if kind == "other files":
        (path / "thesis.txt").write_text("text")
    elif kind == "CURRENT is a directory":
        (path / "CURRENT").mkdir()
    before = tree(tmp_path)
    message = "is no directory" if kind == "a file" else "there is no CURRENT file in it"
    _refused(repository, path, message)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("source", [5, None, b"/path", object(), ["/path"]])
def test_no_source_at_all(repository: kumo_crt.Repository, source: object) -> None:
    with pytest.raises(TypeError, match=r"rocksdict\.Rdict or a path"):
        repository.backup(source)


def test_open_in_this_process(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    path = make("plain")
    db = Rdict(str(path), databases.options())
    try:
        with pytest.raises(kumo_crt.RepositoryLockedError, match="pass the open Rdict"):
            repository.backup(path)
        databases.fill(db, 0, 10)
    finally:
        db.close()
    assert leftovers(tmp_path) == []
    repository.backup(path)


def test_open_in_another_process(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    program = """
        import sys
        from rocksdict import Options, Rdict
        db = Rdict(sys.argv[1], Options(raw_mode=True))
        print("open", flush=True)
        sys.stdin.read()
        db.close()
    """
    with start_python(program, str(path)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(kumo_crt.RepositoryLockedError, match="open in another process"):
            repository.backup(path)
        holder.communicate(timeout=30)
    assert keys(boto, bucket) == {"kumo-repository.json"}
    assert leftovers(tmp_path) == []
    repository.backup(path)


def test_a_closed_handle(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    db = Rdict(str(make("one_key")), databases.options())
    db.close()
    _refused(repository, db, "closed")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("beside_the_writer", [False, True])
@pytest.mark.parametrize("secondary", [False, True])
def test_a_handle_that_only_reads(
    repository: kumo_crt.Repository, tmp_path: Path, secondary: bool, beside_the_writer: bool
) -> None:
    """RocksDB makes checkpoints through it, without what is in the write-ahead log alone."""
    path = str(tmp_path / "database")
    writer = Rdict(path, databases.options())
    databases.fill(writer, 0, 100)
    if not beside_the_writer:
        writer.close()
    access = AccessType.secondary(str(tmp_path / "own")) if secondary else AccessType.read_only()
    reader = Rdict(path, databases.options(), access_type=access)
    _refused(repository, reader, "this Rdict is read-only or a secondary")
    reader.close()
    if beside_the_writer:
        writer.close()


@pytest.fixture
def unlocked(tmp_path: Path) -> Iterator[Rdict]:
    """An open database whose LOCK somebody has deleted: it looks like a checkpoint."""
    db = Rdict(str(tmp_path / "database"), databases.options())
    databases.fill(db, 0, 100)
    db.flush()
    (tmp_path / "database" / "LOCK").unlink()
    yield db
    db.close()


def test_changes_while_a_directory_without_a_lock_is_read(
    repository: kumo_crt.Repository, unlocked: Rdict, monkeypatch: pytest.MonkeyPatch
) -> None:

    def changing(directory: Path) -> Any:
        databases.fill(unlocked, 100, 200)
        unlocked.flush()
        return newest_options(directory)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("kumo_crt.backup._capture._state.newest_options", changing)
        _refused(repository, unlocked.path(), "changes while it is read, and has no LOCK")
    # Later changes than that do no harm, or are noticed.
    examine = _upload._examine

    def late(plan: Any) -> None:
        examine(plan)
        unlocked.create_column_family("late", databases.options()).close()

    monkeypatch.setattr(_upload, "_examine", late)
    with pytest.raises(kumo_crt.IntegrityError, match=r"MANIFEST-.* when the backup began"):
        repository.backup(unlocked.path())
    assert repository.snapshots() == []


def test_a_checkpoint_that_is_opened_is_captured_as_it_was(make: Make) -> None:
    path = make("plain")
    (path / "LOCK").unlink()
    current = (path / "CURRENT").read_bytes()
    with capture(path) as taken:
        Rdict(str(path), databases.options()).close()
        assert (path / "CURRENT").read_bytes() != current
        (file,) = (file for file in taken.files if file.kind == "current")
        assert file.source.read_bytes() == current


@pytest.mark.parametrize("single_object", [False, True])
def test_a_checkpoint_that_is_compacted_meanwhile(
    s3: kumo_crt.S3Client,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    single_object: bool,
) -> None:
    path = make("many_files")
    (path / "LOCK").unlink()

    def compact(_: int, sent: Sent) -> None:
        if "inflight/" in sent.key and sent.operation == "PutObject":
            for table in path.glob("*.sst"):
                table.unlink()

    with (
        watched(s3, compact),
        pytest.raises(kumo_crt.RepositoryError, match=r"\.sst: is gone: .*Nothing was committed"),
    ):
        repository.backup(path, single_object=single_object)
    assert repository.snapshots() == []
    assert keys(boto, bucket, "inflight/") == set()


def test_another_database_takes_its_place(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does when a new one is put in place by renaming."""
    path = make("plain")
    another = Path(shutil.copytree(path, path.with_name("another")))
    original = _core.scan_wal

    def replaced(log: Path) -> Any:
        found = original(log)
        if another.exists():
            path.rename(path.with_name("before"))
            another.rename(path)
        return found

    monkeypatch.setattr(_core, "scan_wal", replaced)
    _refused(repository, path, "another directory took its place")
    assert not another.exists()
    repository.backup(path)


@pytest.mark.parametrize("how", ["closed", "open", "live"])
def test_somebody_tries_to_open_it_meanwhile(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """What rocksdict keeps is written anew then, from its beginning, though the LOCK is held."""
    path = make("plain")
    config = path / "rocksdict-config.json"
    whole = config.read_bytes()
    db = None if how == "closed" else Rdict(str(path), databases.options())
    original = _core.read_manifest

    def tried(file: Path, *args: Any, **named: Any) -> Any:
        config.write_bytes(b"")
        Timer(0.02, config.write_bytes, [whole]).start()
        return original(file, *args, **named)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(_core, "read_manifest", tried)
        source = db if how == "open" else path
        snapshot = repository.backup(source, live=how == "live")
    if db is not None:
        db.close()
    (file,) = (file for file in snapshot.files if file.kind == "config")
    assert file.inline == whole


def test_can_be_opened_while_it_is_sent(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    written: list[int] = []

    def progress(done: int, total: int) -> None:
        if not written:
            db = Rdict(str(path), databases.options())
            databases.fill(db, 9_000, 9_100)
            db.compact_range(None, None)
            db.close()
            written.append(done)

    repository.backup(path, progress=progress)
    assert written
    repository.restore(tmp_path / "restored")
    restored = databases.read_all(tmp_path / "restored")
    assert len(restored) == len(databases.read_all(path)) - 100


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EROFS])
def test_where_hard_links_are_impossible(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    path = make("plain")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    locked: list[str] = []

    def progress(done: int, total: int) -> None:
        # The files are read in place then: nobody may open the database.
        if not locked:
            program = "import sys; from rocksdict import Rdict; Rdict(sys.argv[1])"
            with start_python(program, str(path)) as other:
                locked.append(other.communicate(timeout=30)[1])
            assert other.returncode != 0

    (warning,) = repository.backup(path, progress=progress).warnings
    assert "LOCK is held until all is sent" in warning
    assert f"cannot be linked ({os.strerror(code)})" in warning
    assert "lock" in locked[0].lower()
    assert leftovers(tmp_path) == []
    repository.restore(tmp_path / "restored")
    assert len(databases.read_all(tmp_path / "restored")) == 4_000
    Rdict(str(path), databases.options()).close()


def _manifest_of(path: Path) -> Path:
    return path / (path / "CURRENT").read_text().strip()


def _damage_manifest(path: Path) -> str:
    file = _manifest_of(path)
    file.write_bytes(flipped(file.read_bytes(), 20))
    return file.name


def _remove_manifest(path: Path) -> str:
    _manifest_of(path).unlink()
    return "MANIFEST"


def _empty_manifest(path: Path) -> str:
    file = _manifest_of(path)
    file.write_bytes(b"")
    return file.name


def _damage_current(path: Path) -> str:
    (path / "CURRENT").write_text("../MANIFEST-000005\n")
    return "CURRENT"


def _remove_sst(path: Path) -> str:
    sst = sorted(path.glob("*.sst"))[0]
    sst.unlink()
    return sst.name


def _truncate_sst(path: Path) -> str:
    sst = sorted(path.glob("*.sst"))[0]
    sst.write_bytes(sst.read_bytes()[:-1])
    return sst.name


def _remove_blob(path: Path) -> str:
    blob = sorted(path.glob("*.blob"))[0]
    blob.unlink()
    return blob.name


@pytest.mark.parametrize(
    "damage",
    [
        _damage_manifest,
        _remove_manifest,
        _empty_manifest,
        _damage_current,
        _remove_sst,
        _truncate_sst,
        _remove_blob,
    ],
)
@pytest.mark.parametrize("checkpoint", [False, True], ids=["database", "checkpoint"])
def test_damaged_database(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    damage: Any,
    checkpoint: bool,
) -> None:
    path = make("blobs")
    if checkpoint:
        (path / "LOCK").unlink()
    named = damage(path)
    before = tree(tmp_path)
    error = _refused(repository, path, named)
    assert str(path) in str(error)
    assert not isinstance(error, kumo_crt.RepositoryLockedError)
    assert tree(tmp_path) == before
    assert keys(boto, bucket) == {"kumo-repository.json"}


def test_a_damaged_log_is_told(repository: kumo_crt.Repository, make: Make, tmp_path: Path) -> None:
    """RocksDB opens such a database, with what was written before the damage."""
    path = make("unflushed_wal")
    log = max(path.glob("*.log"), key=lambda found: found.stat().st_size)
    assert repository.backup(path).warnings == ()
    log.write_bytes(flipped(log.read_bytes()))
    (warning,) = repository.backup(path).warnings
    assert warning.startswith(f"{log}: damaged at offset ")


def test_nothing_is_left_after_success_and_failure(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    before = tree(path)
    repository.backup(path)
    assert tree(path) == before
    db = Rdict(str(path), databases.options())
    repository.backup(db)
    names = {file.name for file in path.iterdir()}
    s3.close()
    for source in (db, path):
        with pytest.raises((ValueError, kumo_crt.KumoError)):
            repository.backup(source)
    db.close()
    assert leftovers(tmp_path) == []
    assert all(os.stat(path / name).st_nlink == 1 for name in names if name.endswith(".sst"))


def test_working_directories_of_others_stay(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    neighbour = tmp_path / ".plainer.kumo-capture-00000000"
    neighbour.mkdir()
    running: list[str] = []

    def progress(done: int, total: int) -> None:
        # A second backup while the first is under way: its files must stay.
        if not running:
            running.extend(leftovers(tmp_path))
            repository.backup(path)
            assert set(leftovers(tmp_path)) >= set(running)

    repository.backup(path, progress=progress)
    assert len(running) == 2
    assert leftovers(tmp_path) == [neighbour.name]
    assert repository.verify(level="full").ok
    shutil.rmtree(neighbour)
