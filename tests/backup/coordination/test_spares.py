"""Spare manifests: the loss of a manifest is told, costs nothing, and is put right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.damaging import check_good
from tests.backup.doctoring import doctor_of, findings_of
from tests.backup.helpers import (
    content_of,
    delete,
    flipped,
    get,
    keys,
    manifest_key,
    put,
    remove,
    spare_key,
    url,
)
from tests.backup.interleaving import without_waiting
from tests.backup.pruning import generations, ids, named
from tests.backup.sweeping import SWEEP
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

HOWS = ("lost", "changed", "cut", "empty")


def _harm(boto: Any, bucket: str, key: str, how: str) -> None:
    content = get(boto, bucket, key)
    if how == "lost":
        delete(boto, bucket, key)
    else:
        bad = {"changed": flipped(content, 90), "cut": content[:-1], "empty": b""}[how]
        put(boto, bucket, key, bad)


def _told(repository: kumo_crt.Repository, snapshot: kumo_crt.Snapshot) -> None:
    """Verifications of each kind, the doctor and listings say which manifest it is."""
    for wanted in ("all", snapshot.id):
        for level in ("quick", "stored", "full"):
            report = repository.verify(wanted, level=level)
            (problem,) = report.problems
            assert (problem.kind, problem.key) == ("manifest", manifest_key(snapshot))
            assert problem.snapshots == (snapshot.id,)
            assert "spare is sound: run kumo-crt repair" in problem.message
            # Its data is looked at all the same.
            assert report.files >= len([f for f in snapshot.files if f.key])
    found = findings_of(doctor_of(repository, write=False), "snapshots")
    assert any(s == "error" and manifest_key(snapshot) in text for s, text in found)
    told: dict[str, str] = {}
    repository.snapshots(on_damage=lambda i, error: told.update({i: str(error)}))
    assert list(told) == [snapshot.id]
    with pytest.raises(kumo_crt.FormatError, match=manifest_key(snapshot)):
        repository.snapshots()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_manifest(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    which: int,
    how: str,
) -> None:
    path = make("one_key")
    snapshots = generations(repository, path, 3)
    contents = content_of(path) if which == 2 else None
    victim = snapshots[which]
    manifest = get(boto, bucket, manifest_key(victim))
    assert get(boto, bucket, spare_key(victim)) == manifest
    _harm(boto, bucket, manifest_key(victim), how)
    _told(repository, victim)

    # Nothing is deleted before it is back.
    before = keys(boto, bucket)
    with without_waiting():
        for dry_run in (True, False):
            with pytest.raises(kumo_crt.FormatError, match=rf"{victim.id}.*nothing was deleted"):
                repository.prune(keep_last=1, dry_run=dry_run)
    assert keys(boto, bucket) == before

    # It is restored exactly, and that it was lost is told.
    newest = "latest" if which == 2 else victim.id
    report = repository.restore(tmp_path / "restored", newest)
    assert report.snapshot == victim.id
    (warning,) = report.warnings
    assert manifest_key(victim) in warning
    assert "spare is sound, and was used" in warning
    if contents is not None:
        assert content_of(tmp_path / "restored") == contents
    drill = repository.drill(newest)
    assert [(p.kind, p.key) for p in drill.problems] == [("manifest", manifest_key(victim))]
    assert drill.entries

    assert repository.repair(dry_run=True).manifests == (victim.id,)
    repaired = repository.repair()
    assert (repaired.ok, repaired.manifests, repaired.spares) == (True, (victim.id,), ())
    assert get(boto, bucket, manifest_key(victim)) == manifest
    aside = keys(boto, bucket, "quarantine/")
    assert len(aside) == (0 if how == "lost" else 1)
    again = repository.repair()
    assert (again.ok, again.manifests, again.spares) == (True, (), ())
    check_good(repository, boto, bucket)
    with without_waiting():
        for _ in range(2):
            repository.prune(keep_last=1)
    assert ids(repository) == [snapshots[2].id]
    assert keys(boto, bucket, "data/") == named(repository)
    assert keys(boto, bucket, "spares/") == {spare_key(snapshots[2])}
    assert keys(boto, bucket, "inflight/") == set()


def test_all_manifests(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, library: Library
) -> None:
    """As after ``aws s3 rm --recursive`` of the folder."""
    path = make("plain")
    snapshots = [repository.backup(path) for _ in range(3)]
    for snapshot in snapshots:
        delete(boto, bucket, manifest_key(snapshot))
    report = repository.verify("all")
    assert [problem.snapshot for problem in report.problems] == [s.id for s in snapshots]
    assert repository.restore(path.with_name("restored")).snapshot == snapshots[2].id
    assert content_of(path.with_name("restored")) == library.truth("plain")
    # A backup relies on none of them, and finds what they have.
    newest = repository.backup(path)
    assert newest.uploaded_bytes == 0
    assert repository.repair().manifests == tuple(s.id for s in snapshots)
    assert set(ids(repository)) == {s.id for s in (*snapshots, newest)}
    check_good(repository, boto, bucket)


def test_it_is_to_go(repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make) -> None:
    """Whoever forgets a snapshot whose manifest is lost says that nobody needs it."""
    first, second = generations(repository, make("one_key"), 2)
    delete(boto, bucket, manifest_key(first))
    repository.delete_snapshot(first.id, dry_run=True)
    assert spare_key(first) in keys(boto, bucket)
    repository.delete_snapshot(first.id)
    with pytest.raises(kumo_crt.SnapshotNotFoundError):
        repository.delete_snapshot(first.id)
    with without_waiting():
        for _ in range(2):
            repository.prune()
    assert keys(boto, bucket, "data/") == second.object_keys
    check_good(repository, boto, bucket)


@pytest.mark.parametrize("how", HOWS)
def test_a_spare(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path, how: str
) -> None:
    path = make("one_key")
    first, second = generations(repository, path, 2)
    _harm(boto, bucket, spare_key(first), how)
    for wanted in ("all", first.id):
        quick = repository.verify(wanted, level="quick")
        report = repository.verify(wanted)
        if how == "lost":
            assert quick.ok
            assert report.ok
            (warning,) = report.warnings
            assert quick.warnings == report.warnings
            assert spare_key(first) in warning
        else:
            (problem,) = report.problems
            assert (problem.kind, problem.key) == ("manifest", spare_key(first))
    # It is needed for nothing.
    assert repository.restore(tmp_path / "restored", first.id).warnings == ()
    assert repository.snapshots() == [first, second]
    if how == "lost":
        with without_waiting():
            repository.prune()
    else:
        assert repository.repair(dry_run=True).spares == (first.id,)
        assert repository.repair().spares == (first.id,)
    assert get(boto, bucket, spare_key(first)) == get(boto, bucket, manifest_key(first))
    assert keys(boto, bucket, "inflight/") == set()
    report = repository.verify("all")
    assert (report.ok, report.warnings) == (True, ())


def test_both(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("one_key")
    first, second = generations(repository, path, 2)
    for key in (manifest_key(second), spare_key(second)):
        put(boto, bucket, key, flipped(get(boto, bucket, key), 90))
    (problem,) = repository.verify("all").problems
    assert problem.key == manifest_key(second)
    assert "Its spare is of no use, either" in problem.message
    for wanted in ("latest", second.id):
        with pytest.raises(
            kumo_crt.FormatError, match=r"of no use, either.*Choose another snapshot"
        ):
            repository.restore(tmp_path / "restored", wanted)
    assert not repository.repair(path).ok
    delete(boto, bucket, manifest_key(second))
    (problem,) = repository.verify("all").problems
    assert "the manifest is lost. Its spare is of no use, either" in problem.message
    with pytest.raises(kumo_crt.FormatError, match=r"is lost\. Its spare is of no"):
        repository.restore(tmp_path / "restored")
    assert repository.restore(tmp_path / "restored", first.id).warnings == ()


def test_one_that_says_something_else(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Both look sound: which is right is nothing that a tool may decide."""
    path = make("one_key")
    first, second = generations(repository, path, 2)
    other = get(boto, bucket, manifest_key(first)).replace(first.id.encode(), second.id.encode())

    from tests.backup.helpers import closed

    put(boto, bucket, spare_key(second), closed(json.loads(other)))
    (problem,) = repository.verify("all").problems
    assert (problem.kind, problem.key) == ("manifest", spare_key(second))
    assert "something else" in problem.message
    before = get(boto, bucket, spare_key(second))
    report = repository.repair()
    assert (report.ok, report.manifests, report.spares) == (False, (), ())
    assert get(boto, bucket, spare_key(second)) == before


