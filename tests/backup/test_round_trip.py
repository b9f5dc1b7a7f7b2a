"""What is restored is what was backed up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from rocksdict import AccessType, Checkpoint, Options, Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, leftovers, stored_files, url
from tests.support import databases
from tests.support.processes import run_python

LDB = shutil.which("ldb")
SST_DUMP = shutil.which("sst_dump")


def _round_trip(
    repository: kumo_crt.Repository, source: Path, target: Path
) -> tuple[kumo_crt.Snapshot, kumo_crt.RestoreReport]:
    snapshot = repository.backup(source)
    assert repository.verify(snapshot.id, level="full").ok
    report = repository.restore(target, snapshot.id)
    assert leftovers(target.parent) == []
    return snapshot, report


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("name", databases.MAKERS)
def test_every_kind_of_database(
    repository: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "restored"
    snapshot, report = _round_trip(repository, make(name), target)
    assert {path.name for path in target.iterdir()} == {file.path for file in snapshot.files}
    for file in snapshot.files:
        content = (target / file.path).read_bytes()
        assert (len(content), kumo_crt.crc32c(content)) == (file.size, file.crc32c)
    assert report.files == len(snapshot.files)
    assert report.total_bytes == snapshot.total_bytes == sum(f.size for f in snapshot.files)
    assert report.downloaded_bytes == sum(f.size for f in stored_files(snapshot))
    assert report.kept_bytes == 0
    assert content_of(target) == library.truth(name)


@pytest.mark.servers("seaweed-https", "moto")
@pytest.mark.parametrize("name", ["column_families", "blobs", "unflushed_wal"])
def test_other_servers(
    repository: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path, name: str
) -> None:
    _round_trip(repository, make(name), tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth(name)


@pytest.mark.parametrize("name", ["large"])
def test_files_of_several_parts(
    small_parts: kumo_crt.S3Client,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    with kumo_crt.Repository.create(url(bucket), client=small_parts) as repository:
        snapshot, _ = _round_trip(repository, make(name), tmp_path / "restored")
    assert stored_files(snapshot)[0].size > 10 << 20
    assert content_of(tmp_path / "restored") == library.truth(name)


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("name", ["column_families", "blobs", "deletions", "many_files"])
@pytest.mark.skipif(SST_DUMP is None or LDB is None, reason="needs Debian's rocksdb-tools")
def test_rocksdb_s_own_tools_accept_it(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, name: str
) -> None:
    assert SST_DUMP is not None
    assert LDB is not None
    target = tmp_path / "restored"
    snapshot, _ = _round_trip(repository, make(name), target)
    ssts = [file.path for file in snapshot.files if file.kind == "sst"]
    assert ssts
    for sst in ssts:
        done = subprocess.run(
            [SST_DUMP, f"--file={target / sst}", "--command=verify"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "corrupt" not in (done.stdout + done.stderr).lower()
    done = subprocess.run(
        [LDB, f"--db={target}", "--ignore_unknown_options", "checkconsistency"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "OK" in done.stdout


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("name", ["plain", "unflushed_wal", "deletions"])
def test_sequence_number_is_rocksdb_s(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, name: str
) -> None:
    snapshot, _ = _round_trip(repository, make(name), tmp_path / "restored")
    db = Rdict(str(tmp_path / "restored"), databases.options())
    try:
        assert db.latest_sequence_number() == snapshot.sequence_number
    finally:
        db.close()


@pytest.mark.servers("seaweed-http")
def test_column_families_are_named(repository: kumo_crt.Repository, make: Make) -> None:
    snapshot = repository.backup(make("column_families"))
    assert sorted(snapshot.column_families) == ["default", "empty", "users"]


@pytest.mark.servers("seaweed-http")
def test_checkpoint_directory(
    repository: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path
) -> None:
    path = make("plain")
    checkpoint = tmp_path / "checkpoint"
    db = Rdict(str(path), databases.options())
    try:
        Checkpoint(db).create_checkpoint(str(checkpoint))
        # The database itself is open: that must not matter.
        _round_trip(repository, checkpoint, tmp_path / "restored")
    finally:
        db.close()
    assert content_of(tmp_path / "restored") == library.truth("plain")


@pytest.mark.servers("seaweed-http")
def test_a_database_with_rocksdict_s_own_types(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    db = Rdict(str(tmp_path / "typed"))
    truth: dict[str | int | bytes, object] = {
        "text": 1,
        7: "seven",
        b"bytes": 2.5,
        "list": [1, {"a": None}],
    }
    for key, value in truth.items():
        db[key] = value
    db.close()
    _round_trip(repository, tmp_path / "typed", tmp_path / "restored")
    db = Rdict(str(tmp_path / "restored"))
    try:
        assert dict(db.items()) == truth
    finally:
        db.close()


@pytest.mark.servers("seaweed-http")
def test_write_ahead_logs_in_another_directory(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    program = (
        "import os, sys; from tests.support import databases as d;"
        "o = d.options(); o.set_wal_dir(sys.argv[2]); db = d.Rdict(sys.argv[1], o);"
        "d.fill(db, 0, 100); db.flush(); d.fill(db, 100, 200); db.flush_wal(True); os._exit(0)"
    )
    root = str(Path(__file__).resolve().parents[2])
    logs = tmp_path / "logs"
    run_python(program, str(tmp_path / "db"), str(logs), env={"PYTHONPATH": root})
    assert list(logs.glob("*.log"))
    snapshot, _ = _round_trip(repository, tmp_path / "db", tmp_path / "restored")
    assert snapshot.sequence_number == 200
    shutil.rmtree(logs)
    assert len(databases.read_all(tmp_path / "restored")) == 200


@pytest.mark.servers("seaweed-http")
def test_a_link_to_a_database_on_another_file_system(
    repository: kumo_crt.Repository, library: Library, make: Make, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(make("plain"))
    _round_trip(repository, link, tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("plain")


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("mode", ["read_only", "secondary"])
def test_a_handle_that_cannot_write_is_refused(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, mode: str
) -> None:
    # A checkpoint through such a handle leaves out what is only in the write-ahead log.
    path = make("unflushed_wal")
    access = (
        AccessType.read_only() if mode == "read_only" else AccessType.secondary(str(tmp_path / "s"))
    )
    db = Rdict(str(path), Options(raw_mode=True), access_type=access)
    try:
        with pytest.raises(kumo_crt.RepositoryError, match="read-only"):
            repository.backup(db)
    finally:
        db.close()
    assert repository.snapshots() == []
