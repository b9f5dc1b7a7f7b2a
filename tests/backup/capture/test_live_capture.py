"""Captures of a database that another process writes to, all the time and in every way."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import Capture, _live, _logs, capture
from tests.backup.conftest import Make
from tests.backup.helpers import flipped, leftovers
from tests.rocksdb import judges
from tests.support import databases, live_writer
from tests.support.live_writer import Acknowledged
from tests.support.processes import environment, start_python

_ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def _writing(directory: Path, variant: str = "plain") -> Iterator[tuple[Path, Acknowledged]]:
    path, acknowledged = directory / "db", directory / "acknowledged"
    wal_dir = directory / "logs"
    wal_dir.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.live_writer", path, variant, acknowledged],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment({"LIVE_WRITER_WAL_DIR": str(wal_dir)}),
        cwd=_ROOT,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        told = Acknowledged(acknowledged)
        try:
            yield path, told
        finally:
            told.allow(1 << 40)
            process.stdin.close()
            code = process.wait(timeout=30)
        assert code == 0, "the writer failed: look at what it wrote"


def _materialize(taken: Capture, target: Path) -> Path:
    target.mkdir()
    for file in taken.files:
        assert file.source.stat().st_size == file.size
        os.link(file.source, target / file.path)
    return target


@dataclass
class _Seen:
    """What captures had in them."""

    last: list[int] = field(default_factory=list)  # numbers of their last batches
    manifests: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    logs: list[_core.WalInfo] = field(default_factory=list)
    tracked: int = 0  # those whose MANIFEST names logs


def _capture_and_check(
    path: Path, acknowledged: Acknowledged, variant: str, seen: _Seen, *, read_only: bool
) -> None:
    """Captures, opens and checks one state."""
    # More than it writes during a capture.
    acknowledged.allow(60)
    before = acknowledged.number()
    with capture(path, live=True) as taken:
        after = acknowledged.number()
        copy = _materialize(taken, path.with_name("copy"))
    for file in taken.files:
        seen.kinds.add(file.kind)
        if file.kind == "wal":
            seen.logs.append(_core.scan_wal(copy / file.path))
        elif file.kind == "manifest":
            seen.manifests.add(file.path)
            seen.tracked += bool(_core.read_manifest(copy / file.path).wals)
    assert any("manual_wal_flush" in text for text in taken.warnings) == (
        variant == "manual_wal_flush"
    )
    content = live_writer.read(copy, read_only=read_only)
    last = live_writer.check(content, variant)
    assert set(content) == set(taken.column_families)
    # Nothing that was safe before is missing; the writer is at most one batch ahead of its report.
    assert before <= last
    if variant != "manual_wal_flush":
        assert last <= after + 1
    seen.last.append(last)
    shutil.rmtree(copy)


def test_two_hundred_captures(tmp_path: Path) -> None:
    # The writer does not wait for slow readers: with sanitizers each takes longer than the last.
    count = 20 if {"TSAN_OPTIONS", "ASAN_OPTIONS"} & set(os.environ) else 200
    seen = _Seen()
    with _writing(tmp_path) as (path, acknowledged):
        for number in range(count):
            _capture_and_check(path, acknowledged, "plain", seen, read_only=number % 10 != 0)
        assert leftovers(tmp_path) == []
    assert seen.last == sorted(seen.last)
    assert len(set(seen.last)) > 0.75 * count


@pytest.mark.parametrize("variant", [name for name in live_writer.VARIANTS if name != "plain"])
def test_ways_to_run_a_database(tmp_path: Path, variant: str) -> None:
    seen = _Seen()
    with _writing(tmp_path, variant) as (path, acknowledged):
        for number in range(15):
            read_only = number % 5 != 0 and variant != "tracked_wals"
            _capture_and_check(path, acknowledged, variant, seen, read_only=read_only)
    assert seen.last == sorted(seen.last)
    assert seen.last[0] < seen.last[-1]
    # It was run in that way indeed.
    assert any(log.recycled for log in seen.logs) == (variant == "recycled")
    assert any(log.compressed for log in seen.logs) == (variant == "compressed_wal")
    assert ("blob" in seen.kinds) == (variant == "blobs")
    assert (len(seen.manifests) > 1) == (variant == "rolling")
    assert (not any(path.glob("*.log"))) == (variant == "wal_dir")
    assert any(path.glob("archive/*.log")) == (variant == "archiving")
    assert (seen.tracked > 0) == (variant == "tracked_wals")


@pytest.mark.skipif(judges.LDB is None, reason="needs ldb (rocksdb-tools)")
def test_rocksdbs_tools_accept_a_capture(tmp_path: Path) -> None:
    with _writing(tmp_path) as (path, _), capture(path, live=True) as taken:
        copy = _materialize(taken, tmp_path / "copy")
    judges.check_consistency(copy)
    for sst in copy.glob("*.sst"):
        judges.verify_checksums(sst)
    assert live_writer.check(live_writer.read(copy), "plain") > 0


@pytest.mark.servers("seaweed-http")
def test_backups_and_restores(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    snapshots, before = [], []
    with _writing(tmp_path) as (path, acknowledged):
        for _ in range(4):
            before.append(acknowledged.number())
            # Not in bundles, which are given up when little of them is left.
            snapshots.append(repository.backup(path, live=True, bundle_below=0))
    assert leftovers(tmp_path) == []
    assert repository.snapshots() == snapshots
    for snapshot, number in zip(snapshots, before, strict=True):
        target = tmp_path / snapshot.id
        repository.restore(target, snapshot.id)
        content = live_writer.read(target, read_only=False)
        assert live_writer.check(content, "plain") >= number
        assert set(content) == set(snapshot.column_families)
    for earlier, later in itertools.pairwise(snapshots):
        # There may be no table that outlived both, as the writer compacts all the time.
        kept = _tables(earlier) & _tables(later)
        assert later.reused_bytes >= sum(size for _, _, size in kept)
        assert {path for path, _, _ in kept} == {path for path, _, _ in _tables(earlier)} & {
            path for path, _, _ in _tables(later)
        }


def _tables(snapshot: kumo_crt.Snapshot) -> set[tuple[str, str | None, int]]:
    return {(file.path, file.key, file.size) for file in snapshot.files if file.kind == "sst"}


@pytest.mark.servers("seaweed-http")
def test_live_is_for_every_directory(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    """Whether a database is open need not be known: a closed one is locked as ever."""
    path = make("unflushed_wal")
    truth = databases.read_all(shutil.copytree(path, tmp_path / "copy"))
    closed = repository.backup(path, live=True)
    with pytest.raises(kumo_crt.RepositoryError, match="no CURRENT"):
        repository.backup(tmp_path, live=True)
    db = Rdict(str(path), databases.options())
    here = repository.backup(path, live=True)
    db[b"later"] = b"value"
    with pytest.raises(kumo_crt.RepositoryLockedError, match="in this process"):
        repository.backup(path)
    later = repository.backup(path, live=True)
    # Nothing of that took RocksDB's lock away.
    program = "import sys; from rocksdict import Rdict; Rdict(sys.argv[1])"
    with start_python(program, str(path)) as other:
        assert "lock" in other.communicate(timeout=30)[1].lower()
    db.close()
    for number, (snapshot, more) in enumerate(((closed, 0), (here, 0), (later, 1))):
        repository.restore(tmp_path / f"restored-{number}", snapshot.id)
        assert len(databases.read_all(tmp_path / f"restored-{number}")) == len(truth) + more


def _open_copy(make: Make) -> tuple[Path, Rdict]:
    path = make("blobs")
    db = Rdict(str(path), databases.options(blobs=True))
    databases.fill(db, 0, 10, value_size=2_000)
    db.flush()
    databases.fill(db, 10, 20)
    return path, db


def _damage_log(path: Path) -> str:
    log = max(path.glob("*.log"))
    with open(log, "r+b") as opened:
        opened.seek(50)
        opened.write(b"damage")
    return f"{log.name} cannot be read at offset 0"


def _damage_manifest(path: Path) -> str:
    manifest = path / (path / "CURRENT").read_text().strip()
    content = manifest.read_bytes()
    manifest.unlink()  # RocksDB goes on with its own
    manifest.write_bytes(flipped(content, 20))
    return "the database is damaged"


def _remove(pattern: str) -> Callable[[Path], str]:
    def remove(path: Path) -> str:
        file = min(path.glob(pattern))
        file.unlink()
        return f"the MANIFEST names {file.name}, and it is not there"

    return remove


def _truncate_table(path: Path) -> str:
    sst = min(path.glob("*.sst"))
    os.truncate(sst, sst.stat().st_size - 1)
    return f"{sst.name}: .* the MANIFEST says"


def _truncate_blob(path: Path) -> str:
    blob = min(path.glob("*.blob"))
    os.truncate(blob, blob.stat().st_size - 1)
    return f"{blob.name}: .* not whole"


def _remove_log(path: Path) -> str:
    for log in path.glob("*.log"):
        log.unlink()
    return "there is no write-ahead log [0-9]+ or later"


def _move_logs(path: Path) -> str:
    options = max(path.glob("OPTIONS-*"))
    text = options.read_text()
    options.write_text(text.replace("[DBOptions]", "[DBOptions]\n  wal_dir=/nowhere"))
    return f"{options.name} says .wal_dir., and there is no such directory"


@pytest.mark.parametrize(
    "damage",
    [
        _damage_log,
        _damage_manifest,
        _remove("*.sst"),
        _remove("*.blob"),
        _truncate_table,
        _truncate_blob,
        _remove_log,
        _move_logs,
    ],
)
def test_damage_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], str]
) -> None:
    monkeypatch.setattr(_live, "_ATTEMPTS", 8)
    path, db = _open_copy(make)
    try:
        expected = damage(path)
        with (
            pytest.raises(kumo_crt.RepositoryError, match=expected) as caught,
            capture(path, live=True),
        ):
            pass
        assert str(path) in str(caught.value)
        assert not isinstance(caught.value, kumo_crt.RepositoryLockedError)
    finally:
        with contextlib.suppress(Exception):
            db.close()
    assert leftovers(tmp_path) == []


def test_a_database_that_never_holds_still(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_ATTEMPTS", 5)
    path, db = _open_copy(make)
    names = iter(range(100))
    original = _logs.HeldLogs.cut

    def cut(logs: _logs.HeldLogs, first: int) -> _logs.CutLogs:
        db.create_column_family(f"family-{next(names)}", databases.options()).close()
        return original(logs, first)

    monkeypatch.setattr(_logs.HeldLogs, "cut", cut)
    with (
        pytest.raises(kumo_crt.RepositoryError, match=r"5 attempts; .*'family-4' was created"),
        capture(path, live=True),
    ):
        pass
    db.close()
    assert next(names) == 5
    assert leftovers(tmp_path) == []


def test_where_hard_links_are_impossible(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is copied then; what RocksDB deletes meanwhile is read to its end."""
    path, db = _open_copy(make)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with capture(path, live=True) as taken:
        db.compact_range(None, None)
        monkeypatch.undo()
        copy = _materialize(taken, path.with_name("copy"))
    truth = list(databases.entries(db))
    db.close()
    assert databases.read_all(copy) == truth


def test_options_that_lag_behind_for_good(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OPTIONS file of other column families delays a capture, and does not prevent it."""
    path, db = _open_copy(make)
    options = max(path.glob("OPTIONS-*"))
    text = options.read_text()
    options.write_text(text + text[text.index("[CFOptions") :].replace('"default"', '"gone"'))
    with capture(path, live=True) as taken:
        (found,) = (file for file in taken.files if file.kind == "options")
        assert found.source.read_text().count("[CFOptions") == 2
    db.close()


def test_no_open_files_are_left(make: Make) -> None:
    path, db = _open_copy(make)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with capture(path, live=True):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    db.close()
