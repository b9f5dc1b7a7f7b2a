"""Rules: what comes out of the repository, and what is said about it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from kumo_crt import Snapshot, crc32c, export
from kumo_crt.backup._restore._place import work_directory
from kumo_crt.exceptions import IntegrityError, RepositoryError, SnapshotNotFoundError
from tests.backup.helpers import flipped, leftovers, tree
from tests.model.base import KEYS, ONE, Base, family_of
from tests.model.held import Elsewhere, Here
from tests.model.world import Content, Copy, check_content

_MOST_COPIES = 3
_LIMITS = st.none() | KEYS


def _whole(directory: Path, snapshot: Snapshot) -> int:
    """Bytes of the files that a restore which failed has brought."""
    brought = {path.name: path.read_bytes() for path in directory.iterdir()}
    return sum(
        file.size
        for file in snapshot.files
        if (content := brought.get(file.path)) is not None
        and (len(content), crc32c(content)) == (file.size, file.crc32c)
    )


class Reading(Base):
    """Snapshots are listed, verified, restored, damaged and repaired; exports go to and fro."""

    @rule(who=ONE)
    def list_snapshots(self, who: int) -> None:
        """Every client sees the same."""
        world, repository = self.world, self.repository(who)
        found = repository.snapshots()
        assert [item.id for item in found] == sorted(world.snapshots)
        for item in found:
            known = world.snapshots[item.id].snapshot
            assert (item.files, item.tags) == (known.files, known.tags)
            assert item.pinned == (item.id in world.pinned)
        if found:
            assert repository.snapshot().id == found[-1].id
        else:
            with pytest.raises(SnapshotNotFoundError):
                repository.snapshot()

    @precondition(Base.has_snapshots)
    @rule(one=ONE, who=ONE, level=st.sampled_from(["quick", "stored", "full", "restore"]))
    def verify(self, one: int, who: int, level: str) -> None:
        """Whatever was done to the repository, nothing is damaged."""
        repository = self.repository(who)
        taken = self.taken(one)
        if level == "restore":
            drill = repository.drill(taken.id, scratch=self.world.directory)
            assert drill.ok, drill.problems
            counts = {family: len(entries) for family, entries in taken.content.items()}
            assert drill.entries == counts
            return
        one_report = repository.verify(taken.id, level=level)
        assert one_report.ok
        assert one_report.problems == ()
        report = repository.verify("all", level=level)
        assert report.problems == ()
        assert report.snapshots == len(self.world.snapshots)

    # -- restores --------------------------------------------------------------------------

    @precondition(Base.has_snapshots)
    @rule(one=ONE, who=ONE, families=st.none() | st.sets(ONE, min_size=1, max_size=3))
    def restore(self, one: int, who: int, families: set[int] | None) -> None:
        """To a new directory: all, or some column families."""
        world, taken = self.world, self.taken(one)
        target = world.new_path("restored")
        known = sorted(taken.content)
        names = None if families is None else sorted({known[n % len(known)] for n in families})
        report = self.repository(who).restore(target, taken.id, column_families=names)
        content = {
            family: dict(entries) if names is None or family in names else {}
            for family, entries in taken.content.items()
            if names is None or family in {*names, "default"}
        }
        assert set(report.column_families) == set(content)
        check_content(target, content)
        with pytest.raises(RepositoryError):
            self.repository(who).restore(target, taken.id)
        if len(world.copies) == _MOST_COPIES:
            shutil.rmtree(world.copies.pop(0).path)
        world.copies.append(Copy(target, taken.lineage, taken.blobs, content))

    @precondition(lambda self: self.world.copies and self.world.snapshots)
    @rule(one=ONE, who=ONE, number=ONE, delta=st.booleans(), families=st.booleans())
    def restore_over(self, one: int, who: int, number: int, delta: bool, families: bool) -> None:
        """Over what was restored before: of the same database, or of another one."""
        world, taken, repository = self.world, self.taken(one), self.repository(who)
        copy = world.copies[number % len(world.copies)]
        more: dict[str, Any] = {"column_families": ["default"]} if families else {}
        if delta and copy.lineage != taken.lineage:
            before = tree(copy.path)
            with pytest.raises(RepositoryError, match="another"):
                repository.restore(copy.path, taken.id, delta=True, **more)
            assert tree(copy.path) == before
            more["overwrite"] = True
        repository.restore(copy.path, taken.id, **{"delta": delta, "overwrite": not delta, **more})
        content = {"default": dict(taken.content["default"])} if families else taken.content
        world.copies[world.copies.index(copy)] = Copy(
            copy.path, taken.lineage, taken.blobs, content
        )
        check_content(copy.path, content)

    @precondition(Base.has_snapshots)
    @rule(one=ONE, who=ONE, number=ONE, delta=st.booleans())
    def go_back(self, one: int, who: int, number: int, delta: bool) -> None:
        """A database becomes what it was, and goes on from there, with file numbers used again."""
        world, repository = self.world, self.repository(who)
        database = self.database(number)
        states = [t for t in world.snapshots.values() if t.lineage == database.lineage]
        if not states:
            return
        taken = states[one % len(states)]
        if database.held is not None:
            with pytest.raises(RepositoryError):
                repository.restore(database.path, taken.id, delta=True)
        database.close()
        repository.restore(database.path, taken.id, delta=delta, overwrite=not delta)
        database.content = taken.copied()
        check_content(database.path, database.content)

    @precondition(lambda self: self.world.copies)
    @rule(number=ONE, one=ONE)
    def go_on_elsewhere(self, number: int, one: int) -> None:
        """A restored copy takes a database's place: there may be two then that come from one."""
        world, database = self.world, self.database(one)
        copy = world.copies.pop(number % len(world.copies))
        database.close()
        shutil.rmtree(database.path)
        world.databases[world.databases.index(database)] = copy.as_database()

    # -- damage ----------------------------------------------------------------------------

    @precondition(Base.has_snapshots)
    @rule(one=ONE, number=st.integers(0, 100), how=st.sampled_from(["gone", "short", "flipped"]))
    def damage_and_repair(self, one: int, number: int, how: str) -> None:
        """An object is damaged: every snapshot that it is in is told, and a copy repairs it."""
        world, taken, repository = self.world, self.taken(one), self.repository(0)
        keys = sorted(taken.snapshot.object_keys)
        if not keys:
            return
        key = keys[number % len(keys)]
        affected = {t.id for t in world.snapshots.values() if key in t.snapshot.object_keys}
        is_bundle = any(f.key == key and f.offset is not None for f in taken.snapshot.files)
        # Each snapshot may need something else of a bundle.
        good = {name: world.new_path("good") for name in (affected if is_bundle else {taken.id})}
        for snapshot_id, path in good.items():
            repository.restore(path, snapshot_id)
        self._damage(world.prefix + key, how)
        report = repository.verify("all", level="stored")
        assert {problem.key for problem in report.problems} == {key}
        assert {item for problem in report.problems for item in problem.snapshots} == affected
        target = world.new_path("damaged")
        with pytest.raises(IntegrityError):
            repository.restore(target, taken.id)
        assert not target.exists()
        repaired = repository.repair(list(good.values()))
        assert repaired.ok, repaired
        assert repository.verify("all", level="full").ok
        # It goes on where it was.
        whole = _whole(work_directory(target, taken.id), taken.snapshot)
        assert repository.restore(target, taken.id).kept_bytes == whole
        check_content(target, taken.content)
        for path in (target, *good.values()):
            shutil.rmtree(path)
        assert leftovers(world.directory) == []

    def _damage(self, key: str, how: str) -> None:
        judge = self.world.stage.judge
        content = judge.get(key)
        if how == "gone":
            judge.boto.delete_object(Bucket=judge.bucket, Key=key)
            return
        body = flipped(content) if how == "flipped" else content[:-1]
        judge.boto.put_object(Bucket=judge.bucket, Key=key, Body=body, ChecksumAlgorithm="CRC32C")

    # -- exports ---------------------------------------------------------------------------

    @rule(
        one=ONE, number=ONE, first=_LIMITS, last=_LIMITS, encoding=st.sampled_from(["sst", "jsonl"])
    )
    def export_and_import(
        self, one: int, number: int, first: bytes | None, last: bytes | None, encoding: str
    ) -> None:
        """A range of a column family goes to a database of its own, and into another family."""
        world, database = self.world, self.database(one)
        if first is not None and last is not None and first >= last:
            return
        family = family_of(database, number)
        client = world.stage.clients[0]
        url = f"{world.url.rstrip('/')}-exports/{world.new_path('export').name}"
        held = database.held
        source = held.db if isinstance(held, Here) else database.path
        report = export.export(
            source,
            url,
            client=client,
            column_family=family,
            start=first,
            stop=last,
            encoding=encoding,
            live=isinstance(held, Elsewhere),
        )
        expected = {
            key: value
            for key, value in database.content[family].items()
            if (first is None or key >= first) and (last is None or key < last)
        }
        assert report.info.entries == len(expected)
        target = world.new_path("imported")
        for name in (family, "once more"):
            export.import_(url, target, client=client, column_family=name)
        content: Content = {"default": {}, family: expected, "once more": expected}
        check_content(target, content)
        shutil.rmtree(target)