# -- putting back, while others are at work -------------------------------------------------------


def test_repairs_and_deletions_at_once(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    s3_server: S3Server,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """At every request of the one, the whole of the other: both objects are there, or neither."""
    path = make("one_key")
    repository.backup(path)
    outcomes = set()
    number, at_once = 0, True
    while at_once:
        victim = repository.backup(path)
        delete(boto, bucket, manifest_key(victim))
        at_once = False

        def forget(at: int, sent: Sent, wanted: int = number, victim: Any = victim) -> None:
            nonlocal at_once
            if at == wanted and not watch.dead:
                at_once = True
                with (
                    kumo_crt.S3Client(**s3_server.client_arguments()) as other,
                    kumo_crt.Repository.open(url(bucket), client=other) as forgetting,
                ):
                    try:
                        forgetting.delete_snapshot(victim.id)
                    except kumo_crt.RepositoryLockedError:
                        outcomes.add("locked")
                    else:
                        outcomes.add("deleted")

        with watched(s3, forget) as watch:
            report = repository.repair(level="quick")
        outcomes.add(f"repaired {len(report.manifests)}")
        there = {key for key in keys(boto, bucket) if victim.id in key}
        assert there in (set(), {manifest_key(victim), spare_key(victim)})
        assert keys(boto, bucket, "inflight/") == set()
        if there:
            repository.delete_snapshot(victim.id)
        number += 1
    assert number > 10
    assert outcomes == {"locked", "deleted", "repaired 0", "repaired 1"}
    check_good(repository, boto, bucket)


def test_a_snapshot_that_is_being_deleted(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("one_key"))
    delete(boto, bucket, manifest_key(snapshot))
    sweep = _inflight.encode_lease("sweep", "x", "h", 1, (), [snapshot.id])
    put(boto, bucket, SWEEP, sweep)
    with pytest.raises(kumo_crt.RepositoryLockedError, match="is being deleted"):
        repository.repair()
    assert manifest_key(snapshot) not in keys(boto, bucket)
    delete(boto, bucket, SWEEP)
    assert repository.repair().manifests == (snapshot.id,)


def test_gone_with_both(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Without a spare, a snapshot that is not listed is one that was deleted."""
    first, second = generations(repository, make("one_key"), 2)
    remove(boto, bucket, first)
    report = repository.verify("all")
    assert (report.ok, report.warnings, report.snapshots) == (True, (), 1)
    assert repository.repair().ok
    assert ids(repository) == [second.id]
