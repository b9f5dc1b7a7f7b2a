"""Databases that keep their files in several directories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import DBPath, Options, Rdict

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import capture
from tests.backup.helpers import leftovers, tree
from tests.support import databases
from tests.support.databases import Entry

pytestmark = pytest.mark.servers("seaweed-http")


class Scattered:
    """A database in two directories, with its logs in a third one."""

    def __init__(self, path: Path, others: Path | None = None) -> None:
        self.path = path / "db"
        self.second = (others or path) / "second"
        self.logs = (others or path) / "logs"
        self.second.mkdir()
        self.db = Rdict(str(self.path), self.options(self.path, self.second))
        self.users = self.db.create_column_family("users", self.options(self.path, self.second))
        for start in range(0, 600, 200):
            databases.fill(self.db, start, start + 250, value_size=500)
            databases.fill(self.users, start, start + 250, value_size=500)
            self.db.flush()
            self.users.flush()
        self.db.compact_range(None, None)
        self.users.compact_range(None, None)
        databases.fill(self.db, 5_000, 5_050)
        databases.fill(self.users, 6_000, 6_050)
        self.truth = list(databases.entries(self.db))
        # All three are in use.
        assert any(self.path.glob("*.sst"))
        assert any(self.second.glob("*.sst"))
        assert any(self.logs.glob("*.log"))

    def options(self, *places: Path) -> Options:
        options = databases.options()
        options.set_wal_dir(str(self.logs))
        options.set_level_compaction_dynamic_level_bytes(False)
        options.set_target_file_size_base(64 << 10)
        options.set_max_bytes_for_level_base(100 << 10)
        options.set_db_paths([DBPath(str(place), 200 << 10) for place in places])
        return options

    def close(self) -> None:
        self.users.close()
        self.db.close()


def _closed(scattered: Scattered) -> Any:
    scattered.close()
    return scattered.path


_SOURCES: dict[str, Callable[[Scattered], Any]] = {
    "open": lambda scattered: scattered.db,
    "live": lambda scattered: scattered.path,
    "closed": _closed,
}


def _opened(path: Path, options: Options | None = None) -> list[Entry]:
    """What is in a database that is opened with given options, or with those it says itself."""
    if options is None:
        db = Rdict(str(path))
    else:
        db = Rdict(str(path), options, column_families={"users": options})
    try:
        return list(databases.entries(db))
    finally:
        db.close()


@pytest.mark.parametrize("kind", _SOURCES)
def test_a_restore_gathers_and_opens(
    repository: kumo_crt.Repository, tmp_path: Path, kind: str
) -> None:
    scattered = Scattered(tmp_path)
    snapshot = repository.backup(_SOURCES[kind](scattered), live=True)
    assert set(snapshot.column_families) == {"default", "users"}
    assert leftovers(tmp_path) == []
    before = tree(scattered.logs), tree(scattered.second)
    for number in range(2):
        target = tmp_path / f"restored-{number}"
        repository.restore(target)
        state = _core.read_manifest(target / (target / "CURRENT").read_text().strip())
        assert {sst.path_id for sst in state.sst_files} == {0}
        assert {f"{sst.number:06}.sst" for sst in state.sst_files} == {
            path.name for path in target.glob("*.sst")
        }
    # With the options that it carries itself, and with several directories again.
    assert _opened(tmp_path / "restored-0") == scattered.truth
    third = tmp_path / "third"
    third.mkdir()
    options = scattered.options(tmp_path / "restored-1", third)
    options.set_wal_dir(str(tmp_path / "restored-1"))
    assert _opened(tmp_path / "restored-1", options) == scattered.truth
    # The original's directories were not touched.
    assert (tree(scattered.logs), tree(scattered.second)) == before
    if kind != "closed":
        databases.fill(scattered.db, 7_000, 7_010)
        scattered.close()


@pytest.mark.parametrize("how", [{"overwrite": True}, {"delta": True}])
def test_logs_that_would_stay(
    repository: kumo_crt.Repository, tmp_path: Path, how: dict[str, bool]
) -> None:
    """RocksDB would replay newer logs into the restored database, and ignore its own."""
    logs, path = tmp_path / "logs", tmp_path / "db"
    logs.mkdir()
    options = databases.options()
    options.set_wal_dir(str(logs))
    db = Rdict(str(path), options)
    databases.fill(db, 0, 100)
    db.flush()
    databases.fill(db, 100, 120)
    snapshot = repository.backup(path, live=True)
    truth = list(databases.entries(db))
    databases.fill(db, 120, 150)
    # As a process that is killed leaves them.
    shutil.copytree(logs, tmp_path / "killed")
    db.close()
    shutil.rmtree(logs)
    (tmp_path / "killed").rename(logs)
    before = tree(path)
    for dry_run in (True, False):
        with pytest.raises(kumo_crt.RepositoryError, match=rf"{logs} \(wal_dir\).*elsewhere"):
            repository.restore(path, dry_run=dry_run, **how)  # type: ignore[arg-type]
    assert tree(path) == before
    assert leftovers(tmp_path) == []
    logs.rename(tmp_path / "elsewhere")
    logs.mkdir()
    assert repository.restore(path, **how).snapshot == snapshot.id  # type: ignore[arg-type]
    (log,) = path.glob("*.log")
    log.rename(logs / log.name)
    restored = Rdict(str(path), options)
    assert list(databases.entries(restored)) == truth
    restored.close()


@pytest.mark.parametrize("kind", _SOURCES)
def test_on_several_file_systems(
    repository: kumo_crt.Repository, tmp_path: Path, memory_path: Path, kind: str
) -> None:
    if tmp_path.stat().st_dev == memory_path.stat().st_dev:
        pytest.skip("needs /dev/shm to be another file system than the temporary directory's")
    scattered = Scattered(tmp_path, memory_path)
    repository.backup(_SOURCES[kind](scattered), live=True)
    assert leftovers(tmp_path) == leftovers(memory_path) == []
    repository.restore(tmp_path / "restored")
    assert _opened(tmp_path / "restored") == scattered.truth
    if kind != "closed":
        scattered.close()


def test_a_copy_is_not_completed_from_the_original(tmp_path: Path) -> None:
    """Its LOG names the original's directories, whose files may be other ones by now."""
    scattered = Scattered(tmp_path)
    scattered.close()
    shutil.copytree(scattered.path, tmp_path / "copy")
    with (
        pytest.raises(kumo_crt.RepositoryError, match=r"copy: .* [0-9]+\.sst, .* --data-path"),
        capture(tmp_path / "copy"),
    ):
        pass


