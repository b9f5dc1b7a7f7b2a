"""Arguments of a wrong type are refused before they are written into a repository."""

from __future__ import annotations

from typing import Any

import pytest

import kumo_crt
from tests.backup.conftest import Make
from tests.backup.helpers import keys, url

pytestmark = pytest.mark.servers("seaweed-http")


@pytest.mark.parametrize("wrong", [5, True, b"prod", ["prod"]])
def test_an_environment_that_is_no_text(
    s3: kumo_crt.S3Client, boto: Any, bucket: str, wrong: Any
) -> None:
    """It was written, and the repository could not be opened ever after."""
    with pytest.raises(TypeError, match="environment: expected a name"):
        kumo_crt.Repository.create(url(bucket), client=s3, environment=wrong)
    assert keys(boto, bucket) == set()


@pytest.mark.parametrize("wrong", [5, b"s3://b/p", ["s3://b/p"], None])
def test_a_url_that_is_no_text(s3: kumo_crt.S3Client, wrong: Any) -> None:
    with pytest.raises(TypeError, match="url: expected s3://bucket/prefix"):
        kumo_crt.Repository(wrong, client=s3)


def test_a_password_in_a_url_is_not_repeated(s3: kumo_crt.S3Client) -> None:
    for url_with in ("s3://someone:hidden@bucket/prefix", "s3://someone:hidden@bucket/prefix?a=b"):
        with pytest.raises(ValueError, match="with a user") as caught:
            kumo_crt.Repository(url_with, client=s3)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("wrong", [5, "ab", ["a"], [("a", "b")]])
def test_tags_that_are_no_mapping(repository: kumo_crt.Repository, make: Make, wrong: Any) -> None:
    with pytest.raises(TypeError, match="tags: expected names and values"):
        repository.backup(make("one_key"), tags=wrong)


def test_numbers_that_are_not_whole(repository: kumo_crt.Repository, make: Make) -> None:
    path = make("one_key")
    for wrong in (1.5, float("nan"), "8"):
        some: Any = wrong
        with pytest.raises(TypeError, match="max_concurrency: expected a whole number"):
            repository.backup(path, max_concurrency=some)
        with pytest.raises(TypeError, match="days: expected a whole number"):
            repository.request_thaw(days=some)


def test_an_opener_that_is_none(repository: kumo_crt.Repository, make: Make) -> None:
    """It was written down as a database that RocksDB does not open."""
    repository.backup(make("one_key"))
    some: Any = "opener"
    with pytest.raises(TypeError, match="opener: expected a function"):
        repository.drill(opener=some)
    (health,) = repository.health()
    assert health.drill_failed is None
