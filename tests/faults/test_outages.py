"""The server is killed in the middle: the work waits for it, or ends, and a rerun goes on."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import kumo_crt
from kumo_crt import export
from tests.backup.boundaries import Sent, watched
from tests.backup.helpers import leftovers
from tests.backup.interleaving import without_waiting
from tests.faults.judge import Judge, expected_tree, tree
from tests.faults.seeds import case, chances, done, scaled
from tests.faults.stage import PART, later, write_first, write_large, write_second
from tests.support import databases
from tests.support.mortal_server import MortalServer

_PARTS = 5
OUTAGES = 2  # of each kind
AWAY = 15.0  # seconds


@dataclass
class World:
    """A server of our own, and a database of a large file and some small ones.

    Attributes:
        server: The server.
        judge: Reads what it holds.
        path: The database.
        truth: What is in it.
        directory: Where other databases go.
    """

    server: MortalServer
    judge: Judge
    path: Path
    truth: list[databases.Entry]
    directory: Path
    clients: list[kumo_crt.S3Client] = field(default_factory=list)

    def client(self, **settings: Any) -> kumo_crt.S3Client:
        """A new client of the server."""
        sizes = {"part_size": PART, "multipart_threshold": PART}
        arguments = self.server.described().client_arguments(**{**sizes, **settings})
        self.clients.append(kumo_crt.S3Client(**arguments))
        return self.clients[-1]

    def revive(self) -> None:
        """Starts the server again, and waits until it has found its data."""
        self.server.revive()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.judge.get("probe")
            except ClientError:
                assert time.monotonic() < deadline, "SeaweedFS has not found its data again"
                time.sleep(0.05)
            else:
                return


@pytest.fixture(scope="module")
def world(memory: Path) -> Iterator[World]:
    """The stage of this module."""
    directory = memory / "outages"
    directory.mkdir()
    path = directory / "db"
    write_large(path, _PARTS)
    truth = databases.read_all(path)
    with MortalServer(directory=memory) as server:
        boto = server.described().boto3_client()
        boto.create_bucket(Bucket="outages")
        boto.put_object(Bucket="outages", Key="probe", Body=b"here")
        found = World(server, Judge(boto, "outages"), path, truth, directory)
        yield found
        for client in found.clients:
            client.close()


@contextmanager
def _killed(
    world: World, client: kumo_crt.S3Client, operation: str, count: int, act: Callable[[], None]
) -> Iterator[None]:
    """Kills the server just before the client sends its n-th request of some kind."""
    seen = Counter[str]()

    def before(_: int, sent: Sent) -> None:
        if sent.operation == operation or not operation:
            seen["such"] += 1
            if seen["such"] == count:
                world.server.kill()
                act()

    with watched(client, before):
        yield
    assert seen["such"] >= count


def _parts_sent(client: kumo_crt.S3Client) -> int:
    found = client.metrics()["operations"].get("UploadPart", {"succeeded": 0})
    return int(found["succeeded"])


def _revived_soon(world: World) -> tuple[Callable[[], None], list[threading.Thread]]:
    """Starts the server again in a while, beside what goes on."""
    threads: list[threading.Thread] = []

    def act() -> None:
        threads.append(threading.Thread(target=world.revive))
        threads[-1].start()

    return act, threads


def _repository(world: World, name: str, client: kumo_crt.S3Client) -> kumo_crt.Repository:
    return kumo_crt.Repository(f"s3://outages/{name}", client=client)


def _check(world: World, name: str, snapshot_id: str) -> None:
    """The snapshot is there, whole, and opens with all that was written."""
    found = world.judge.look(f"{name}/")
    assert snapshot_id in found.snapshots
    target = world.directory / f"{name}-restored"
    _repository(world, name, world.client()).restore(target, snapshot_id)
    assert tree(target) == expected_tree(found.manifests[snapshot_id])
    assert databases.read_all(target) == world.truth


@pytest.mark.parametrize("number", range(scaled(OUTAGES)))
def test_a_backup_ends_and_the_next_goes_on(world: World, number: int) -> None:
    """The server stays away: a clear error, nothing visible; later only what is missing is sent."""
    name = f"ends-{number}"
    part = chances("outage", "backup", number).randint(2, _PARTS)
    with case(number, f"killed at part {part}"):
        kumo_crt.Repository.create(f"s3://outages/{name}", client=world.client())
        first = world.client(max_connections=1, max_attempts=2)
        repository = _repository(world, name, first)
        with (
            _killed(world, first, "UploadPart", part, _nothing),
            pytest.raises(kumo_crt.TransportError) as caught,
        ):
            repository.backup(world.path)
        assert "no answer from http://127.0.0.1:" in str(caught.value)
        assert "Is the endpoint URL right, and the service up?" in str(caught.value)
        assert leftovers(world.path.parent) == []
        world.revive()
        assert world.judge.look(f"{name}/").snapshots == set()
        kept = _parts_sent(first)
        second = world.client()
        snapshot = _repository(world, name, second).backup(world.path)
        assert kept > 0
        assert kept + _parts_sent(second) == _PARTS
        done["servers killed during a backup, which ended"] += 1
        done["parts sent before that, and not again"] += kept
        _check(world, name, snapshot.id)


@pytest.mark.parametrize("number", range(scaled(OUTAGES)))
def test_a_backup_waits_for_the_server(world: World, number: int) -> None:
    """It comes back within a second or two: the backup has not ended."""
    name = f"waits-{number}"
    request = chances("outage", "waiting", number).randint(1, _PARTS + 8)
    act, threads = _revived_soon(world)
    with case(number, f"killed at request {request}"):
        client = world.client()
        repository = kumo_crt.Repository.create(f"s3://outages/{name}", client=client)
        with _killed(world, client, "", request, act):
            snapshot = repository.backup(world.path)
        threads[0].join()
        assert client.metrics()["retries"]["transport"] > 0
        done["servers killed during a backup, which went on"] += 1
        _check(world, name, snapshot.id)


@pytest.mark.parametrize("comes_back", [False, True], ids=["ends", "waits"])
@pytest.mark.parametrize("number", range(scaled(OUTAGES)))
def test_a_restore(world: World, number: int, comes_back: bool) -> None:
    name = f"restore-{number}-{comes_back}"
    request = chances("outage", "restore", number, comes_back).randint(3, _PARTS + 3)
    patient = world.client()
    kumo_crt.Repository.create(f"s3://outages/{name}", client=patient)
    snapshot = _repository(world, name, patient).backup(world.path)
    client = world.client(max_attempts=None if comes_back else 2)
    repository = _repository(world, name, client)
    target = world.directory / f"{name}-target"
    databases.make_one_key(target)
    before = tree(target)
    act, threads = _revived_soon(world)
    with case(number, f"killed at request {request}"):
        if comes_back:
            with _killed(world, client, "GetObject", request, act):
                repository.restore(target, overwrite=True)
            threads[0].join()
            done["servers killed during a restore, which went on"] += 1
        else:
            with (
                _killed(world, client, "GetObject", request, _nothing),
                pytest.raises(kumo_crt.TransportError, match="no answer from http"),
            ):
                repository.restore(target, overwrite=True)
            assert tree(target) == before
            world.revive()
            _repository(world, name, world.client()).restore(target, overwrite=True)
            done["servers killed during a restore, which ended"] += 1
        assert tree(target) == expected_tree(world.judge.look(f"{name}/").manifests[snapshot.id])
        assert databases.read_all(target) == world.truth
        assert leftovers(world.directory) == []


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload", "GetObject"])
def test_a_restart_of_a_quarter_of_a_minute(world: World, operation: str) -> None:
    """What a client does that nobody has set up in any way: it waits, and goes on."""
    name = f"restart-{operation.lower()}"

    def come_back() -> None:
        time.sleep(AWAY)
        world.revive()

    def act() -> None:
        threads.append(threading.Thread(target=come_back))
        threads[-1].start()

    threads: list[threading.Thread] = []
    client = world.client()
    repository = kumo_crt.Repository.create(f"s3://outages/{name}", client=client)
    if operation != "GetObject":
        begun = time.monotonic()
        with _killed(world, client, operation, 1, act):
            snapshot = repository.backup(world.path)
        done["servers away for 15 s during a backup"] += 1
    else:
        snapshot = repository.backup(world.path)
        begun = time.monotonic()
        with _killed(world, client, operation, 4, act):
            repository.restore(world.directory / name)
        done["servers away for 15 s during a restore"] += 1
        assert databases.read_all(world.directory / name) == world.truth
    assert AWAY < time.monotonic() - begun < AWAY + 20
    threads[0].join()
    _check(world, name, snapshot.id)


def test_an_export_and_its_import_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request waits by the clock, however many attempts that is."""
    monkeypatch.setattr("random.random", lambda: 0.01)  # ten attempts end within a quarter second
    client, url = world.client(), f"s3://outages/{uuid.uuid4().hex}"

    def act() -> None:
        threads.append(threading.Timer(1.0, world.revive))
        threads[-1].start()

    threads: list[threading.Timer] = []
    with _killed(world, client, "", 3, act):
        export.export(world.path, url, client=client, file_bytes=1 << 20)
    threads.pop().join()
    copy = world.directory / "imported"
    with _killed(world, client, "GetObject", 2, act):
        export.import_(url, copy, client=client)
    threads.pop().join()
    assert databases.read_all(copy) == world.truth
    done["servers killed during an export or an import, which went on"] += 2


