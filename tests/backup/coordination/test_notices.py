"""Who finds damage leaves a notice, which the next backup reads; trouble is no damage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.backup._coordination import _notices
from kumo_crt.backup._coordination._ledger import Damage
from kumo_crt.s3 import _retry
from tests.backup.boundaries import watched
from tests.backup.conftest import Make
from tests.backup.damaging import check_good, damage, largest_table, noticed
from tests.backup.helpers import (
    PREFIX,
    delete,
    get,
    key_of,
    keys,
    put,
    stored_files,
    url,
)
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")


def _restored(repository: kumo_crt.Repository, target: Path) -> None:
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(target)


def _some_families(repository: kumo_crt.Repository, target: Path) -> None:
    with pytest.raises(kumo_crt.IntegrityError):
        repository.restore(target, column_families=["default"])


FINDERS: dict[str, Callable[[kumo_crt.Repository, Path], object]] = {
    "quick": lambda repository, _: repository.verify(level="quick"),
    "stored": lambda repository, _: repository.verify("all", level="stored"),
    "drill": lambda repository, path: repository.drill(scratch=path.parent),
    "restore": _restored,
    "restore of families": _some_families,
}


@pytest.mark.usefixtures("each_alone")
@pytest.mark.parametrize("finder", FINDERS)
def test_whoever_has_found_it(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    finder: str,
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    kind = "manifest" if "families" in finder else "sst"
    for file in stored_files(first, kind)[:3]:
        delete(boto, bucket, key_of(file))
    # A restore ends with the first that it meets: the next one meets the next.
    for found in range(1, 4):
        FINDERS[finder](repository, tmp_path / "target")
        told = noticed(boto, bucket)
        assert set(told.values()) == {"missing"}
        FINDERS[finder](repository, tmp_path / "target")
        assert found > 1 or "restore" in finder or "drill" in finder or len(told) == 3
        repository.backup(path)
        if repository.verify(level="stored", record=False).ok:
            break
    check_good(repository, boto, bucket)


def test_nothing_is_written_down_where_that_was_not_wanted(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    with kumo_crt.Repository.create(url(bucket, f"{PREFIX}/p"), client=s3, environment="prod") as r:
        key = key_of(stored_files(r.backup(make("plain")), "sst")[0])
        delete(boto, bucket, f"p/{key}")
        with kumo_crt.Repository(url(bucket, f"{PREFIX}/p"), client=s3, environment="dev") as dev:
            assert not dev.verify().ok
            with pytest.raises(kumo_crt.IntegrityError):
                dev.restore(make("empty").with_name("new"))
        assert not r.verify(record=False).ok
    assert keys(boto, bucket, "p/inflight/") == keys(boto, bucket, "p/health/") == set()


@pytest.mark.usefixtures("each_alone")
def test_what_it_costs(
    s3_via_proxy: kumo_crt.S3Client, boto: Any, bucket: str, proxy: FaultProxy, make: Make
) -> None:
    """A healthy repository as before; one request more as long as there is a notice."""
    repository = kumo_crt.Repository.create(url(bucket), client=s3_via_proxy)
    path, other = make("plain"), make("many_files")
    file = stored_files(repository.backup(other), "sst")[0]
    repository.backup(path)

    def requests() -> int:
        proxy.requests.clear()
        assert repository.backup(path).uploaded_bytes == 0
        return len(proxy.requests)

    assert requests() == 9
    delete(boto, bucket, key_of(file))
    assert not repository.verify("all").ok
    assert requests() == 10  # it is another database's
    assert repository.repair(other).ok
    assert noticed(boto, bucket) == {}
    assert requests() == 9


@pytest.mark.usefixtures("each_alone")
def test_a_verification_that_was_wrong(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    _, file, good = largest_table(repository, boto, bucket, path)
    damage(boto, bucket, key_of(file), "missing")
    assert not repository.verify().ok
    put(boto, bucket, key_of(file), good)
    with watched(s3) as watch:
        second = repository.backup(path)
    assert second.uploaded_bytes == 0
    assert second.warnings == ()
    assert [s for s in watch.sent if s.operation == "PutObject" and "/data/" in s.key] == []
    check_good(repository, boto, bucket)


def test_trouble_is_no_damage(
    repository: kumo_crt.Repository,
    s3_server: Any,
    boto: Any,
    bucket: str,
    proxy: FaultProxy,
    make: Make,
    tmp_path: Path,
) -> None:
    repository.backup(make("plain"))
    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url, max_attempts=2)
    busy = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    with kumo_crt.S3Client(**arguments) as client:
        troubled = kumo_crt.Repository(url(bucket), client=client)
        for fault in (
            Fault("answer", "request", target="/data/", answer=busy, times=999),
            Fault("reset", target="/data/", times=999, in_head=True),
        ):
            with proxy.armed(fault):
                for level in ("stored", "full"):
                    with pytest.raises(kumo_crt.KumoError):
                        troubled.verify(level=level)
                with pytest.raises(kumo_crt.KumoError):
                    troubled.restore(tmp_path / "restored")
    check_good(repository, boto, bucket)


FAILED = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\n"
    b"Content-Length: 52\r\n\r\n<Error><Code>InternalError</Code><Message/></Error>\n\n"
)


@pytest.mark.usefixtures("each_alone")
def test_what_the_service_itself_finds_rotten(
    s3_via_proxy: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    proxy: FaultProxy,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers 500 whenever it is asked for that object, until somebody replaces it."""
    monkeypatch.setattr(_retry, "_OUTAGE_FAILING", 1.0)
    repository = kumo_crt.Repository.create(url(bucket), client=s3_via_proxy)
    path = make("plain")
    _, file, good = largest_table(repository, boto, bucket, path)
    rotten = Fault("answer", "request", method="GET", target=key_of(file), times=99, answer=FAILED)
    # The object that is put there then is another one.
    rotten.when = lambda _: proxy.count("PUT", key_of(file)) == 1
    every = Fault("answer", "request", method="GET", target="/data/", times=999, answer=FAILED)
    with proxy.armed(every):
        report = repository.verify(level="full")
    assert {problem.kind for problem in report.problems} == {"unreadable"}
    assert noticed(boto, bucket) == {}  # of all objects at once: that is the service's trouble
    with proxy.armed(rotten):
        (problem,) = repository.verify(level="full").problems
        assert (problem.key, problem.kind) == (file.key, "unreadable")
        assert noticed(boto, bucket) == {file.key: "unreadable"}
        delete(boto, bucket, key_of(file))  # to see that it is sent
        put(boto, bucket, key_of(file), b"?")
        second = repository.backup(path)
    assert second.uploaded_bytes == file.size
    assert get(boto, bucket, key_of(file)) == good
    check_good(repository, boto, bucket)


NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_notices_are_put_together(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    store = repository._store()
    told = {f"data/1f/sst-{number}": Damage(NOW, "missing") for number in range(20)}
    for key, what in told.items():
        for _ in range(2):
            repository._run(_notices.add_task(store, {key: what}, "a test"))
        assert len(keys(boto, bucket, "inflight/")) <= 8
    assert set(noticed(boto, bucket)) == set(told)
    # Of what was seen before, and no more.
    seen = repository._run(_notices.read_all_task(store))
    assert seen.damaged == told
    late = {"data/1f/sst-late": Damage(NOW, "size")}
    repository._run(_notices.add_task(store, late, "a test"))
    repository._run(_notices.withdraw_task(store, seen, {*list(told)[:19], *late}, "a test"))
    assert set(noticed(boto, bucket)) == {list(told)[19], *late}
    seen = repository._run(_notices.read_all_task(store))
    repository._run(_notices.withdraw_task(store, seen, seen.damaged, "a test"))
    assert keys(boto, bucket, "inflight/") == set()


def test_what_cannot_be_judged_is_no_damage(repository: kumo_crt.Repository) -> None:
    """What has to be thawed, or compared in another way, is not told."""
    store = repository._store()
    told = {"data/1f/sst-1": Damage(NOW, "unverifiable"), "data/1f/sst-2": Damage(NOW, "archived")}
    repository._run(_notices.add_task(store, told, "a test"))
    assert repository._run(_notices.read_all_task(store)).parts == {}


@pytest.mark.parametrize("content", [b"?", b"", b'{"format":"kumo-damage","version":2}'])
def test_a_notice_that_cannot_be_read_is_worth_nothing(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    key = f"inflight/damage-{'0' * 32}-000000.json"
    put(boto, bucket, key, content)
    path = make("one_key")
    repository.backup(path)
    repository.backup(path)
    repository.prune()
    assert repository.verify(level="full").ok
    assert f"{url(bucket)}/{key}" in caplog.text
    assert keys(boto, bucket, "inflight/") == {key}
