"""Hundreds of hostile documents: each a FormatError, in bounded time and memory, and no harm."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt import export
from kumo_crt.backup._format import _documents
from tests.faults.floors import HOSTILE
from tests.faults.hostile import KINDS, TEXTS, WHERE, Edit, Kind
from tests.faults.seeds import done
from tests.faults.stage import Stage, generation
from tests.faults.vast_process import VAST
from tests.support.databases import make_one_key, read_all
from tests.support.processes import environment

# What the battery promises; there are many more.
PROMISED = 150
_ROOT = Path(__file__).resolve().parents[2]
# Seconds of CPU time: on two cores that are busy, too.
_LONGEST = 10.0


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def _edited(kind: Kind, edit: Edit) -> bytes:
    document = copy.deepcopy(kind.valid)
    edit(document)
    return kind.encode(document)


def test_each_is_refused() -> None:
    seen = set()
    for kind in KINDS:
        kind.read(kind.encode(kind.valid))
        for name, document in kind.documents():
            with pytest.raises(kumo_crt.FormatError) as caught:
                kind.read(document)
            message = str(caught.value)
            # It goes to a terminal and to logs.
            assert message.startswith(WHERE), (kind.name, name)
            assert len(message) < 500, (kind.name, name)
            assert message.isprintable(), (kind.name, name)
            seen.add((kind.name, document))
    assert len(seen) >= PROMISED
    done[HOSTILE] += len(seen)


def test_vast_ones_are_refused_in_little_time_and_memory() -> None:
    """The limit of memory is the system's: a process that needs more is told that there is none."""
    paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, "-m", "tests.faults.vast_process"],
        env=environment({"PYTHONPATH": paths}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(told) == len(VAST)
    for item in told:
        assert item["refused"], f"{item['what']}: out of memory, or not refused"
        assert item["refused"].startswith(WHERE)
        assert item["seconds"] < _LONGEST, item["what"]
    assert max(item["bytes"] for item in told) > _documents.MAX_DOCUMENT
    done["vast hostile documents refused"] += len(told)


# -- in a repository --------------------------------------------------------------------------


@pytest.fixture
def prefix(stage: Stage) -> str:
    """A repository with a snapshot of a small database."""
    path = stage.new_directory() / "db"
    prefix = stage.new_prefix()
    with stage.repository(prefix).create(stage.url(prefix), client=stage.client) as repository:
        generation(path, 0)
        repository.backup(path)
    return prefix


@pytest.fixture
def database(stage: Stage) -> Path:
    """Another database."""
    path = stage.new_directory() / "db"
    make_one_key(path)
    return path


def _put(stage: Stage, prefix: str, key: str, document: bytes) -> None:
    stage.judge.boto.put_object(Bucket=stage.judge.bucket, Key=prefix + key, Body=document)


def _refusals(stage: Stage, prefix: str, name: str, calls: dict[str, Callable[[], object]]) -> None:
    """Each of some calls is refused because of an object, and changes nothing."""
    before = stage.judge.listed(prefix)
    for call in calls.values():
        with pytest.raises(kumo_crt.FormatError, match=name):
            call()
    after = stage.judge.listed(prefix)
    kept = {key for key in after if not key.startswith("inflight/")}
    assert kept == {key for key in before if not key.startswith("inflight/")}
    done["hostile documents in a repository, refused"] += 1


@pytest.mark.parametrize("what", ["version 2", "format None", "no created_at", "sse 'none'", "NaN"])
def test_a_configuration(stage: Stage, prefix: str, database: Path, what: str) -> None:
    document = dict(_kind("configuration").documents())[what]
    _put(stage, prefix, "kumo-repository.json", document)
    repository = stage.repository(prefix)
    target = database.with_name("restored")
    calls = {
        "open": lambda: kumo_crt.Repository.open(stage.url(prefix), client=stage.client),
        "backup": lambda: repository.backup(database),
        "restore": lambda: repository.restore(target),
        "verify": repository.verify,
        "prune": lambda: repository.prune(keep_last=1),
    }
    _refusals(stage, prefix, "kumo-repository.json", calls)
    assert os.listdir(target.parent) == ["db"]


@pytest.mark.parametrize("what", [*("lists as deep as they go", "zeros", "version 2"), "vast"])
def test_a_manifest(stage: Stage, prefix: str, database: Path, what: str) -> None:
    name = "20361123T060000Z-0a1b2c3d"
    document = (
        b'{"format":"kumo-snapshot","version":1,"files":[' + b"0," * 10_000_000 + b"0]}"
        if what == "vast"
        else dict(_kind("manifest").documents())[what]
    )
    _put(stage, prefix, f"snapshots/{name}.json", document)
    repository = stage.repository(prefix)
    target = database.with_name("restored")
    calls: dict[str, Callable[[], object]] = {
        "restore": lambda: repository.restore(target),
        "snapshot": repository.snapshot,
        "snapshots": repository.snapshots,
        "prune": lambda: repository.prune(keep_last=1),
    }
    _refusals(stage, prefix, name, calls)
    assert os.listdir(target.parent) == ["db"]
    report = repository.verify("all", record=False)
    assert [problem.kind for problem in report.problems] == ["manifest"]


def _received(stage: Stage) -> int:
    received: int = stage.client.metrics()["operations"]["GetObject"]["bytes_received"]
    return received


def test_what_is_larger_than_a_document_is_not_even_read(
    stage: Stage, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "20361123T060000Z-0a1b2c3d"
    _put(stage, prefix, f"snapshots/{name}.json", bytes(40 << 20))
    monkeypatch.setattr(_documents, "MAX_DOCUMENT", 1 << 20)
    before = _received(stage)
    _refusals(stage, prefix, name, {"snapshot": stage.repository(prefix).snapshot})
    assert _received(stage) - before < 20 << 20


@pytest.mark.parametrize("kind", ["backup", "sweep"])
def test_a_lease(stage: Stage, prefix: str, database: Path, kind: str) -> None:
    """What a running backup relies on, or a prune deletes, is not known: nothing is deleted."""
    lease = _kind("lease")
    key = f"inflight/{kind}-{'0' * 32}-000000.json"
    _put(stage, prefix, key, _edited(lease, lambda document: document.update(kind=kind, objects=5)))
    repository = stage.repository(prefix)
    ids = [snapshot.id for snapshot in repository.snapshots()]
    # Whoever is told of it by this object: a backup has to keep off what is being deleted.
    calls: dict[str, Callable[[], object]] = {
        "backup": lambda: repository.prune(keep_last=1),
        "sweep": lambda: repository.backup(database),
    }
    _refusals(stage, prefix, key, {kind: calls[kind]})
    assert [snapshot.id for snapshot in repository.snapshots()] == ids


@pytest.mark.parametrize("what", ["zeros", "objects True", "version 2"])
def test_a_mark_is_worth_nothing(stage: Stage, prefix: str, what: str) -> None:
    name = "20261123T060000Z-0a1b2c3d"
    _put(stage, prefix, f"marks/{name}.json", dict(_kind("mark").documents())[what])
    before = stage.judge.look(prefix)
    stage.repository(prefix).prune()
    found = stage.judge.look(prefix)
    assert found.snapshots == before.snapshots
    assert found.below("data/") == before.below("data/")
    assert found.below("marks/") == set()
    done["hostile documents in a repository, refused"] += 1


@pytest.mark.parametrize("what", ["zeros", "lists as deep as they go", "nothing"])
def test_a_pin_counts_whatever_it_says(
    stage: Stage, prefix: str, database: Path, what: str
) -> None:
    repository = stage.repository(prefix)
    pinned = repository.snapshot().id
    _put(stage, prefix, f"pins/{pinned}.json", TEXTS[what])
    _put(stage, prefix, "pins/20261123T060000Z.json", TEXTS[what])
    repository.backup(database)
    repository.backup(database)
    repository.prune(keep_last=1)
    assert pinned in {snapshot.id for snapshot in repository.snapshots()}
    assert repository.snapshot(pinned).pinned
    done["hostile documents in a repository, refused"] += 1


@pytest.mark.parametrize("what", ["zeros", "reads[0].at 5", "version 2"])
def test_a_ledger_is_ignored_with_a_warning(
    stage: Stage, prefix: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "20261123T060000Z-0a1b2c3d"
    _put(stage, prefix, f"health/{name}.json", dict(_kind("ledger").documents())[what])
    with caplog.at_level(logging.WARNING):
        assert stage.repository(prefix).verify("all", level="full", subset="oldest/1").ok
    assert name in caplog.text
    done["hostile documents in a repository, refused"] += 1


@pytest.mark.parametrize(
    "what", ["files[0].key 'data/../x'", "entries -1", "zeros", "version 2", "a file twice"]
)
def test_an_export(stage: Stage, database: Path, what: str) -> None:
    prefix = stage.new_prefix()
    _put(stage, prefix, "kumo-export.json", dict(_kind("export").documents())[what])
    before = read_all(database)
    new = database.with_name("new")
    calls = {
        "inspect": lambda: export.inspect(stage.url(prefix), client=stage.client),
        "import": lambda: export.import_(stage.url(prefix), database, client=stage.client),
        "import to nothing": lambda: export.import_(stage.url(prefix), new, client=stage.client),
    }
    _refusals(stage, prefix, "kumo-export.json", calls)
    assert os.listdir(database.parent) == ["db"]
    assert read_all(database) == before
