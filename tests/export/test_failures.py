"""Exports and imports that cannot be, are interrupted, or are damaged."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rocksdict import AccessType, Rdict

import kumo_crt
from kumo_crt import export
from kumo_crt.export import _manifest
from tests.export.helpers import PLACE, keys, url
from tests.support import databases
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.fixture
def made(s3: kumo_crt.S3Client, bucket: str, database: Path) -> str:
    """An export of it, in some files."""
    export.export(database, url(bucket), client=s3, file_bytes=100_000)
    return url(bucket)


def test_there_is_one_already(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, made: str, database: Path
) -> None:
    before = keys(boto, bucket)
    with pytest.raises(kumo_crt.RepositoryError, match="there is an export here already"):
        export.export(database, made, client=s3)
    assert keys(boto, bucket) == before


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


def test_an_interruption_leaves_nothing(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path
) -> None:
    def progress(done: int, total: int) -> None:
        if done:  # at the first chance: later ones depend on time
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.export(
            database,
            url(bucket),
            client=s3,
            file_bytes=10_000,
            max_concurrency=1,
            progress=progress,
        )
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
    info = export.export(database, url(bucket), client=s3).info
    assert set(keys(boto, bucket)) == {"kumo-export.json", *(file.key for file in info.files)}
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
    with pytest.raises(TypeError, match="Rdict or a path"):
        export.import_(made, None, client=s3)
    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="there is no export here"):
        export.import_(f"s3://{bucket}/elsewhere", tmp_path / "new", client=s3)
    assert not (tmp_path / "new").exists()


def test_dry_runs_write_nothing(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    report = export.export(database, url(bucket), client=s3, dry_run=True)
    assert (report.info.entries, report.info.total_bytes) == (2_000, 2_000 * 212)
    assert keys(boto, bucket) == []
    export.export(database, url(bucket), client=s3)
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new", tmp_path / "empty"):
        assert export.import_(url(bucket), target, client=s3, dry_run=True).info.entries == 2_000
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    with pytest.raises(kumo_crt.RepositoryError, match="has keys already"):
        export.import_(url(bucket), database, client=s3, dry_run=True)


def _flip(content: bytes) -> bytes:
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_flip, "CRC32C"),
        (lambda content: content[:-1], "bytes"),
        (lambda content: content + b"x", "bytes"),
        (None, "missing"),
    ],
    ids=["flipped", "shorter", "longer", "missing"],
)
@pytest.mark.parametrize("new", [True, False], ids=["new", "there"])
def test_a_damaged_file_changes_nothing(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    made: str,
    tmp_path: Path,
    damage: Callable[[bytes], bytes] | None,
    match: str,
    new: bool,
) -> None:
    key = PLACE + export.inspect(made, client=s3).files[2].key
    content = boto.get_object(Bucket=bucket, Key=key)["Body"].read()
    boto.delete_object(Bucket=bucket, Key=key)
    if damage is not None:
        boto.put_object(Bucket=bucket, Key=key, Body=damage(content))
    target = tmp_path / "target"
    if not new:
        db = Rdict(str(target), databases.options())
        db[b"key"] = b"value"
        db.close()
    with pytest.raises(kumo_crt.IntegrityError, match=match) as caught:
        export.import_(made, target, client=s3, column_family="new")
    assert key in str(caught.value)
    if new:
        assert not target.exists()
    else:
        assert databases.read_all(target) == [("default", b"key", b"value")]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _replace_file(boto: Any, bucket: str, content: bytes, entries: int) -> None:
    """Makes the export's only file another one that its manifest fits."""
    key = f"{PLACE}kumo-export.json"
    document = json.loads(boto.get_object(Bucket=bucket, Key=key)["Body"].read())
    (file,) = document["files"]
    boto.put_object(Bucket=bucket, Key=PLACE + file["key"], Body=content)
    file["crc32c"] = f"{kumo_crt.crc32c(content):08x}"
    file["size"] = document["total_bytes"] = len(content)
    file["entries"] = document["entries"] = entries
    boto.put_object(
        Bucket=bucket, Key=key, Body=json.dumps(document).encode(), ChecksumAlgorithm="CRC32C"
    )


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (b'{"key":"b","value":""}\n{"key":"a","value":""}\n', "line 2: .* order of their keys"),
        (b'{"key":"a","value":""}\n{"key":"a","value":""}\n', "line 2: .* order of their keys"),
        (b'{"key":"a","value":""}\n', "1 lines, the manifest says 2"),
        (b'{"key":"a"}\n{"key":"b","value":""}\n', "line 1: expected an object"),
        (b'{"key":"a","value":""}\n{"key":"b","value":5}\n', "line 2: expected a text"),
        (b'{"key":"a","value":""}\n{"key":"b","value":{"base64":"*"}}\n', "line 2: no base64"),
        (b'{"key":"a","value":""}\n{"key":"b","value":"\\ud800"}\n', "line 2: .*surrogates"),
        (b'{"key":"a","value":""}\nnonsense\n', "line 2: "),
        (b'{"key":"a","value":""}\n' + b"[" * 100_000 + b"\n", "line 2: "),
        (b"\xff\n\xff\n", "line 1: "),
    ],
)
def test_lines_that_are_no_export(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    database: Path,
    tmp_path: Path,
    lines: bytes,
    match: str,
) -> None:
    export.export(database, url(bucket), client=s3, encoding="jsonl")
    _replace_file(boto, bucket, lines, 2)
    with pytest.raises(kumo_crt.IntegrityError, match=match):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert not (tmp_path / "copy").exists()


