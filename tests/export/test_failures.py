"""Exports and imports that cannot be, or are interrupted."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rocksdict import AccessType, Rdict

import kumo_crt
from kumo_crt import export
from tests.export.helpers import PLACE, keys, url
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


def test_there_is_one_already(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, made: str, database: Path
) -> None:
    before = keys(boto, bucket)
    with pytest.raises(kumo_crt.RepositoryError, match="there is an export here already"):
        export.export(database, made, client=s3)
    assert keys(boto, bucket) == before


_FEW_FILES = """
import resource, sys
from kumo_crt import export
resource.setrlimit(resource.RLIMIT_NOFILE, (450, 450))
assert export.export(sys.argv[1], sys.argv[2]).info.entries == 1000
"""


def test_more_tables_than_a_process_may_open(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    databases.make_many_tables(tmp_path / "db")
    arguments = (str(tmp_path / "db"), url(bucket))
    with start_python(_FEW_FILES, *arguments, env=s3_server.environment()) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_of_several_at_once_one_wins(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    def run(_: int) -> export.ExportInfo:
        return export.export(database, url(bucket), client=s3, live=True, file_bytes=20_000).info

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, number) for number in range(4)]
    failures = [found for found in (run.exception() for run in runs) if found is not None]
    won = [run.result() for run in runs if run.exception() is None]
    assert len(won) == 1
    assert all("there is an export here already" in str(failure) for failure in failures)
    assert set(keys(boto, bucket)) == {"kumo-export.json", *(file.key for file in won[0].files)}
    export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert databases.read_all(tmp_path / "copy") == databases.read_all(database)


@pytest.mark.parametrize("rate", [None, 500])
def test_an_interruption_leaves_nothing(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, rate: float | None
) -> None:
    """Nor does it wait for its turn in a budget: what waits there is not sent any more."""

    def progress(done: int, total: int) -> None:
        if done:  # at the first chance: later ones depend on time
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        export.export(
            database,
            url(bucket),
            client=s3,
            file_bytes=10_000,
            max_concurrency=1,
            max_bytes_per_second=rate,
            progress=progress,
        )
    assert time.monotonic() - begun < 10
    assert keys(boto, bucket) == []


def test_what_a_killed_one_left_is_removed(
    s3: kumo_crt.S3Client,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = """
        import os, signal, sys
        from kumo_crt import export
        def progress(done, total):
            if done:  # at the first chance: later ones depend on time
                os.kill(os.getpid(), signal.SIGKILL)
        export.export(sys.argv[1], sys.argv[2], file_bytes=10_000, progress=progress)
    """
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    environment = {**s3_server.environment(), "TMPDIR": str(tmp_path / "scratch")}
    with start_python(program, str(database), url(bucket), env=environment) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, errors
    assert list((tmp_path / "scratch").iterdir())
    left = keys(boto, bucket)
    assert left
    assert "kumo-export.json" not in left
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="there is no export here"):
        export.inspect(url(bucket), client=s3)
    # So it would be if it had been in the middle of a file; the other one is nothing of ours.
    for key in (f"{PLACE}files/0123456789abcdef/000000.sst", f"{PLACE}another"):
        boto.create_multipart_upload(Bucket=bucket, Key=key)
    info = export.export(database, url(bucket), client=s3).info
    assert set(keys(boto, bucket)) == {"kumo-export.json", *(file.key for file in info.files)}
    unfinished = boto.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [item["Key"] for item in unfinished] == [f"{PLACE}another"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_sources_that_cannot_be_exported(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    def refused(source: Any, match: str, **options: Any) -> None:
        with pytest.raises(kumo_crt.RepositoryError, match=match):
            export.export(source, url(bucket), client=s3, **options)

    refused(database, r"no column family 'users': it has 'default'", column_family="users")
    refused(tmp_path / "nothing", "no such directory")
    refused(tmp_path, "no database")
    own = Rdict(str(tmp_path / "own"))
    own["key"] = 1
    refused(own, "in rocksdict's own mode")
    own.close()
    refused(tmp_path / "own", "in rocksdict's own mode")
    refused(own, "pass the path")
    columns = Rdict(str(tmp_path / "columns"), databases.options())
    columns[b"a"] = b"1"
    columns.put_entity(b"b", names=[b"x", b"y"], values=[b"1", b"2"])
    refused(columns, r"the key b'b' has several columns")
    columns.close()
    with pytest.raises(TypeError, match="Rdict or a path"):
        export.export(5, url(bucket), client=s3)
    for wrong in ("exports/one", "http://x/y", "s3://"):
        with pytest.raises(ValueError, match="s3://bucket/prefix"):
            export.export(database, wrong, client=s3)
    assert keys(boto, bucket) == []


def test_values_with_a_time_to_live(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path
) -> None:
    """RocksDB writes a time behind each, which would be exported as a part of it."""
    db = Rdict(str(tmp_path / "db"), databases.options(), access_type=AccessType.with_ttl(3600))
    db[b"key"] = b"value"
    for source in (db, tmp_path / "db"):
        with pytest.raises(kumo_crt.RepositoryError, match=r"time to live .* not exported"):
            export.export(source, url(bucket), client=s3, live=True)
    db.close()
    assert keys(boto, bucket) == []


@pytest.mark.parametrize("is_open", [False, True], ids=["directory", "open"])
def test_what_cannot_be_read_is_not_the_end(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, tmp_path: Path, is_open: bool
) -> None:
    path = tmp_path / "db"
    db = Rdict(str(path), databases.options())
    for start in (0, 1000):
        databases.fill(db, start, start + 1000)
        db.flush()
    db.close()
    table = max(path.glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    source = Rdict(str(path), databases.options()) if is_open else path
    with pytest.raises(kumo_crt.RepositoryError, match=r"after the key b'.*checksum mismatch"):
        export.export(source, url(bucket), client=s3)
    assert export.export(source, url(bucket), client=s3, stop=b"key-00000050").info.entries == 50
    if isinstance(source, Rdict):
        source.close()


def test_what_a_killed_import_left_is_removed(
    s3: kumo_crt.S3Client, s3_server: S3Server, made: str, tmp_path: Path
) -> None:
    program = """
        import os, signal, sys
        from kumo_crt import export
        def progress(done, total):
            os.kill(os.getpid(), signal.SIGKILL)
        export.import_(sys.argv[1], sys.argv[2], progress=progress)
    """
    (tmp_path / "place").mkdir()
    target = tmp_path / "place" / "db"
    Rdict(str(target), databases.options()).close()
    with start_python(program, made, str(target), env=s3_server.environment()) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, errors
    assert len(list(target.parent.iterdir())) == 2
    export.import_(made, target, client=s3)
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_directory_that_was_there(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, made: str, tmp_path: Path
) -> None:
    lost, *_ = [key for key in keys(boto, bucket) if key.endswith(".sst")]
    boto.delete_object(Bucket=bucket, Key=f"{PLACE}{lost}")
    target = tmp_path / "target"
    target.mkdir(mode=0o750)
    link = tmp_path / "link"
    link.symlink_to(target)
    before = target.stat()
    for name in (target, link):
        with pytest.raises(kumo_crt.IntegrityError, match="missing"):
            export.import_(made, name, client=s3)
        assert list(target.iterdir()) == []
        assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)


def test_where_an_import_is_gathered(s3: kumo_crt.S3Client, made: str, tmp_path: Path) -> None:
    """On the database's own file system: beside it, or in it where that cannot be."""
    seen: list[Path] = []

    def look(done: int, total: int) -> None:
        seen.extend(tmp_path.rglob(".*kumo-import*"))

    elsewhere = tmp_path / "elsewhere" / "db"
    elsewhere.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    export.import_(made, link, client=s3, progress=look)
    assert {path.parent for path in seen} == {elsewhere.parent}
    seen.clear()
    # Nothing beside it can have a name that is longer still.
    target = tmp_path / ("n" * 250)
    export.import_(made, target, client=s3, progress=look)
    assert {path.parent for path in seen} == {target}
    assert [path for path in target.iterdir() if path.is_dir()] == []


