"""A backup puts right what is known to be damaged, or relies on something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt.s3 import _retry
from tests.backup.boundaries import Sent, watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    bundles_of,
    compact_tables,
    content_of,
    delete,
    flipped,
    get,
    key_of,
    keys,
    manifest_key,
    put,
    stored_files,
    url,
    write_tables,
)
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.servers("seaweed-http")

DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 51\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message/></Error>\n"
)


FAILED = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\n"
    b"Content-Length: 52\r\n\r\n<Error><Code>InternalError</Code><Message/></Error>\n\n"
)


def damage(boto: Any, bucket: str, key: str, how: str) -> bytes:
    """Returns what is there now."""
    content = get(boto, bucket, key)
    if how == "missing":
        delete(boto, bucket, key)
        return b""
    bad = flipped(content) if how == "checksum" else content[:-1]
    put(boto, bucket, key, bad)
    return bad


def noticed(boto: Any, bucket: str) -> dict[str, str]:
    """What notices say, as docs/format.md has it: kinds by keys."""
    documents = [json.loads(get(boto, bucket, k)) for k in keys(boto, bucket, "inflight/damage-")]
    assert all(d["format"] == "kumo-damage" and d["version"] == 1 for d in documents)
    return {item["key"]: item["kind"] for d in documents for item in d["damaged"]}


def known_damage(repository: kumo_crt.Repository) -> set[str]:
    """What `snapshots` and `doctor` tell."""
    told = {key for item in repository.health() for key in item.damaged}
    doctor = repository.doctor(write=False, throughput_bytes=0)
    assert any(finding.check == "damage" for finding in doctor.findings) is bool(told)
    return told


def check_good(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    """Nothing is damaged, nor thought to be."""
    assert repository.verify("all", level="full", record=False).ok
    assert noticed(boto, bucket) == {}
    assert known_damage(repository) == set()


@pytest.mark.servers("seaweed-http", "moto")
@pytest.mark.usefixtures("each_alone")
@pytest.mark.parametrize("how", ["checksum", "missing", "size"])
def test_damage_that_a_verification_found(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, how: str
) -> None:
    path = make("deletions")
    first = repository.backup(path)
    file = stored_files(first, "sst")[0]
    good = get(boto, bucket, key_of(file))
    bad = damage(boto, bucket, key_of(file), how)
    assert not repository.verify(level="full").ok
    assert noticed(boto, bucket) == {key_of(file): how}
    assert known_damage(repository) == {key_of(file)}

    planned = repository.backup(path, dry_run=True)
    assert planned.uploaded_bytes == file.size
    second = repository.backup(path)
    assert second.object_keys == first.object_keys
    assert (second.uploaded_bytes, second.reused_bytes) == (
        file.size,
        first.uploaded_bytes - file.size,
    )
    assert any(key_of(file) in text and "sent again" in text for text in second.warnings)
    assert get(boto, bucket, key_of(file)) == good
    aside = keys(boto, bucket, "quarantine/")
    assert [get(boto, bucket, key) for key in aside] == ([] if how == "missing" else [bad])
    check_good(repository, boto, bucket)


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

    assert requests() == 10
    delete(boto, bucket, key_of(file))
    assert not repository.verify("all").ok
    assert requests() == 11  # it is another database's
    assert repository.repair(other).ok
    assert noticed(boto, bucket) == {}
    assert requests() == 10


def test_a_bundle(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    path = make("many_files")
    first = repository.backup(path)
    (key,) = bundles_of(first)
    good = get(boto, bucket, key)
    damage(boto, bucket, key, "checksum")
    assert not repository.verify(level="full").ok
    second = repository.backup(path)
    assert second.object_keys == first.object_keys
    assert get(boto, bucket, key) == good
    check_good(repository, boto, bucket)


def test_a_bundle_of_which_something_is_lost(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path
) -> None:
    """What the database still has goes into a new one; what it has not, stays damaged."""
    path = tmp_path / "db"
    write_tables(path, 0, 20, value_size=2000)
    first = repository.backup(path)
    (key,) = bundles_of(first)
    delete(boto, bucket, key)
    assert not repository.verify().ok
    compact_tables(path, 4)
    second = repository.backup(path)
    assert key not in second.object_keys
    assert any(key in text and "another name" in text for text in second.warnings)
    assert repository.verify(level="full").ok
    assert noticed(boto, bucket) == {key: "missing"}
    assert known_damage(repository) == {key}
    # From then on it costs nothing.
    third = repository.backup(path)
    assert third.uploaded_bytes == 0
    assert third.warnings == ()
    # Gone with its snapshot.
    repository.prune(keep_last=1)
    check_good(repository, boto, bucket)


@pytest.mark.usefixtures("each_alone")
def test_what_may_not_be_replaced(
    repository: kumo_crt.Repository,
    s3_via_proxy: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    proxy: FaultProxy,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    """A client that may only add, such as one that no ransom can delete with."""
    path = make("plain")
    first = repository.backup(path)
    file = stored_files(first, "sst")[0]
    bad = damage(boto, bucket, key_of(file), "checksum")
    assert not repository.verify().ok
    proxy.add(Fault("answer", "request", target="/quarantine/", answer=DENIED, times=99))
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as adding:
        second = adding.backup(path)
        assert second.uploaded_bytes == file.size
        assert get(boto, bucket, key_of(file)) == bad
        (new,) = second.object_keys - first.object_keys
        name = key_of(file).rpartition("/")[2]
        assert new.rpartition("/")[2].startswith(f"{name}.")
        # Neither sent again, nor looked at again.
        proxy.requests.clear()
        assert adding.backup(path).object_keys == second.object_keys
        assert len(proxy.requests) == 11
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("plain")
    assert known_damage(repository) == {key_of(file)}
    assert repository.repair(path).ok
    check_good(repository, boto, bucket)


@pytest.mark.usefixtures("each_alone")
def test_a_verification_that_was_wrong(
    repository: kumo_crt.Repository, s3: kumo_crt.S3Client, boto: Any, bucket: str, make: Make
) -> None:
    path = make("plain")
    file = stored_files(repository.backup(path), "sst")[0]
    good = get(boto, bucket, key_of(file))
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
    first = repository.backup(path)
    file = stored_files(first, "sst")[0]
    good = get(boto, bucket, key_of(file))
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


@pytest.mark.parametrize("how", ["checksum", "missing"])
def test_encrypted(
    encrypted: kumo_crt.Repository,
    keyless: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    how: str,
) -> None:
    path = make("blobs")
    first = encrypted.backup(path)
    before = {key: get(boto, bucket, key) for key in first.object_keys}
    for key in first.object_keys:
        damage(boto, bucket, key, how)
    # Who verifies needs no key, who backs up has it.
    assert not keyless.verify(level="full").ok
    assert set(noticed(boto, bucket)) == first.object_keys
    second = encrypted.backup(path)
    assert second.object_keys == first.object_keys
    assert {key: get(boto, bucket, key) for key in first.object_keys} == before
    check_good(encrypted, boto, bucket)


@pytest.mark.parametrize("kind", ["repository", "encrypted"])
@pytest.mark.parametrize("how", ["checksum", "missing", "size"])
def test_a_single_object(
    request: pytest.FixtureRequest, boto: Any, bucket: str, make: Make, how: str, kind: str
) -> None:
    repository: kumo_crt.Repository = request.getfixturevalue(kind)
    path = make("column_families")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    good = get(boto, bucket, key)
    damage(boto, bucket, key, how)
    assert not repository.verify(level="full").ok
    # Other backups never rely on it.
    repository.backup(path)
    assert noticed(boto, bucket) == {key: how}
    second = repository.backup(path, single_object=True)
    assert second.object_keys == {key}
    assert get(boto, bucket, key) == good
    check_good(repository, boto, bucket)


def test_a_single_object_whose_manifest_is_damaged(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make
) -> None:
    """Nobody knows any more what it was: it is left alone, and another one made."""
    path = make("plain")
    first = repository.backup(path, single_object=True)
    (key,) = first.object_keys
    bad = damage(boto, bucket, key, "checksum")
    assert not repository.verify(level="full").ok
    put(boto, bucket, manifest_key(first), b"?")
    second = repository.backup(path, single_object=True)
    assert second.object_keys != {key}
    assert get(boto, bucket, key) == bad
    assert repository.verify(second.id, level="full").ok


# -- at the same time ------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_alone")
def test_damage_is_found_while_a_backup_runs(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    s3_server: Any,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """Whenever that is, no snapshot relies on it without knowing."""
    path = make("plain")
    first = repository.backup(path)
    file = stored_files(first, "sst")[0]
    good = get(boto, bucket, key_of(file))
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        other = kumo_crt.Repository(url(bucket), client=client)
        with watched(s3) as watch:
            repository.backup(path)
        count = len(watch.sent)
        last_look = max(i for i, s in enumerate(watch.sent) if s.operation == "ListObjectsV2")
        for moment in range(count):
            damage(boto, bucket, key_of(file), "missing")

            def find(number: int, sent: Sent, moment: int = moment) -> None:
                if number == moment:
                    assert not other.verify(first.id).ok

            with watched(s3, find):
                second = repository.backup(path)
            if moment <= last_look:
                assert get(boto, bucket, key_of(file)) == good, moment
                assert second.uploaded_bytes == file.size
                assert noticed(boto, bucket) == {}
            else:
                # Too late for this one: the next.
                assert noticed(boto, bucket) == {key_of(file): "missing"}
                assert repository.backup(path).uploaded_bytes == file.size
            check_good(repository, boto, bucket)


@pytest.mark.usefixtures("each_alone")
def test_damage_that_is_found_again_and_again(
    repository: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    s3_server: Any,
    boto: Any,
    bucket: str,
    make: Make,
) -> None:
    """Then the backup fails, and says why."""
    path = make("plain")
    first = repository.backup(path)
    files = stored_files(first)
    assert len(files) >= 2
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        other = kumo_crt.Repository(url(bucket), client=client)
        lists = []

        def find(number: int, sent: Sent) -> None:
            if sent.operation == "ListObjectsV2" and sent.key.endswith("inflight/"):
                lists.append(number)
                if len(lists) % 2 == 0:
                    delete(boto, bucket, key_of(files[len(lists) // 2 - 1]))
                    other.verify(first.id)

        before = keys(boto, bucket, "snapshots/")
        with watched(s3, find), pytest.raises(kumo_crt.IntegrityError, match="found damaged while"):
            repository.backup(path)
    assert keys(boto, bucket, "snapshots/") == before
    repository.backup(path)
    check_good(repository, boto, bucket)
