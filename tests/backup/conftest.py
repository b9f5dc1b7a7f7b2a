"""Repositories and databases of the backup tests."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.helpers import KEY, content_of, url
from tests.backup.interleaving import without_waiting
from tests.support import databases
from tests.support.data import MIB
from tests.support.databases import Entry
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import S3Server

Make = Callable[[str], Path]


def _make_large(path: Path) -> None:
    """One SST of about 12 MiB: more than one part."""
    db = Rdict(str(path), databases.options())
    databases.fill(db, 0, 600, value_size=20_000)
    db.close()


def _make_big_files(path: Path) -> None:
    """Six SSTs of 1.5 MiB: a backup asks whether such files are there before it sends them."""
    db = Rdict(str(path), databases.options(small_files=True))
    db.set_options({"write_buffer_size": str(8 * MIB)})
    for start in range(0, 600, 100):
        databases.fill(db, start, start + 100, value_size=15_000)
        db.flush()
    db.close()


_MAKERS = {**databases.MAKERS, "large": _make_large, "big_files": _make_big_files}


class Library:
    """Databases that are made once and copied, and what is in them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @functools.cached_property
    def _truths(self) -> dict[str, list[Entry]]:
        return {}

    def original(self, name: str) -> Path:
        """The database, not to be opened."""
        path = self._directory / name
        if not path.exists():
            _MAKERS[name](path)
        return path

    def truth(self, name: str) -> list[Entry]:
        """What is in the database."""
        if name not in self._truths:
            self._truths[name] = content_of(self.original(name))
        return self._truths[name]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Databases with known content."""
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def make(library: Library, tmp_path: Path) -> Make:
    """Makes a database of the test's own: a copy of the library's."""

    def copy(name: str) -> Path:
        path = tmp_path / name
        shutil.copytree(library.original(name), path)
        return path

    return copy


@pytest.fixture
def each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files become objects of their own: for tests that are about many objects."""
    monkeypatch.setenv("KUMO_CRT_BUNDLE_BELOW", "0")


@pytest.fixture
def repository(s3: kumo_crt.S3Client, bucket: str) -> Iterator[kumo_crt.Repository]:
    """An empty repository."""
    with kumo_crt.Repository.create(url(bucket), client=s3) as created:
        yield created


@pytest.fixture
def small_parts(s3_server: S3Server) -> Iterator[kumo_crt.S3Client]:
    """A client with the smallest parts that S3 allows."""
    arguments = s3_server.client_arguments(part_size=5 * MIB, multipart_threshold=5 * MIB)
    with kumo_crt.S3Client(**arguments) as client:
        yield client


@pytest.fixture
def at_once() -> Iterator[None]:
    """Marks are old at once: one prune marks, the next deletes."""
    with without_waiting():
        yield


@pytest.fixture
def encrypted(s3: kumo_crt.S3Client, bucket: str) -> Iterator[kumo_crt.Repository]:
    """An empty encrypted repository."""
    with kumo_crt.Repository.create(url(bucket), client=s3, encryption_key=KEY) as created:
        yield created


@pytest.fixture
def keyless(encrypted: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str) -> Any:
    """The same repository, without the key."""
    with kumo_crt.Repository(url(bucket), client=s3) as opened:
        yield opened


@pytest.fixture
def one_part_sealed(
    encrypted: kumo_crt.Repository, s3_server: S3Server, proxy: FaultProxy, bucket: str
) -> Iterator[kumo_crt.Repository]:
    """The same through a proxy, with room for one part: the next is made when it is sent."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url,
        part_size=5 * MIB,
        multipart_threshold=5 * MIB,
        memory_limit=5 * MIB,
    )
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.open(url(bucket), client=client, encryption_key=KEY) as opened,
    ):
        yield opened


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty directory."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path
