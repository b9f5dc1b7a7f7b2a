"""What another program writes, by the words of docs/format.md, is read, heeded and kept."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    KEY,
    MATERIAL,
    PREFIX,
    content_of,
    delete,
    flipped,
    get,
    key_of,
    keys,
    put,
    stored_files,
    url,
)
from tests.backup.other_program import (
    Program,
    crc32c,
    document,
    hash_of,
    now,
    sha256,
    tar_of,
    without_crc32c,
)
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

# As documents are written now, and as older versions wrote them.
FORMS = [document, without_crc32c]
Form = Callable[[Mapping[str, Any]], bytes]


@pytest.fixture
def other(repository: kumo_crt.Repository, boto: Any, bucket: str) -> Program:
    """Another program beside kumo_crt."""
    return Program(boto, bucket, PREFIX, None)


def _sequence_number(path: Path) -> int:
    db = Rdict(str(path), databases.options())
    number: int = db.latest_sequence_number()
    db.close()
    return number


# -- snapshots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("shape", ["files", "bundle", "archive"])
def test_a_repository_that_is_all_its_own(
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    shape: str,
    sealed: bool,
    optional: bool,
) -> None:
    name = "column_families"
    path = make(name)
    sequence = _sequence_number(path)
    program = Program(boto, bucket, PREFIX, MATERIAL if sealed else None, optional=optional)
    program.create()
    theirs, written = program.backup(path, sequence, ["default", "users", "empty"], shape)
    key = KEY if sealed else None
    with kumo_crt.Repository(url(bucket), client=s3, encryption_key=key) as repository:
        (found,) = repository.snapshots()
        assert found.id == theirs
        assert found.sequence_number == sequence
        assert found.total_bytes == written["total_bytes"]
        assert (found.single_object is None) == (shape != "archive")
        for level in ("quick", "stored", "full", "restore"):
            report = repository.verify(level=level)
            assert report.ok, report.problems
            assert report.warnings == ()
        assert repository.doctor(write=False).ok
        repository.restore(tmp_path / "restored")
        assert content_of(tmp_path / "restored") == library.truth(name)
        repository.restore(tmp_path / "part", column_families=["users"])
        # A backup goes on from there, and a prune keeps what the other program's snapshot needs.
        ours = repository.backup(path)
        assert ours.id > theirs
        repository.prune()
        assert repository.verify(snapshot="all", level="full").ok
        # What is known of the configuration comes back, where the manifest tells all of it.
        delete(boto, bucket, "kumo-repository.json")
        assert repository.recover_config() == program.repository_id


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("shape", ["files", "bundle"])
def test_repair(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, shape: str, sealed: bool
) -> None:
    """Which file is the wanted one is known by its name, which is made as the text says."""
    path = make("blobs")
    program = Program(boto, bucket, PREFIX, MATERIAL if sealed else None)
    program.create()
    program.backup(path, _sequence_number(path), ["default"], shape)
    key = KEY if sealed else None
    with kumo_crt.Repository(url(bucket), client=s3, encryption_key=key) as repository:
        for damaged in repository.snapshot().object_keys:
            put(boto, bucket, damaged, flipped(get(boto, bucket, damaged)))
        report = repository.repair(path, level="full")
        assert report.ok, report.remaining
        assert repository.verify(level="full").ok


def test_archives_are_what_any_program_would_make(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("unflushed_wal")
    found = repository.backup(path, single_object=True)
    assert found.single_object is not None
    content = get(boto, bucket, found.single_object)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = tar.getnames()
        last = tar.getmember("kumo-index.json")
    text = content[last.offset_data : last.offset_data + last.size]
    assert names[-2:] == ["CURRENT", "kumo-index.json"]
    files = {name: (path / name).read_bytes() for name in names[:-1]}
    entries = json.loads(text)["files"]
    assert [entry["crc32c"] for entry in entries] == [crc32c(file) for file in files.values()]
    assert tar_of({**files, "kumo-index.json": text})[0] == content
    blank = text
    for entry in entries:
        blank = blank.replace(f'"crc32c":"{entry["crc32c"]}"'.encode(), b'"crc32c":"00000000"')
    name = found.single_object.rpartition("/")[2]
    assert name == f"archive-{sha256(blank)}-{len(content)}.tar"
    # What is not SST, blob, WAL, MANIFEST or OPTIONS has a name there, too.
    for kind in ("current", "config"):
        (entry,) = (entry for entry in entries if entry["kind"] == kind)
        assert entry["name"] == f"{kind}-{sha256(files[entry['path']])}-{entry['size']}"


def test_current_is_inline(
    other: Program, repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    path = make("one_key")
    theirs, members = other.backup(path, 1, ["default"], "files")
    (current,) = (entry for entry in members["files"] if entry["kind"] == "current")
    del current["inline"]
    name = f"current-{sha256((path / 'CURRENT').read_bytes())}-{current['size']}"
    current["key"] = f"data/00/{name}"
    other.put(current["key"], (path / "CURRENT").read_bytes())
    delete(boto, bucket, f"spares/{theirs}.json")
    put(boto, bucket, f"snapshots/{theirs}.json", document(members))
    with pytest.raises(kumo_crt.FormatError, match="CURRENT"):
        repository.snapshot(theirs)


# -- those who work on it -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("at_once")
def test_a_pin_of_another_backup(
    other: Program, repository: kumo_crt.Repository, boto: Any, bucket: str, form: Form
) -> None:
    name = "other-" + sha256(b"x")
    data = f"data/{sha256(name.encode())[:2]}/{name}"
    other.put(data, b"x")
    other.put(data + ".0a1b2c3d", b"y")
    assert repository.prune().pending_objects == 2
    pin = other.inflight("backup", form(other.lease("backup", [hash_of(data)], [])))
    report = repository.prune()
    assert (report.deleted_objects, report.protected_objects) == (0, 2)
    delete(boto, bucket, pin)
    repository.prune()
    assert repository.prune().pending_objects == 0
    assert keys(boto, bucket, "data/") == set()


@pytest.mark.parametrize("form", FORMS)
def test_a_sweep_of_another_prune(
    other: Program,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    form: Form,
) -> None:
    path = make("plain")
    before = repository.backup(path)
    table = stored_files(before, "sst")[0]
    sweep = form(other.lease("sweep", [hash_of(key_of(table))], [before.id]))
    other.inflight("sweep", sweep, 1)
    with pytest.raises(kumo_crt.RepositoryLockedError):
        repository.pin(before.id)
    after = repository.backup(path)
    (again,) = (file for file in after.files if file.path == table.path)
    plain, _, suffix = key_of(again).rpartition("/")[2].rpartition(".")
    assert plain == key_of(table).rpartition("/")[2]
    assert len(bytes.fromhex(suffix)) == 4
    assert repository.verify().ok


@pytest.mark.parametrize("form", FORMS)
def test_others_leases(
    other: Program,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    form: Form,
) -> None:
    first, second = (repository.backup(make(name)) for name in ("one_key", "plain"))
    for kind in ("backup", "spare"):
        key = other.inflight(kind, form(other.lease(kind, [], [first.id])))
        with pytest.raises(kumo_crt.RepositoryLockedError):
            repository.delete_snapshot(first.id)
        delete(boto, bucket, key)
    key = other.inflight("prune", form(other.lease("prune", [], [])))
    with pytest.raises(kumo_crt.RepositoryLockedError, match="'elsewhere'"):
        repository.prune()
    delete(boto, bucket, key)
    assert repository.doctor(write=False).ok
    repository.delete_snapshot(first.id)
    assert [item.id for item in repository.snapshots()] == [second.id]


def test_a_lease_that_was_changed(other: Program, repository: kumo_crt.Repository) -> None:
    members = other.lease("backup", ["0" * 16], [])
    other.inflight("backup", document(members).replace(b"0" * 16, b"1" * 16))
    with pytest.raises(kumo_crt.FormatError, match="crc32c"):
        repository.prune()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folder", ["pins/", "spares/pins/"])
def test_either_half_of_a_pin(
    other: Program,
    repository: kumo_crt.Repository,
    make: Make,
    folder: str,
    form: Form,
) -> None:
    path = make("one_key")
    first = repository.backup(path)
    pin = {"format": "kumo-pin", "version": 1, "snapshot": first.id, "created_at": now()}
    other.put(f"{folder}{first.id}.json", form(pin))
    repository.backup(path)
    assert first.id in repository.prune(keep_last=1).kept
    with pytest.raises(kumo_crt.RepositoryError, match="pinned"):
        repository.delete_snapshot(first.id)
    assert repository.snapshot(first.id).pinned


@pytest.mark.parametrize("form", FORMS)
def test_a_mark(
    other: Program,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    at_once: None,
    form: Form,
) -> None:
    data = "data/00/left-by-another"
    other.put(data, b"x")
    mark = {"format": "kumo-mark", "version": 1, "objects": [hash_of(data)]}
    other.put("marks/20261123T060000Z-0a1b2c3d.json", form(mark))
    assert repository.prune().deleted_objects == 1
    assert keys(boto, bucket) == {"kumo-repository.json"}


# -- what is known of damage ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_notice(
    other: Program,
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    form: Form,
) -> None:
    path = make("plain")
    key = key_of(stored_files(repository.backup(path), "sst")[0])
    whole = get(boto, bucket, key)
    put(boto, bucket, key, flipped(whole))
    damaged = [{"at": now(), "key": key, "kind": "checksum"}]
    notice = {"format": "kumo-damage", "version": 1, "tool": "other 1.0", "damaged": damaged}
    other.inflight("damage", form(notice))
    assert repository.backup(path).warnings != ()
    assert get(boto, bucket, key) == whole
    assert keys(boto, bucket, "inflight/") == set()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("older", [False, True])
def test_a_ledger(
    other: Program, repository: kumo_crt.Repository, make: Make, form: Form, older: bool
) -> None:
    snapshot = repository.backup(make("plain"))
    reads = [sha256(key.encode())[:16] for key in sorted(snapshot.object_keys)]
    ledger: dict[str, Any] = {
        "format": "kumo-health",
        "version": 1,
        "repository_id": other.repository_id,
        "reads": [{"at": "2026-11-23T06:00:00Z", "objects": reads}],
        "damaged": [],
        "drills": [
            {
                "at": "2026-11-23T06:00:00Z",
                "snapshot": snapshot.id,
                "column_families": {"default": {"entries": 4000, "crc32c": "00000000"}},
            }
        ],
    }
    if not older:
        failed = {"at": "2026-11-24T06:00:00Z", "snapshot": snapshot.id, "kind": "any_word"}
        ledger["failed_drills"] = [failed]
    other.put("health/20261123T060000Z-0a1b2c3d.json", form(ledger))
    (health,) = repository.health()
    assert f"{health.last_verified:%F %T}" == "2026-11-23 06:00:00"
    assert f"{health.last_drill:%F %T}" == "2026-11-23 06:00:00"
    assert health.drill_problem == (None if older else "any_word")
