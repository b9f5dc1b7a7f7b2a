"""Exports and imports of databases that are open elsewhere, or have something of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import export
from tests.export.helpers import found_in, pairs_in, url
from tests.support import databases
from tests.support.processes import start_python

pytestmark = pytest.mark.servers("seaweed-http")


def test_imports_into_a_database_that_is_there(
    s3: kumo_crt.S3Client, bucket: str, tmp_path: Path
) -> None:
    source = Rdict(str(tmp_path / "source"), databases.options())
    databases.fill(source, 0, 100)
    export.export(source, url(bucket), client=s3)
    truth = pairs_in(source)
    source.close()

    db = Rdict(str(tmp_path / "db"), databases.options())
    db[b"key-00000007"] = b"older"
    db[b"other"] = b"stays"
    with pytest.raises(kumo_crt.RepositoryError, match=r"'default' has keys already: .*, --add"):
        export.import_(url(bucket), db, client=s3)
    assert pairs_in(db) == [(b"key-00000007", b"older"), (b"other", b"stays")]
    export.import_(url(bucket), db, client=s3, add=True)
    assert pairs_in(db) == [*truth, (b"other", b"stays")]
    # Into another column family, which is made; then there are keys in it.
    report = export.import_(url(bucket), db, client=s3, column_family="copy")
    assert report.column_family == "copy"
    assert pairs_in(db, "copy") == truth
    with pytest.raises(kumo_crt.RepositoryError, match="'copy' has keys already"):
        export.import_(url(bucket), db, client=s3, column_family="copy")
    with pytest.raises(kumo_crt.RepositoryLockedError):
        export.import_(url(bucket), tmp_path / "db", client=s3, add=True)
    db.close()
    # The same for the directory of a closed database, which keeps its own options.
    before = sorted((tmp_path / "db").glob("OPTIONS-*"))[-1].read_text()
    export.import_(url(bucket), tmp_path / "db", client=s3, column_family="third")
    after = sorted((tmp_path / "db").glob("OPTIONS-*"))[-1].read_text()
    assert found_in(tmp_path / "db", "third") == truth
    assert found_in(tmp_path / "db") == [*truth, (b"other", b"stays")]
    assert "compression=kNoCompression" in before
    assert after.count("[CFOptions") == before.count("[CFOptions") + 1


def test_databases_of_another_process(s3: kumo_crt.S3Client, bucket: str, tmp_path: Path) -> None:
    """An export does not need that process; an import is refused."""
    program = """
        import sys
        from rocksdict import Options, Rdict
        db = Rdict(sys.argv[1], Options(raw_mode=True))
        for number in range(50):
            db[b"%d" % number] = b"value"
        print("open", flush=True)
        sys.stdin.read()
        db.close()
    """
    with start_python(program, str(tmp_path / "db")) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(kumo_crt.RepositoryLockedError, match="another process"):
            export.export(tmp_path / "db", url(bucket), client=s3)
        export.export(tmp_path / "db", url(bucket), client=s3, live=True)
        with pytest.raises(kumo_crt.RepositoryLockedError, match="another process"):
            export.import_(url(bucket), tmp_path / "db", client=s3, add=True)
        holder.communicate(timeout=30)
    export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert len(found_in(tmp_path / "copy")) == 50


def test_tracked_logs(s3: kumo_crt.S3Client, bucket: str, tmp_path: Path) -> None:
    """RocksDB 9.8 crashes when it opens such databases read-only."""
    Rdict(str(tmp_path / "db"), databases.options()).close()
    options = max((tmp_path / "db").glob("OPTIONS-*"))
    text = options.read_text()
    assert "track_and_verify_wals_in_manifest=false" in text
    options.write_text(text.replace("wals_in_manifest=false", "wals_in_manifest=true"))
    db = Rdict(str(tmp_path / "db"))
    for start in (0, 50):
        databases.fill(db, start, start + 50)
        db.flush()
        db.flush_wal(True)
    databases.fill(db, 200, 210)
    export.export(tmp_path / "db", url(bucket), client=s3, live=True)
    truth = pairs_in(db)
    db.close()
    export.import_(url(bucket), tmp_path / "copy", client=s3)
    assert found_in(tmp_path / "copy") == truth


@pytest.mark.parametrize("encoding", ["sst", "jsonl"])
def test_a_column_family_without_a_name(
    s3: kumo_crt.S3Client, bucket: str, tmp_path: Path, encoding: str
) -> None:
    """RocksDB takes the empty name: it is not the same as none that is given."""
    place = url(bucket)
    db = Rdict(str(tmp_path / "db"), databases.options())
    db[b"key"] = b"of another one"
    unnamed = db.create_column_family("", databases.options())
    unnamed[b"key"] = b"value"
    unnamed.close()
    db.close()
    report = export.export(tmp_path / "db", place, client=s3, column_family="", encoding=encoding)
    assert (report.info.column_family, report.info.entries) == ("", 1)
    back = export.import_(place, tmp_path / "copy", client=s3)
    assert back.column_family == ""
    assert databases.read_all(tmp_path / "copy") == [("", b"key", b"value")]
    named = export.import_(place, tmp_path / "named", client=s3, column_family="other")
    assert named.column_family == "other"
    export.export(tmp_path / "db", f"{place}two", client=s3, encoding=encoding)
    export.import_(f"{place}two", tmp_path / "into", client=s3, column_family="")
    assert databases.read_all(tmp_path / "into") == [("", b"key", b"of another one")]
