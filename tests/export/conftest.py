"""Exports are made of many small databases: in memory, where flushing them costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import export
from tests.export.helpers import url
from tests.support import databases


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    """A directory in memory."""
    return memory_path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A closed database of 2,000 keys."""
    path = tmp_path / "db"
    db = Rdict(str(path), databases.options())
    databases.fill(db, 0, 2_000)
    db.close()
    return path


@pytest.fixture
def made(s3: kumo_crt.S3Client, bucket: str, database: Path) -> str:
    """An export of it, in some files."""
    export.export(database, url(bucket), client=s3, file_bytes=100_000)
    return url(bucket)
