"""Databases for the readers, made once."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest
from rocksdict import (
    BlockBasedOptions,
    DBCompressionType,
    Options,
    Rdict,
)


def table_options(format_version: int) -> Options:
    """Options for a database whose SSTs have this format version."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    table = BlockBasedOptions()
    table.set_format_version(format_version)
    options.set_block_based_table_factory(table)
    # Only the compactions that a test asks for: an open database's files are copied.
    options.set_disable_auto_compactions(True)
    return options


def files(path: Path, suffix: str) -> list[Path]:
    """The files of a database with this suffix, oldest first."""
    return sorted(path.glob(f"*{suffix}"))


def manifest_of(path: Path) -> Path:
    """The MANIFEST that CURRENT names."""
    return path / (path / "CURRENT").read_text().strip()


def copy_live(source: Path, target: Path) -> Path:
    """Copies an open database's files as they are now."""
    target.mkdir()
    for file in source.iterdir():
        # What vanishes meanwhile is what an earlier compaction made superfluous.
        if file.name != "LOCK":
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(file, target)
    return target


def _busy_database(path: Path, format_version: int) -> None:
    options = table_options(format_version)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(256)
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(0.5)
    options.set_compression_type(DBCompressionType.zstd())
    options.set_blob_compression_type(DBCompressionType.lz4())
    rng = random.Random(7)
    db = Rdict(str(path), options)
    users = db.create_column_family("users", options)
    gone = db.create_column_family("gone", options)
    gone[b"x"] = b"y"
    gone.flush()
    for turn in range(6):
        for i in range(400):
            value = rng.randbytes(rng.choice([10, 100, 700]))
            db[b"key-%05d" % rng.randrange(2000)] = value
            users[b"user-%04d" % i] = value[:50] + b"%d" % turn
        for i in range(0, 2000, 17):
            db.delete(b"key-%05d" % i)
        db.flush()
        if turn % 2:
            users.flush()
        if turn == 3:
            db.compact_range(None, None)
            users.compact_range(None, None)
    gone.close()
    db.drop_column_family("gone")
    db.delete_range(b"key-00100", b"key-00200")
    db.flush()
    for i in range(30):
        db[b"late-%d" % i] = b"in the WAL only"
    # Closing would flush: the copy is the database as a crash would leave it.
    copy_live(path, path.with_name(path.name + "-crashed"))
    users.close()
    db.close()


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Column families, blobs with garbage, deletions, compactions; format that old tools read."""
    path = tmp_path_factory.mktemp("busy") / "db"
    _busy_database(path, 5)
    return path


@pytest.fixture(scope="session")
def crashed(busy: Path) -> Path:
    """The same database before it was closed, with data that is in the WAL alone."""
    return busy.with_name("db-crashed")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few keys: files small enough to damage at every byte. Not closed, as after a crash."""
    source = tmp_path_factory.mktemp("small") / "source"
    options = table_options(6)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(100)
    db = Rdict(str(source), options)
    db.create_column_family("other", options).close()
    for i in range(5):
        db[b"key-%d" % i] = os.urandom(150 if i % 2 else 10)
    db.flush()
    for i in range(5):
        db[b"wal-%d" % i] = b"value"
    copy = copy_live(source, source.with_name("copy"))
    db.close()
    return copy
