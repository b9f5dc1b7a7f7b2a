"""Databases and repositories that the battery works on, and what is checked after each fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from tests.backup.interleaving import without_waiting
from tests.faults.judge import Found, Judge
from tests.faults.mortals import Mortals
from tests.support import databases

# From this size on a backup asks for an object before it sends it (docs/format.md).
ASKED_FIRST = 1 << 20
# The smallest that S3 has.
PART = 5 << 20


def write_first(path: Path) -> None:
    """Two column families in two tables each, and blob files; some 150 KB."""
    options = databases.options(blobs=True)
    options.set_disable_auto_compactions(True)
    db = Rdict(str(path), options)
    users = db.create_column_family("users", options)
    for start in (0, 60):
        databases.fill(db, start, start + 60)
        databases.fill(users, start, start + 60)
        for number in range(start, start + 6):
            db[b"large-%08d" % number] = databases.value_of(number, 4_000)
        db.flush()
        users.flush()
    users.close()
    db.close()


def write_second(path: Path) -> None:
    """Some of the same files, new ones, and one that is larger than a backup sends blindly."""
    db = Rdict(str(path))
    users = db.get_column_family("users")
    databases.fill(users, 100, 160)
    users.flush()
    databases.fill(db, 1_000, 2_300, value_size=900)
    db.flush()
    users.close()
    db.close()


def write_large(path: Path, parts: int) -> None:
    """A table that is sent in so many parts of `PART` bytes, and some small ones."""
    options = databases.options(small_files=True)
    options.set_write_buffer_size(256 << 20)
    db = Rdict(str(path), options)
    for number in range(4):
        databases.fill(db, 100 * number, 100 * number + 60)
        db.flush()
    databases.fill(db, 1_000, 1_000 + parts, value_size=PART - 1_000)
    db.close()


def generation(path: Path, number: int) -> None:
    """Lets a small database become another one of three or four tables, all of them new."""
    db = Rdict(str(path), databases.options(small_files=True))
    db.compact_range(None, None)
    for start in range(20 * number, 20 * number + 15, 5):
        databases.fill(db, start, start + 60)
        db.flush()
    db.close()


def footprint(directory: Path) -> dict[str, tuple[int, int]]:
    """What tells whether anybody touched a directory's files."""
    return {
        path.name: ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in directory.iterdir()
    }


@contextmanager
def later() -> Iterator[None]:
    """Half an hour later: whoever was killed is taken for dead, and what is marked is due."""
    with without_waiting(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inflight, "MARGIN", -1000.0)
        yield


@dataclass
class Stage:
    """A bucket with many repositories, and who works on them.

    Attributes:
        client: The one of this process, that nobody kills.
        mortals: Those who die.
        judge: An independent reader.
        directory: Where databases are.
    """

    client: kumo_crt.S3Client
    mortals: Mortals
    judge: Judge
    directory: Path
    _count: int = 0

    def url(self, prefix: str) -> str:
        """URL of the repository below a prefix."""
        return f"s3://{self.judge.bucket}/{prefix.rstrip('/')}"

    def repository(self, prefix: str) -> kumo_crt.Repository:
        """The repository below a prefix, for this process."""
        return kumo_crt.Repository(self.url(prefix), client=self.client)

    def new_prefix(self) -> str:
        """A prefix that nothing is below."""
        self._count += 1
        return f"case-{self._count:05d}/"

    def new_directory(self) -> Path:
        """An empty directory."""
        self._count += 1
        path = self.directory / f"case-{self._count:05d}"
        path.mkdir()
        return path

    def copied(self, source: Path) -> Path:
        """A copy of a database, alone in a directory."""
        target = self.new_directory() / "db"
        shutil.copytree(source, target)
        return target

    def dump(self, prefix: str) -> dict[str, bytes]:
        """Everything that is below a prefix."""
        return {key: self.judge.get(prefix + key) for key in self.judge.listed(prefix)}

    def seed(self, objects: dict[str, bytes]) -> str:
        """A new repository with these objects; returns its prefix."""
        prefix = self.new_prefix()

        def put(item: tuple[str, bytes]) -> object:
            return self.client.put_object(self.judge.bucket, prefix + item[0], item[1])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, objects.items()))
        return prefix

    def forget(self, prefix: str) -> None:
        """Deletes everything below a prefix."""
        keys = [prefix + key for key in self.judge.listed(prefix)]
        if keys:
            self.client.delete_objects(self.judge.bucket, keys)

    def check_clean(self, prefix: str, *, keep_last: int | None = None) -> Found:
        """After two prunes, half an hour later, there is nothing that no snapshot needs."""
        with later():
            for _ in range(2):
                self.repository(prefix).prune(keep_last=keep_last)
        found = self.judge.look(prefix)
        assert found.below("data/") == found.named()
        assert found.below("inflight/") == found.below("marks/") == set()
        assert self.judge.uploads(prefix) == []
        return found


def contents(found: Found, snapshot_id: str) -> dict[str, Any]:
    """Files of a manifest by their paths."""
    return {file["path"]: file for file in found.manifests[snapshot_id]["files"]}
