"""Full disks: a clear error, nothing that is half there, and a rerun that ends it.

On a file system of 24 MiB, where the system lets anybody have one (namespaces); and everywhere with
a limit for the size of a file, which strikes in the same places.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from tests.backup.helpers import leftovers
from tests.faults.judge import expected_tree, tree
from tests.faults.mortals import NEVER, Life, Mortals, can_mount
from tests.faults.seeds import case, chances, done, scaled
from tests.faults.stage import Stage, footprint, write_first, write_second
from tests.support import databases
from tests.support.databases import Entry
from tests.support.servers import S3Server

RESTORES = 6  # of each way
LARGEST = 100_000  # bytes: less than the largest files, more than many
WAYS: dict[str, dict[str, Any]] = {
    "into nothing": {},
    "over another": {"overwrite": True},
    "delta": {"delta": True},
    "a column family": {"overwrite": True, "column_families": ["users"]},
}


@dataclass
class Disk:
    """Where databases are that have little room.

    Attributes:
        mortals: Who works there.
        directory: What it is called by them.
        is_real: A file system; else only the size of files is limited.
    """

    mortals: Mortals
    directory: Path
    is_real: bool

    @property
    def here(self) -> Path:
        """What it is called by us."""
        return self.mortals.seen(self.directory) if self.is_real else self.directory

    def count(self, when: str) -> None:
        """Counts that it was too small."""
        done[f"{'full disks' if self.is_real else 'files that grew too large'} {when}"] += 1

    @property
    def ballast(self) -> Path:
        """Name of the file that fills it."""
        return self.directory / "ballast"

    def fault(self, leave: int, *, after_check: bool = False) -> dict[str, Any]:
        """What makes it full, as an order."""
        if not self.is_real:
            return {"largest_file": leave}
        return {"fill": {"path": self.ballast, "leave": leave, "after_check": after_check}}

    def free(self) -> None:
        """Makes room again."""
        subprocess.run(["rm", "-rf", self.here / "ballast"], check=True)


@pytest.fixture(scope="module", params=["a small file system", "small files"])
def disk(request: pytest.FixtureRequest, seaweed: S3Server, memory: Path) -> Iterator[Disk]:
    """A disk, of each kind."""
    is_real = request.param == "a small file system"
    directory = memory / request.param.replace(" ", "-")
    directory.mkdir()
    if is_real and not can_mount(directory):
        pytest.skip("this system lets nobody mount a file system in a namespace (unshare -Urm)")
    arguments = seaweed.client_arguments()
    with Mortals(arguments, disk=directory if is_real else None) as mortals:
        mortals.live("unclosed", arguments={"path": directory / "db", "first": 0, "last": 10})
        yield Disk(mortals, directory, is_real)


@dataclass(frozen=True)
class World:
    """A repository, an export, and what is in them.

    Attributes:
        prefix: Of the repository.
        export: URL of the export.
        path: The database, on a disk that has room.
        old: An older state of it.
        flushed: The same state but for what is in the write-ahead log.
        truth: What is in the database.
        files: What a restore gives.
    """

    prefix: str
    export: str
    path: Path
    old: Path
    flushed: Path
    truth: list[Entry]
    files: dict[str, str]


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    """What is restored and imported."""
    path = stage.new_directory() / "db"
    write_first(path)
    old = stage.copied(path)
    write_second(path)
    flushed = stage.copied(path)
    stage.mortals.live("unclosed", arguments={"path": str(path), "first": 5_000, "last": 6_000})
    prefix, exported = stage.new_prefix(), stage.url(stage.new_prefix())
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        snapshot = repository.backup(path)
    truth = databases.read_all(stage.copied(path))
    stage.mortals.live("export", arguments={"source": path, "url": exported})
    manifest = stage.judge.look(prefix).manifests[snapshot.id]
    return World(prefix, exported, path, old, flushed, truth, expected_tree(manifest))


def _place(disk: Disk, source: Path, name: str) -> Path:
    """A copy of a database on the disk, alone in a directory; named as it is called there."""
    subprocess.run(["mkdir", disk.here / name], check=True)
    subprocess.run(["cp", "-r", source, disk.here / name / "db"], check=True)
    return disk.directory / name / "db"


def _here(disk: Disk, path: Path) -> Path:
    return disk.mortals.seen(path) if disk.is_real else path


def _refused(life: Life, path: Path) -> None:
    """An error that names a file below a directory, and says what to do."""
    assert life.error is not None
    kind, _, message = life.error.partition(": ")
    assert kind == "RepositoryError", life.error
    assert str(path) in message
    reasons = ("No space left on device", "File too large", "are free on this file system")
    assert any(reason in message for reason in reasons), message
    assert "make room" in message
    assert life.killed is False


def _live(disk: Disk, work: str, url: str, arguments: dict[str, Any], **order: Any) -> Life:
    return disk.mortals.live(work, url, NEVER, arguments=arguments, unwatched=True, **order)


@pytest.mark.parametrize("disk", ["a small file system"], indirect=True)
@pytest.mark.parametrize("name", WAYS)
def test_a_restore_for_which_there_is_no_room(
    stage: Stage, world: World, disk: Disk, name: str
) -> None:
    """It is looked at before: nothing is begun."""
    target = _place(disk, world.old, f"before-{name.replace(' ', '-')}")
    here = _here(disk, target)
    before = tree(here)
    arguments = {"target": target, **(WAYS[name] or {"overwrite": True})}
    url = stage.url(world.prefix)
    life = _live(disk, "restore", url, arguments, **disk.fault(20_000))
    _refused(life, target.parent)
    assert tree(here) == before
    assert leftovers(here.parent) == []
    disk.free()
    assert _live(disk, "restore", url, arguments).error is None
    done["full disks, seen before"] += 1
    subprocess.run(["rm", "-r", here.parent], check=True)


@pytest.mark.parametrize("name", WAYS)
def test_a_restore_that_fills_the_disk(stage: Stage, world: World, disk: Disk, name: str) -> None:
    """Somebody else takes the room meanwhile: at any byte."""
    way = WAYS[name]
    url = stage.url(world.prefix)
    for number in range(scaled(RESTORES)):
        most = 1_400_000 if disk.is_real else LARGEST
        leave = chances("full", name, number).randrange(most)
        with case(number, f"{leave} bytes are left"):
            target = _place(disk, world.old, f"restore-{number}")
            here = _here(disk, target)
            if not way:
                subprocess.run(["rm", "-r", here], check=True)
            before = tree(here)
            arguments = {"target": target, **way}
            fault = disk.fault(leave, after_check=True)
            life = _live(disk, "restore", url, arguments, **fault)
            if life.error is not None:
                _refused(life, target.parent)
                assert tree(here) == before
                assert all(n.startswith(".db.kumo-restore-") for n in leftovers(here.parent))
                disk.free()
                disk.count("during a restore")
                assert _live(disk, "restore", url, arguments).error is None
            disk.free()
            assert leftovers(here.parent) == []
            if "column_families" not in way:
                assert tree(here) == world.files
            wanted = [e for e in world.truth if name != "a column family" or e[0] == "users"]
            assert databases.read_all(here) == wanted
            subprocess.run(["rm", "-r", here.parent], check=True)


@pytest.mark.parametrize("after_check", [False, True])
def test_a_drill_without_room(stage: Stage, world: World, disk: Disk, after_check: bool) -> None:
    """The directory that was given is named, none that nobody has heard of; nothing stays."""
    scratch = disk.directory / f"drill-{after_check}"
    (disk.here / scratch.name).mkdir()
    url = stage.url(world.prefix)
    fault = disk.fault(50_000, after_check=after_check)
    life = _live(disk, "drill", url, {"scratch": scratch, "record": False}, **fault)
    _refused(life, scratch)
    assert "--scratch" in str(life.error)
    assert "kumo-drill-" not in str(life.error)
    assert list((disk.here / scratch.name).iterdir()) == []
    disk.free()
    assert _live(disk, "drill", url, {"scratch": scratch, "record": False}).error is None
    disk.count("during a drill")


@pytest.mark.parametrize("how", ["closed", "open elsewhere", "its own"])
def test_a_capture_on_a_full_disk(stage: Stage, world: World, disk: Disk, how: str) -> None:
    """A backup needs little room, but some."""
    path = _place(disk, world.path, f"capture-{how.replace(' ', '-')}")
    here = _here(disk, path)
    db = Rdict(str(here)) if how == "open elsewhere" else None
    before = footprint(here)
    prefix = stage.new_prefix()
    stage.repository(prefix).create(stage.url(prefix), client=stage.client).close()
    work, arguments = "backup", {"source": path, "live": db is not None}
    if how == "its own":
        work, arguments = "backup_open", {"path": path}
    url = stage.url(prefix)
    life = _live(disk, work, url, arguments, **disk.fault(0 if disk.is_real else 100))
    _refused(life, path.parent)
    assert "Nothing was sent" in str(life.error)
    if how != "its own":
        assert footprint(here) == before
    assert leftovers(here.parent) == []
    found = stage.judge.look(prefix)
    assert found.snapshots == found.below("data/") == found.below("inflight/") == set()
    disk.free()
    assert _live(disk, work, url, arguments).error is None
    disk.count("during a capture")
    if db is not None:
        db.close()
    (manifest,) = stage.judge.look(prefix).manifests.values()
    target = stage.new_directory() / "restored"
    stage.repository(prefix).restore(target)
    assert tree(target) == expected_tree(manifest)
    assert databases.read_all(target) == world.truth
    subprocess.run(["rm", "-r", here.parent], check=True)


@pytest.mark.parametrize("disk", ["a small file system"], indirect=True)
@pytest.mark.parametrize("leave", [0, 1, 3, 9])
def test_a_capture_without_room_for_links(
    stage: Stage, world: World, disk: Disk, leave: int
) -> None:
    """There is room for bytes, but not for so many files: the working directory, or a link."""
    path = _place(disk, world.path, f"links-{leave}")
    here = _here(disk, path)
    before = footprint(here)
    prefix = stage.new_prefix()
    stage.repository(prefix).create(stage.url(prefix), client=stage.client).close()
    url, arguments = stage.url(prefix), {"source": path}
    fill = {"path": disk.ballast, "leave": leave, "files": True}
    _refused(_live(disk, "backup", url, arguments, fill=fill), path.parent)
    assert footprint(here) == before
    assert leftovers(here.parent) == []
    disk.free()
    assert _live(disk, "backup", url, arguments).error is None
    assert len(stage.judge.look(prefix).snapshots) == 1
    disk.count("during a capture")
    subprocess.run(["rm", "-r", here.parent], check=True)


@pytest.mark.parametrize("encoding", ["sst", "jsonl"])
@pytest.mark.parametrize("leave", [0, 50_000, 800_000])
def test_an_export_without_room(
    stage: Stage, world: World, disk: Disk, encoding: str, leave: int
) -> None:
    """It is written to the temporary directory, before it is sent."""
    temporary = disk.directory / f"tmp-{encoding}-{leave}"
    (disk.here / temporary.name).mkdir()
    prefix = stage.new_prefix()
    arguments = {"source": world.flushed, "url": stage.url(prefix), "encoding": encoding}
    life = _live(disk, "export", "", arguments, temporary=temporary, **disk.fault(leave or 1))
    where = temporary if leave or disk.is_real else Path("/")  # there it may be the capture
    _refused(life, where)
    assert stage.judge.listed(prefix) == {}
    assert list((disk.here / temporary.name).iterdir()) == []
    disk.free()
    assert _live(disk, "export", "", arguments, temporary=temporary).error is None
    assert "kumo-export.json" in stage.judge.listed(prefix)
    disk.count("during an export")


@pytest.mark.parametrize("new", [False, True], ids=["a database", "nothing"])
@pytest.mark.parametrize(
    ("leave", "after_check"), [(0, False), (600_000, False), (0, True), (600_000, True)]
)
def test_an_import_without_room(
    stage: Stage, world: World, disk: Disk, new: bool, leave: int, after_check: bool
) -> None:
    """Of all that it needs at once, it has no room for some."""
    name = f"import-{new}-{leave}-{after_check}"
    target = _place(disk, world.old, name)
    here = _here(disk, target)
    if new:
        subprocess.run(["rm", "-r", here], check=True)
    arguments = {"url": world.export, "target": target, "column_family": "imported"}
    before = None if new else databases.read_all(here)
    fault = disk.fault(leave if disk.is_real else max(1, leave // 6), after_check=after_check)
    life = _live(disk, "import_", "", arguments, **fault)
    _refused(life, target.parent)
    disk.free()
    assert here.exists() is not new
    if before is not None:
        assert databases.read_all(here) == before
    assert [path.name for path in here.parent.iterdir()] == ([] if new else ["db"])
    assert _live(disk, "import_", "", arguments).error is None
    imported = [entry[1:] for entry in databases.read_all(here) if entry[0] == "imported"]
    assert imported == [entry[1:] for entry in world.truth if entry[0] == "default"]
    disk.count("during an import")
    subprocess.run(["rm", "-r", here.parent], check=True)


def test_a_download_without_room(stage: Stage, disk: Disk) -> None:
    key = stage.new_prefix() + "large"
    stage.client.put_object(stage.judge.bucket, key, bytes(3_000_000))
    into = disk.directory / "download"
    arguments = {"bucket": stage.judge.bucket, "key": key, "into": into}
    life = _live(disk, "get_object", "", arguments, **disk.fault(1_000_000))
    assert life.error is not None
    assert life.error.startswith(f"KumoError: {into}: getting s3://")
    assert life.error.endswith(("No space left on device", "File too large"))
    assert [path.name for path in disk.here.glob("*download*")] == []
    disk.free()
    assert _live(disk, "get_object", "", arguments).error is None
    assert (disk.here / "download").stat().st_size == 3_000_000
    disk.count("during a download")
