"""What the machine knows: databases, snapshots and copies as plain dictionaries."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rocksdict import Options, Rdict

import kumo_crt
from tests.faults.judge import Judge
from tests.model import retention
from tests.model.held import Change, Elsewhere, Here
from tests.support import databases
from tests.support.servers import S3Server

# Column family -> key -> value.
Content = dict[str, dict[bytes, bytes]]
KEY = bytes(range(32))
# Long ago, so that the service's clock, by which leases are judged, is always later.
_BEGINNING = datetime(2020, 2, 28, 22, 30, tzinfo=UTC)


class Clocked(kumo_crt.Repository):
    """A repository whose snapshots are made at a time that the test chooses."""

    _moment: datetime | None = None

    def _guarded(self) -> Any:
        config, now = super()._guarded()
        return config, self._moment or now

    @contextlib.contextmanager
    def at(self, moment: datetime) -> Iterator[None]:
        """Lets it be that time."""
        self._moment = moment
        try:
            yield
        finally:
            self._moment = None


@dataclass
class Database:
    """A database and what has to be in it.

    Attributes:
        path: Its directory.
        blobs: How it is opened.
        lineage: The same number for databases that come from one: RocksDB gives them one id.
        content: What is in it.
        held: Who has it open.
    """

    path: Path
    blobs: bool
    lineage: int
    content: Content = field(default_factory=lambda: {"default": {}})
    held: Here | Elsewhere | None = None

    def opened(self) -> Here | Elsewhere:
        """Opens it here, if nobody has it open."""
        if self.held is None:
            self.held = Here(self.path, self.blobs)
        return self.held

    def close(self) -> None:
        """Closes it."""
        if self.held is not None:
            self.held.close()
            self.held = None

    def apply(self, batch: list[Change]) -> None:
        """Does with the model what RocksDB does with a batch."""
        for what, family, key, value in batch:
            entries = self.content[family]
            if what == "put":
                entries[key] = value
            elif what == "delete":
                entries.pop(key, None)
            else:
                for found in [known for known in entries if key <= known < value]:
                    del entries[found]


@dataclass(frozen=True)
class Taken:
    """A snapshot and what has to be in it."""

    snapshot: kumo_crt.Snapshot
    content: Content
    lineage: int
    blobs: bool

    @property
    def id(self) -> str:
        """Of the snapshot."""
        return self.snapshot.id

    def copied(self) -> Content:
        """The content, to be changed."""
        return {family: dict(entries) for family, entries in self.content.items()}


@dataclass
class Copy:
    """A directory that was restored, and may be restored over."""

    path: Path
    lineage: int
    blobs: bool
    content: Content

    def as_database(self) -> Database:
        """To be opened and written to."""
        return Database(self.path, self.blobs, self.lineage, self.content)


@dataclass
class Stage:
    """Where all examples happen: a server, three clients, a directory."""

    server: S3Server
    clients: list[kumo_crt.S3Client]
    judge: Judge
    directory: Path
    count: int = 0


@dataclass
class World:
    """One example's repository, and the model of it."""

    stage: Stage
    directory: Path
    prefix: str
    repositories: list[Clocked]
    databases: list[Database]
    snapshots: dict[str, Taken] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    copies: list[Copy] = field(default_factory=list)
    now: datetime = _BEGINNING
    key: kumo_crt.Key | None = None
    _ids: dict[int, str] = field(default_factory=dict)
    _paths: int = 0

    @classmethod
    def begin(cls, stage: Stage, *, encrypted: bool) -> World:
        """An empty repository, and two databases."""
        stage.count += 1
        prefix = f"model-{stage.count:05d}/"
        directory = stage.directory / prefix
        directory.mkdir()
        url = f"s3://{stage.judge.bucket}/{prefix}"
        key = kumo_crt.Key(KEY) if encrypted else None
        made = Clocked.create(url, client=stage.clients[0], encryption_key=key)
        others = [Clocked(url, client=client, encryption_key=key) for client in stage.clients[1:]]
        sources = [Database(directory / f"source-{n}", bool(n), n) for n in range(2)]
        for source in sources:
            source.opened()
        return cls(stage, directory, prefix, [made, *others], sources, key=key)

    def end(self) -> None:
        """Removes what is on the disk."""
        for database in self.databases:
            database.close()
        shutil.rmtree(self.directory)

    @property
    def url(self) -> str:
        """URL of the repository."""
        return f"s3://{self.stage.judge.bucket}/{self.prefix}"

    def new_path(self, what: str) -> Path:
        """A path where nothing is."""
        self._paths += 1
        return self.directory / f"{what}-{self._paths}"

    def took(
        self, snapshot: kumo_crt.Snapshot, database: Database, *, is_last: bool = True
    ) -> None:
        """Notes a snapshot of a database, which is as it was when the snapshot was taken."""
        assert snapshot.id not in self.snapshots
        assert not is_last or all(snapshot.id > earlier for earlier in self.snapshots)
        assert set(snapshot.column_families) == set(database.content)
        assert snapshot.db_id == self._ids.setdefault(database.lineage, snapshot.db_id)
        assert len(set(self._ids.values())) == len(self._ids)
        content = {family: dict(entries) for family, entries in database.content.items()}
        self.snapshots[snapshot.id] = Taken(snapshot, content, database.lineage, database.blobs)

    def removed(self, rules: Mapping[str, int], *, without: str = "") -> set[str]:
        """Ids of the snapshots that a prune has to remove.

        Args:
            rules: As `retention.kept` takes them.
            without: A snapshot that it does not know of.
        """
        found: set[str] = set()
        known = [taken for taken in self.snapshots.values() if taken.id != without]
        for lineage in {taken.lineage for taken in known}:
            members = [taken for taken in known if taken.lineage == lineage]
            # Not by time: the command's backups come from years after this world's.
            members.sort(key=lambda taken: taken.id, reverse=True)
            kept = retention.kept([taken.snapshot.created_at for taken in members], rules)
            found |= {taken.id for number, taken in enumerate(members) if number not in kept}
        return found - self.pinned

    def forget(self, ids: set[str]) -> None:
        """Snapshots that are gone."""
        for snapshot_id in ids:
            del self.snapshots[snapshot_id]

    def named(self, snapshots: Mapping[str, Taken] | None = None) -> set[str]:
        """Keys of the data objects that have to be there, for all or some of the snapshots."""
        taken = self.snapshots if snapshots is None else snapshots
        return {key for one in taken.values() for key in one.snapshot.object_keys}

    def stored(self) -> set[str]:
        """All keys of the repository, below its prefix."""
        return set(self.stage.judge.listed(self.prefix))

    def superfluous(self, snapshots: Mapping[str, Taken] | None = None) -> set[str]:
        """Keys of the data objects that no snapshot needs, of all or of some."""
        return {key for key in self.stored() if key.startswith("data/")} - self.named(snapshots)

    def wasted(self) -> int:
        """Bytes of bundles that are there and that no snapshot needs."""
        parts: dict[str, dict[int, int]] = {}
        sizes: dict[str, int] = {}
        for taken in self.snapshots.values():
            if taken.snapshot.single_object is not None:
                continue
            for file in taken.snapshot.files:
                if file.offset is not None:
                    parts.setdefault(file.stored.key, {})[file.offset] = file.stored_size
                    sizes[file.stored.key] = file.stored.size
        return sum(sizes[key] - sum(used.values()) for key, used in parts.items())

    def pass_time(self, hours: int) -> None:
        """Moves the clock by which snapshots are made."""
        self.now += timedelta(hours=hours, minutes=7)


def check_content(path: Path, expected: Content) -> None:
    """Asserts that a database which nobody has open holds exactly this."""
    assert set(Rdict.list_cf(str(path), Options(raw_mode=True))) == set(expected)
    found: Content = {family: {} for family in expected}
    for family, key, value in databases.read_all(path):
        found[family][key] = value
    assert found == expected
