"""One budget of bytes and requests a second for everything that goes through a `Repository`."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _inflight, _lease
from kumo_crt.s3._budget import Budget
from tests.backup.boundaries import watched
from tests.backup.conftest import Make
from tests.backup.helpers import url

pytestmark = pytest.mark.servers("seaweed-http")


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def test_limits_of_the_environment(
    s3: kumo_crt.S3Client, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("one_key")
    monkeypatch.setenv("KUMO_CRT_MAX_REQUESTS_PER_SECOND", "20")
    limited = kumo_crt.Repository.create(url(bucket), client=s3)
    assert 0.3 < _seconds(lambda: [limited.backup(path), limited.snapshots()]) < 5
    monkeypatch.setenv("KUMO_CRT_MAX_REQUESTS_PER_SECOND", "0")
    with pytest.raises(ValueError, match="requests per second is 0"):
        kumo_crt.Repository(url(bucket), client=s3)
    monkeypatch.setenv("KUMO_CRT_MAX_BYTES_PER_SECOND", "50 MBit")
    with pytest.raises(
        ValueError, match="KUMO_CRT_MAX_BYTES_PER_SECOND='50 MBit' is not a size: write 50MB"
    ):
        kumo_crt.Repository(url(bucket), client=s3)
    monkeypatch.setenv("KUMO_CRT_MAX_BYTES_PER_SECOND", "50MB")
    monkeypatch.delenv("KUMO_CRT_MAX_REQUESTS_PER_SECOND")
    assert Budget.of(None, None).rates == (50e6, None)
    kumo_crt.Repository(
        url(bucket), client=s3, max_bytes_per_second=1e6, max_requests_per_second=20
    )


def test_limits_of_the_environment_are_the_processes(
    s3: kumo_crt.S3Client, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two repositories of it share them."""
    monkeypatch.setenv("KUMO_CRT_MAX_REQUESTS_PER_SECOND", "41")  # a rate of this test's own
    both = [kumo_crt.Repository.create(f"{url(bucket)}-{n}", client=s3) for n in range(2)]
    path = make("one_key")

    def back_up(repository: kumo_crt.Repository) -> None:
        for _ in range(3):
            repository.backup(path, live=True)

    with watched(s3) as watch, ThreadPoolExecutor(2) as pool:
        seconds = _seconds(lambda: list(pool.map(back_up, both)))
    count = len([sent for sent in watch.sent if "/inflight/backup-" not in sent.key])
    assert count > 30
    assert (count - 2) / 41 < seconds < count / 41 + 5


@pytest.mark.usefixtures("each_alone")
def test_bytes_of_all_threads_together(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str, make: Make, tmp_path: Path
) -> None:
    snapshot = repository.backup(make("many_files"))
    size = snapshot.uploaded_bytes
    limited = kumo_crt.Repository(url(bucket), client=s3, max_bytes_per_second=3 * size)

    def restore(number: int) -> None:
        limited.restore(tmp_path / f"restored-{number}")

    # The last may begin when all before it have had their time.
    assert 0.25 < _seconds(lambda: restore(0)) < 5
    with ThreadPoolExecutor(4) as pool:
        together = _seconds(lambda: list(pool.map(restore, range(1, 5))))
    assert 1.2 < together < 10
    assert 0.25 < _seconds(lambda: limited.verify(level="full")) < 5


def test_bytes_of_a_large_object(
    small_parts: kumo_crt.S3Client, bucket: str, make: Make, tmp_path: Path
) -> None:
    """Its parts are spread, both ways."""
    path = make("large")
    size = sum(file.stat().st_size for file in path.glob("*.sst"))
    limited = kumo_crt.Repository.create(url(bucket), client=small_parts, max_bytes_per_second=size)
    # Of about 12 MiB, the last part of 5 MiB or less may begin when the rest has had its time.
    assert 0.5 < _seconds(lambda: limited.backup(path)) < 10
    time.sleep(0.6)
    assert 0.5 < _seconds(lambda: limited.restore(tmp_path / "restored")) < 10


@pytest.mark.usefixtures("each_alone")
def test_requests(s3: kumo_crt.S3Client, bucket: str, make: Make) -> None:
    limited = kumo_crt.Repository.create(url(bucket), client=s3, max_requests_per_second=40)
    path = make("many_files")
    with watched(s3) as watch:
        seconds = _seconds(lambda: limited.backup(path))
    count = len([sent for sent in watch.sent if "/inflight/backup-" not in sent.key])
    assert count > 40
    assert (count - 1) / 40 < seconds < count / 40 + 5


def test_leases_do_not_wait_for_their_turn(
    s3: kumo_crt.S3Client, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("many_files")
    size = sum(file.stat().st_size for file in path.glob("*.sst"))
    monkeypatch.setattr(_lease, "_RENEW", 0.2 / _inflight.LEASE)
    limited = kumo_crt.Repository.create(
        url(bucket), client=s3, max_bytes_per_second=size / 2, max_requests_per_second=1000
    )
    # Every file waits for its turn from the start: a renewal in that queue would be the last.
    with watched(s3) as watch:
        assert 1.6 < _seconds(lambda: limited.backup(path, max_concurrency=64)) < 10
    pinned = [s for s in watch.sent if s.operation == "PutObject" and "/inflight/" in s.key]
    assert len(pinned) >= 4


@pytest.mark.parametrize("name", ["max_bytes_per_second", "max_requests_per_second"])
@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_rates_that_are_none(s3: kumo_crt.S3Client, bucket: str, name: str, wrong: float) -> None:
    options: Any = {name: wrong}
    for make_one in (kumo_crt.Repository, kumo_crt.Repository.create, kumo_crt.Repository.open):
        with pytest.raises(ValueError, match=r"(bytes|requests) per second is"):
            make_one(url(bucket), client=s3, **options)


@pytest.mark.usefixtures("each_alone")
def test_workers_of_an_executor_keep_to_it_together(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, bucket: str, make: Make
) -> None:
    snapshot = repository.backup(make("many_files"))
    size = snapshot.uploaded_bytes
    limited = kumo_crt.Repository(url(bucket), client=s3, max_bytes_per_second=size)
    with ThreadPoolExecutor(4) as pool:
        took = _seconds(lambda: limited.verify(level="full", executor=pool))
        quick = _seconds(lambda: repository.verify(level="full", executor=pool))
    # The last portion, of 32, may begin when those before it have had their time.
    assert 0.9 < took < 5
    assert quick < took / 2
