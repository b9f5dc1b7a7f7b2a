"""A backup while a prune deletes: what it condemns is not relied on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _lease
from kumo_crt.backup._send import _upload
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    content_of,
    delete,
    key_of,
    keys,
    manifest_key,
    put,
    remove,
    stored_files,
)
from tests.backup.sweeping import SWEEP, sweep_of

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.parametrize("how", ["known from a snapshot", "found"])
def test_reused_objects_are_looked_at_again_if_their_snapshot_is_gone(
    monkeypatch: pytest.MonkeyPatch,
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    how: str,
) -> None:
    """What only a prune that breaks the rules can do is found all the same."""
    monkeypatch.setattr(_upload, "_FRESH", 0.0)
    path = make("many_files")
    first = repository.backup(path)
    victim = stored_files(first, "sst")[3]

    def tamper(number: int, sent: Sent) -> None:
        if sent.operation == "ListObjectsV2" and number > 4:
            if how == "found":
                put(boto, bucket, SWEEP, sweep_of(key_of(victim)))
            else:
                remove(boto, bucket, first)
            delete(boto, bucket, key_of(victim))

    with watched(s3, tamper), pytest.raises(kumo_crt.IntegrityError, match="run it again") as told:
        repository.backup(path)
    assert key_of(victim) in str(told.value)
    assert len(repository.snapshots()) == (1 if how == "found" else 0)
    delete(boto, bucket, SWEEP)
    if how == "found":
        remove(boto, bucket, first)
    repository.backup(path)
    assert repository.verify(level="full").ok


@pytest.mark.parametrize("how", ["all there", "reused", "sent", "being swept"])
def test_a_manifest_that_came_too_late_is_taken_back(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    if how == "sent":
        path = make("plain")
    victim = key_of(stored_files(first, "sst")[3])
    monkeypatch.setattr(_lease.Lease, "outlived", lambda self, moment: moment is not None)

    def tamper(number: int, sent: Sent) -> None:
        if sent.operation != "PutObject" or "/snapshots/" not in sent.key:
            return
        if how == "being swept":
            # A prune that did not count the pin, and looked for manifests before there was this.
            put(boto, bucket, SWEEP, sweep_of(victim))
        elif how == "reused":
            delete(boto, bucket, victim)
        elif how == "sent":
            new = keys(boto, bucket, "data/") - first.object_keys
            delete(boto, bucket, min(new))

    with watched(s3, tamper):
        if how == "all there":
            repository.backup(path)
        else:
            with pytest.raises(kumo_crt.LeaseExpiredError, match="deleted by a prune"):
                repository.backup(path)
    assert len(repository.snapshots()) == (2 if how == "all there" else 1)


def test_what_is_being_deleted_is_not_relied_on(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    condemned = [key_of(file) for file in stored_files(first, "sst")[:5]]
    kept = {key_of(file) for file in stored_files(first)} - set(condemned)
    put(boto, bucket, SWEEP, sweep_of(*condemned))
    second = repository.backup(path)
    named = {key_of(file) for file in stored_files(second)}
    assert kept <= named
    assert not named & set(condemned)
    variants = {key.split("/")[2].rpartition(".")[0] for key in named - kept}
    assert variants == {key.split("/")[2] for key in condemned}
    # The prune goes on: also what is there under such a name again would be deleted.
    delete(boto, bucket, manifest_key(first))
    for key in condemned:
        delete(boto, bucket, key)
    delete(boto, bucket, SWEEP)
    with watched(s3) as watch:
        third = repository.backup(path)
    assert third.uploaded_bytes == 0
    assert third.files == second.files
    assert len(watch.sent) <= 10
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("many_files")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        sweep_of().replace(b"kumo-lease", b"kumo-leash"),
        sweep_of().replace(b'"version": 1', b'"version": 2'),
        sweep_of().replace(b'"objects": []', b'"objects": ["../x"]'),
        sweep_of().replace(b'"objects": []', b'"objects": {}'),
        sweep_of().replace(b'"snapshots": []', b'"snapshots": ["x"]'),
    ],
)
def test_a_sweep_that_cannot_be_read_stops_backups(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, content: bytes
) -> None:
    put(boto, bucket, SWEEP, content)
    with pytest.raises(kumo_crt.FormatError, match=rf"{SWEEP}.*if there is none, delete s3://"):
        repository.backup(make("one_key"))
    assert keys(boto, bucket, "inflight/") == {SWEEP}