def test_a_target_that_cannot_be_read_is_not_empty(
    s3: kumo_crt.S3Client, bucket: str, made: str, tmp_path: Path
) -> None:
    db = Rdict(str(tmp_path / "db"), databases.options())
    databases.fill(db, 0, 1000)
    db.close()
    table = min((tmp_path / "db").glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[100] ^= 1
    table.write_bytes(content)
    with pytest.raises(kumo_crt.RepositoryError, match=r"cannot be read: .*checksum mismatch"):
        export.import_(made, tmp_path / "db", client=s3)


def test_targets_that_cannot_be_imported_into(
    s3: kumo_crt.S3Client, bucket: str, made: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("text")
    with pytest.raises(kumo_crt.RepositoryError, match="is not empty, and no RocksDB database"):
        export.import_(made, other, client=s3)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    own = Rdict(str(tmp_path / "own"))
    with pytest.raises(kumo_crt.RepositoryError, match="in rocksdict's own mode"):
        export.import_(made, own, client=s3)
    own.close()
    # Their last bytes would be taken for the time of their writing.
    timed = Rdict(str(tmp_path / "timed"), databases.options(), access_type=AccessType.with_ttl(60))
    with pytest.raises(kumo_crt.RepositoryError, match=r"time to live .* an export has none"):
        export.import_(made, timed, client=s3)
    assert list(timed.keys()) == []
    timed.close()
    with pytest.raises(kumo_crt.RepositoryError, match=r"time to live .* an export has none"):
        export.import_(made, tmp_path / "timed", client=s3)
    with pytest.raises(TypeError, match="Rdict or a path"):
        export.import_(made, None, client=s3)
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="there is no export here"):
        export.import_(f"s3://{bucket}/elsewhere", tmp_path / "new", client=s3)
    assert not (tmp_path / "new").exists()


def test_dry_runs_write_nothing(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = export.export(database, url(bucket), client=s3, dry_run=True)
    assert (report.info.entries, report.info.total_bytes) == (2_000, 2_000 * 212)
    assert keys(boto, bucket) == []
    export.export(database, url(bucket), client=s3)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for target in ("new", tmp_path / "empty"):
        planned = export.import_(url(bucket), target, client=s3, dry_run=True)
        assert (planned.info.entries, planned.target) == (2_000, str(tmp_path / target))
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    with pytest.raises(kumo_crt.RepositoryError, match="has keys already"):
        export.import_(url(bucket), database, client=s3, dry_run=True)


def test_no_open_files_are_left(
    s3: kumo_crt.S3Client, bucket: str, made: str, database: Path, tmp_path: Path
) -> None:
    def open_files() -> list[str]:
        found = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return [os.readlink(name) for name in found if os.path.exists(name)]

    for number in range(2):
        export.export(database, f"{made}{number}", client=s3, column_family="default")
        export.import_(made, tmp_path / str(number), client=s3)
    assert [name for name in open_files() if str(tmp_path) in name] == []
