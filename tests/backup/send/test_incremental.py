"""A second backup sends what is new, and reads no more than it has to."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict, SstFileWriter

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _names
from tests.backup.conftest import Library, Make
from tests.backup.helpers import content_of, flipped, key_of, keys, stored_files, url
from tests.rocksdb import judges
from tests.support import databases
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def counted(
    s3_via_proxy: kumo_crt.S3Client, bucket: str, proxy: FaultProxy
) -> Iterator[kumo_crt.Repository]:
    """An empty repository, behind the proxy that counts requests."""
    with kumo_crt.Repository.create(url(bucket), client=s3_via_proxy) as created:
        yield created


def _sent(proxy: FaultProxy) -> int:
    return proxy.count("PUT", "/data/") + proxy.count("POST", "/data/")


@pytest.mark.parametrize("name", ["many_files", "blobs", "column_families"])
def test_nothing_has_changed(
    counted: kumo_crt.Repository, proxy: FaultProxy, make: Make, name: str
) -> None:
    path = make(name)
    first = counted.backup(path)
    assert _sent(proxy) == len(first.object_keys)
    proxy.requests.clear()
    second = counted.backup(path)
    assert _sent(proxy) == 0
    assert len(proxy.requests) <= 10, [f"{r.method} {r.target}" for r in proxy.requests]
    assert second.uploaded_bytes == 0
    assert second.files == first.files
    assert second.reused_bytes == sum(file.size for file in stored_files(second))
    assert counted.verify(second.id, level="full").ok


def test_nothing_has_changed_in_an_open_database(
    counted: kumo_crt.Repository, proxy: FaultProxy, make: Make
) -> None:
    db = Rdict(str(make("plain")), databases.options())
    try:
        first = counted.backup(db)
        proxy.requests.clear()
        second = counted.backup(db)
    finally:
        db.close()
    assert _sent(proxy) == 0
    assert len(proxy.requests) <= 10
    assert second.uploaded_bytes == 0
    assert second.sequence_number == first.sequence_number


def test_open_and_closed_are_the_same_database(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("blobs")
    first = repository.backup(path)
    db = Rdict(str(path), databases.options(blobs=True))
    try:
        second = repository.backup(db)
    finally:
        db.close()
    for kind in ("sst", "blob"):
        assert stored_files(second, kind) == stored_files(first, kind)
    assert second.db_id == first.db_id != ""


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_data_of_known_files_is_not_read(
    repository: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("large")
    first = repository.backup(path)
    data = [path / file.path for file in stored_files(first, "sst")]
    assert sum(file.stat().st_size for file in data) > 10 << 20
    read: list[Path] = []
    for name in ("sha256_of", "crc32c_of"):
        original = getattr(_names, name)

        def recorded(file: Path, original: Any = original) -> Any:
            read.append(file)
            return original(file)

        monkeypatch.setattr(_names, name, recorded)
    # Who reads the data now would find other data.
    for file in data:
        file.write_bytes(flipped(file.read_bytes(), 100_000))
    before = _bytes_read()
    second = repository.backup(path)
    assert _bytes_read() - before < 1 << 20
    assert [file for file in read if file.suffix == ".sst"] == []
    assert second.uploaded_bytes == 0
    assert stored_files(second, "sst") == stored_files(first, "sst")


def test_only_new_files_are_sent(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    before = keys(boto, bucket, "data/")
    db = Rdict(str(path), databases.options(small_files=True))
    databases.fill(db, 5_000, 5_050)
    db.flush()
    second = repository.backup(db)
    db.close()
    added = keys(boto, bucket, "data/") - before
    known = {file.key for file in first.files}
    new = [file for file in stored_files(second) if file.key not in known]
    assert added == {file.key for file in new}
    assert len([file for file in new if file.kind == "sst"]) == 1
    assert second.uploaded_bytes == sum(file.size for file in new)
    assert second.uploaded_bytes + second.reused_bytes == sum(
        file.size for file in stored_files(second)
    )
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == content_of(path)
    # The first is as it was, too.
    repository.restore(tmp_path / "older", first.id)
    assert len(content_of(tmp_path / "older")) == len(content_of(path)) - 50


def test_compacted_files_are_new_files(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    db = Rdict(str(path), databases.options(small_files=True))
    db.compact_range(None, None)
    db.close()
    second = repository.backup(path)
    assert not {f.key for f in stored_files(first, "sst")} & {
        f.key for f in stored_files(second, "sst")
    }
    for snapshot in (first, second):
        repository.restore(tmp_path / snapshot.id, snapshot.id)
    assert content_of(tmp_path / first.id) == content_of(tmp_path / second.id)


def test_several_databases_in_one_repository(
    counted: kumo_crt.Repository, proxy: FaultProxy, library: Library, make: Make, tmp_path: Path
) -> None:
    names = ("plain", "blobs", "many_files")
    paths = {name: make(name) for name in names}
    for name in names:
        counted.backup(paths[name])
    proxy.requests.clear()
    # Each has others' snapshots between its own.
    last = {name: counted.backup(paths[name]) for name in names}
    assert _sent(proxy) == 0
    assert len({snapshot.db_id for snapshot in last.values()}) == 3
    for name, snapshot in last.items():
        counted.restore(tmp_path / f"restored-{name}", snapshot.id)
        assert content_of(tmp_path / f"restored-{name}") == library.truth(name)


def _go_on(path: Path, odd: bytes) -> None:
    """The same writes, but for one value of the same length in the middle."""
    db = Rdict(str(path), databases.options(blobs=True))
    for number in range(1_000, 1_100):
        db[b"key-%08d" % number] = databases.value_of(number, 5_000)
    db[b"key-%08d" % 1_050] = odd * 5_000
    for number in range(2_000, 2_500):
        db[b"key-%08d" % number] = odd * 100
    db.close()


@pytest.mark.parametrize("copied", [False, True], ids=["restored", "copied"])
def test_databases_of_one_origin_do_not_get_each_others_files(
    repository: kumo_crt.Repository, make: Make, tmp_path: Path, copied: bool
) -> None:
    # They have the same database id, go on with the same file numbers and write files of the
    # same length.
    path = make("blobs")
    repository.backup(path)
    other = tmp_path / "other"
    if copied:
        shutil.copytree(path, other)
    else:
        repository.restore(other)
    _go_on(path, b"A")
    _go_on(other, b"B")
    first, second = repository.backup(path), repository.backup(other)
    assert first.db_id == second.db_id
    for snapshot, source in ((first, path), (second, other)):
        repository.restore(tmp_path / snapshot.id, snapshot.id)
        assert content_of(tmp_path / snapshot.id) == content_of(source)
    assert repository.verify(first.id, level="full").ok
    assert repository.verify(second.id, level="full").ok


def test_a_restored_database_is_known(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("many_files")
    first = repository.backup(path)
    repository.restore(path.with_name("restored"))
    second = repository.backup(path.with_name("restored"))
    assert second.uploaded_bytes == 0
    assert second.files == first.files
    assert second.db_id == first.db_id


def _external(path: Path, number: int, keys: int, value_size: int) -> Path:
    external = path / f"external-{number}.sst"
    writer = SstFileWriter(databases.options())
    writer.open(str(external))
    for key in range(number * keys, (number + 1) * keys):
        writer[b"key-%08d" % key] = databases.value_of(key, value_size)
    writer.finish()
    return external


def test_ingested_files_are_known_by_their_writer(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    externals = [str(_external(tmp_path, number, 100, 100)) for number in range(2)]
    snapshots = []
    for name in ("one", "two"):
        db = Rdict(str(tmp_path / name), databases.options())
        db.ingest_external_file(externals)
        db.close()
        snapshots.append(repository.backup(tmp_path / name))
    first, second = (stored_files(snapshot, "sst") for snapshot in snapshots)
    assert len(first) == len(second) == 2
    for file in first:
        name = r"data/[0-9a-f]{2}/sst-external-[A-Z0-9]{20}-[1-9]-\d+\.sst"
        assert re.fullmatch(name, key_of(file))
    # Two databases, one content, one object.
    assert {file.key for file in first} == {file.key for file in second}
    assert len({file.key for file in first}) == 2
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == content_of(tmp_path / "one")


def test_unchanged_ingested_files_are_hardly_read(
    repository: kumo_crt.Repository, tmp_path: Path
) -> None:
    db = Rdict(str(tmp_path / "db"), databases.options())
    db.ingest_external_file([str(_external(tmp_path, number, 50, 200_000)) for number in range(3)])
    db.close()
    first = repository.backup(tmp_path / "db")
    before = _bytes_read()
    assert repository.backup(tmp_path / "db").uploaded_bytes == 0
    assert first.total_bytes > 30_000_000
    assert _bytes_read() - before < first.total_bytes / 100


@pytest.mark.skipif(judges.LDB is None, reason="rocksdb-tools are not installed")
def test_files_that_ingestion_has_changed(repository: kumo_crt.Repository, tmp_path: Path) -> None:
    """What is one file to its writer may have another sequence number in it."""
    external = str(_external(tmp_path, 0, 100, 100))
    keys: list[str] = []
    for name, writes in (("one", 1), ("two", 2)):
        ldb = [str(judges.LDB), f"--db={tmp_path / name}"]
        put = [*ldb, "--create_if_missing", "put", "key-00000001"]
        ingest = [*ldb, "ingest_extern_sst", "--allow_global_seqno", "--write_global_seqno"]
        for command in [[*put, str(number)] for number in range(writes)] + [[*ingest, external]]:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        tables = [
            file
            for file in stored_files(repository.backup(tmp_path / name), "sst")
            if _core.sst_properties(tmp_path / name / file.path).global_seqno is not None
        ]
        keys += map(key_of, tables)
    assert len(set(keys)) == 2
    assert all(re.search(r"/sst-[0-9a-f]{64}-", key) for key in keys)


def test_ingested_files_that_an_earlier_version_named_by_content(
    repository: kumo_crt.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Rdict(str(tmp_path / "db"), databases.options())
    db.ingest_external_file([str(_external(tmp_path, 0, 100, 100))])
    db.close()
    with monkeypatch.context() as earlier:
        earlier.setattr(_names, "_WRITER", "another")
        (file,) = stored_files(repository.backup(tmp_path / "db"), "sst")
    assert re.search(r"/sst-[0-9a-f]{64}-", key_of(file))
    captured = CapturedFile(file.path, "sst", 9, tmp_path / "db" / file.path, file.size)
    assert _names.is_name_of(file, captured, None)
    captured.source.write_bytes(flipped(captured.source.read_bytes(), 100))
    assert not _names.is_name_of(file, captured, None)


def test_an_object_of_that_name_with_other_content_is_not_taken(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    # An unfinished backup's object that was damaged: no manifest names it.
    path = make("plain")
    planned = repository.backup(path, dry_run=True)
    wrong = stored_files(planned, "sst")
    for file in wrong:
        boto.put_object(
            Bucket=bucket,
            Key=f"kv/main/{file.key}",
            Body=b"?" * file.size,
            ChecksumAlgorithm="CRC32C",
        )
    snapshot = repository.backup(path)
    for file, taken in zip(stored_files(snapshot, "sst"), wrong, strict=True):
        assert key_of(file).endswith(f"/{key_of(taken).split('/')[2]}.{file.crc32c:08x}")
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == content_of(path)
