"""Whoever is told of progress is told of the end: also where there is damage."""

from __future__ import annotations

from typing import Any

import pytest

import kumo_crt
from tests.backup.conftest import Make
from tests.backup.helpers import delete, get, key_of, put, stored_files

pytestmark = pytest.mark.servers("seaweed-http")


class Told:
    """What a callback is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))

    def check(self) -> None:
        done, total = self.calls[-1]
        assert done == total > 0
        assert all(0 <= done <= total for done, total in self.calls)


@pytest.fixture(params=["alone", "bundles", "archive"])
def damaged(
    request: pytest.FixtureRequest, repository: kumo_crt.Repository, make: Make, boto: Any
) -> Any:
    """A repository of which objects are damaged, and its database."""
    path = make("many_files")
    alone = request.param == "alone"
    snapshot = repository.backup(
        path, bundle_below=0 if alone else None, single_object=request.param == "archive"
    )
    bucket = request.getfixturevalue("bucket")
    first = key_of(stored_files(snapshot)[0])
    put(boto, bucket, first, b"x" * len(get(boto, bucket, first)))
    if alone:
        delete(boto, bucket, key_of(stored_files(snapshot)[1]))
    return repository, path


@pytest.mark.parametrize("level", ["quick", "stored", "full"])
def test_verifications_count_what_is_damaged(damaged: Any, level: str) -> None:
    repository, _ = damaged
    told = Told()
    repository.verify("all", level=level, progress=told)
    told.check()


@pytest.mark.parametrize("dry_run", [True, False])
def test_repairs_count_what_they_look_at(damaged: Any, dry_run: bool) -> None:
    repository, path = damaged
    told = Told()
    assert repository.repair(path, level="full", dry_run=dry_run, progress=told).ok
    told.check()


def test_repairs_count_what_cannot_be_repaired(damaged: Any) -> None:
    repository, _ = damaged
    told = Told()
    assert not repository.repair(level="full", progress=told).ok
    told.check()