def test_lines_written_by_somebody_else(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    """Spaces, escapes, another order of members and no newline at the end are all right."""
    export.export(database, url(bucket), client=s3, encoding="jsonl")
    lines = (
        b'{ "value" : {"base64": "AA=="}, "key": "\\u0061" }\r\n'
        b'{"key":{"base64":"/w=="},"value":""}'
    )
    _replace_file(boto, bucket, lines, 2)
    export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert databases.read_all(tmp_path / "copy") == [
        ("default", b"a", b"\0"),
        ("default", b"\xff", b""),
    ]


def test_a_file_that_is_no_table(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    info = export.export(database, url(bucket), client=s3).info
    content = boto.get_object(Bucket=bucket, Key=PLACE + info.files[0].key)["Body"].read()
    _replace_file(boto, bucket, content, 1_999)
    with pytest.raises(kumo_crt.IntegrityError, match="2000 entries, the manifest says 1999"):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    _replace_file(boto, bucket, b"no table" * 100, 2_000)
    with pytest.raises(kumo_crt.IntegrityError, match="is no SST file"):
        export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert not (tmp_path / "copy").exists()


_FILE = {"key": f"files/{'0' * 16}/000000.sst", "size": 10, "crc32c": "00000000", "entries": 2}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "kumo-snapshot"}, "format"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"encoding": "csv"}, "encoding"),
        ({"encoding": "jsonl"}, r"files\[0\].key"),
        ({"comparator": "mine"}, "comparator"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"column_family": ""}, "column_family"),
        ({"column_family": 5}, "column_family"),
        ({"column_family": "x" * 2_000}, "column_family"),
        ({"start": 5}, "start"),
        ({"stop": {"base64": "*"}}, "stop"),
        ({"entries": 3}, "entries"),
        ({"entries": -1}, "entries"),
        ({"total_bytes": 11}, "total_bytes"),
        ({"files": {}}, "files"),
        ({"files": [5]}, r"files\[0\]"),
        ({"files": [_FILE, _FILE]}, "twice"),
        ({"files": [{**_FILE, "key": "../../other/000000.sst"}]}, r"files\[0\].key"),
        ({"files": [{**_FILE, "key": f"files/{'0' * 16}/../x.sst"}]}, r"files\[0\].key"),
        ({"files": [{**_FILE, "size": -1}]}, r"files\[0\].size"),
        ({"files": [{**_FILE, "size": 1 << 60}]}, r"files\[0\].size"),
        ({"files": [{**_FILE, "crc32c": 5}]}, r"files\[0\].crc32c"),
        ({"files": [{**_FILE, "entries": 0}]}, r"files\[0\].entries"),
        ({"files": [{**_FILE, "entries": True}]}, r"files\[0\].entries"),
    ],
)
def test_hostile_manifests(change: dict[str, Any], match: str) -> None:
    document = {
        **{"format": "kumo-export", "version": 1, "created_at": "2026-11-25T00:00:00Z"},
        **{"tool": "", "encoding": "sst", "comparator": "leveldb.BytewiseComparator"},
        **{"db_id": "", "column_family": "default", "start": None, "stop": None},
        **{"entries": 2, "total_bytes": 10, "files": [_FILE]},
    }
    where = "s3://bucket/exports/kumo-export.json"
    assert _manifest.decode(json.dumps(document).encode(), where, "").entries == 2
    changed = json.dumps({**document, **change}).encode()
    with pytest.raises(kumo_crt.FormatError, match=match) as caught:
        _manifest.decode(changed, where, "")
    assert where in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_manifests_that_are_none(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, document: bytes
) -> None:
    boto.put_object(Bucket=bucket, Key=f"{PLACE}kumo-export.json", Body=document)
    with pytest.raises(kumo_crt.FormatError, match=r"exports/one/kumo-export\.json"):
        export.inspect(url(bucket), client=s3)


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