@pytest.mark.parametrize("live", [False, True], ids=["closed", "live"])
def test_directories_that_nothing_names(tmp_path: Path, live: bool) -> None:
    scattered = Scattered(tmp_path)
    if not live:
        scattered.close()
    (scattered.path / "LOG").unlink()
    with (
        pytest.raises(
            kumo_crt.RepositoryError, match=r"[0-9]+\.sst, .*looked for in .* --data-path"
        ),
        capture(scattered.path, live=live),
    ):
        pass
    with (
        pytest.raises(kumo_crt.RepositoryError, match="nothing: no such directory"),
        capture(scattered.path, live=live, data_paths=[tmp_path / "nothing"]),
    ):
        pass
    named: list[str | Path] = [tmp_path, os.path.relpath(scattered.second)]
    with capture(scattered.path, live=live, data_paths=named) as taken:
        assert taken.scattered
        assert all(file.temporary for file in taken.files)
    if live:
        scattered.close()
    assert leftovers(tmp_path) == []


def test_a_directory_for_logs_that_is_gone(tmp_path: Path) -> None:
    scattered = Scattered(tmp_path)
    scattered.close()
    scattered.logs.rename(tmp_path / "elsewhere")
    with (
        pytest.raises(kumo_crt.RepositoryError, match=r"OPTIONS-[0-9]+ says \(wal_dir\)"),
        capture(scattered.path),
    ):
        pass


def test_a_directory_for_logs_that_only_the_process_knows(
    repository: kumo_crt.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its logs a backup would succeed, and lack what was not flushed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    options = databases.options()
    options.set_wal_dir("logs")
    db = Rdict(str(tmp_path / "db"), options)
    databases.fill(db, 0, 100)
    truth = list(databases.entries(db))
    for source, live in ((tmp_path / "db", True), (tmp_path / "copy", False)):
        if not source.exists():
            shutil.copytree(tmp_path / "db", source)
        with pytest.raises(kumo_crt.RepositoryError, match=r"'logs', as OPTIONS.*\(wal_dir\)"):
            repository.backup(source, live=live)
    assert repository.snapshots() == []
    repository.backup(db)
    db.close()
    repository.restore(tmp_path / "restored")
    restored = Rdict(str(tmp_path / "restored"), databases.options())
    assert list(databases.entries(restored)) == truth
    restored.close()


def test_a_checkpoint_stays_as_it_is(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    """Its OPTIONS names the logs of the original; only what is stored does not."""
    from rocksdict import Checkpoint

    options = databases.options()
    options.set_wal_dir(str(tmp_path / "logs"))
    db = Rdict(str(tmp_path / "db"), options)
    databases.fill(db, 0, 100)
    Checkpoint(db).create_checkpoint(str(tmp_path / "checkpoint"))
    before = tree(tmp_path / "checkpoint")
    repository.backup(tmp_path / "checkpoint")
    assert tree(tmp_path / "checkpoint") == before
    repository.restore(tmp_path / "restored")
    names = {path.name for path in (tmp_path / "restored").iterdir()}
    assert names == {path.name for path in (tmp_path / "checkpoint").iterdir()}
    for path in (tmp_path / "restored").glob("OPTIONS-*"):
        original = (tmp_path / "checkpoint" / path.name).read_text()
        assert "wal_dir" in original
        assert path.read_text() == "".join(
            line for line in original.splitlines(keepends=True) if "wal_dir" not in line
        )
    logs = tree(tmp_path / "logs")
    assert len(_opened(tmp_path / "restored")) == 100
    assert tree(tmp_path / "logs") == logs
    db.close()