@pytest.mark.parametrize("comes_back", [False, True], ids=["ends", "waits"])
def test_a_verification_and_a_prune(world: World, comes_back: bool) -> None:
    """What was deleted is deleted, what is to stay is there, and the next prune does the rest."""
    name = f"prune-{comes_back}"
    kumo_crt.Repository.create(f"s3://outages/{name}", client=world.client())
    client = world.client(max_attempts=None if comes_back else 2)
    repository = _repository(world, name, client)
    other = world.directory / f"{name}-other"
    write_first(other)
    old = repository.backup(other)
    write_second(other)
    new = repository.backup(other)
    chance = chances("outage", "prune", comes_back)
    act, threads = _revived_soon(world)
    with _killed(world, client, "GetObject", chance.randint(4, 8), act if comes_back else _nothing):
        if comes_back:
            assert repository.verify("all", level="full", record=False).ok
        else:
            with pytest.raises(kumo_crt.TransportError, match="no answer from http"):
                repository.verify("all", level="full", record=False)
            world.revive()
    patient = _repository(world, name, world.client())
    with without_waiting():
        patient.prune(keep_last=1)  # marks
        request = chance.randint(2, 10)
        with _killed(world, client, "", request, act if comes_back else _nothing):
            if comes_back:
                repository.prune(keep_last=1)
            else:
                with pytest.raises(kumo_crt.TransportError, match="no answer from http"):
                    repository.prune(keep_last=1)
                world.revive()
    for thread in threads:
        thread.join()
    assert new.id in world.judge.look(f"{name}/").snapshots
    with later():
        for _ in range(2):
            patient.prune(keep_last=1)
    found = world.judge.look(f"{name}/")
    assert found.snapshots == {new.id} != {old.id}
    assert found.below("data/") == found.named()
    done["servers killed during a verification or a prune"] += 2


def _nothing() -> None:
    """The server stays away."""
