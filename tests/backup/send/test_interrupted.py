"""Backups and restores that are killed or interrupted, and run again."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    PREFIX,
    content_of,
    keys,
    leftovers,
    open_uploads,
    remove,
    stored_files,
    tree,
    url,
)
from tests.support import databases
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

# Kills itself when more than argument 4 of the bytes are done. Each call of the callback takes
# longer than the time between two, so that there is one for every file.
_KILLED = """
import os, signal, sys, time
import kumo_crt
def progress(done, total):
    if done > float(sys.argv[4]) * total:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.11)
with kumo_crt.Repository.open(sys.argv[2]) as repository:
    work = getattr(repository, sys.argv[1])
    work(sys.argv[3], progress=progress, max_concurrency=1)
"""


def _killed(server: S3Server, work: str, bucket: str, path: Path, share: float) -> None:
    with start_python(
        _KILLED, work, url(bucket), str(path), str(share), env=server.environment()
    ) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


def _versions(boto: Any, bucket: str) -> dict[str, tuple[str, Any]]:
    listed = boto.list_objects_v2(Bucket=bucket, Prefix=f"{PREFIX}/data/")
    return {o["Key"]: (o["ETag"], o["LastModified"]) for o in listed.get("Contents", [])}


@pytest.mark.parametrize("name", ["many_files", "big_files"])
def test_killed_backup(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    name: str,
) -> None:
    path = make(name)
    _killed(s3_server, "backup", bucket, path, 0.3)
    sent = _versions(boto, bucket)
    assert len(leftovers(tmp_path)) == 1
    planned = stored_files(repository.backup(path, dry_run=True))
    assert 0 < len(sent) < len(planned)
    assert repository.snapshots() == []
    assert keys(boto, bucket, "snapshots/") == set()
    with kumo_crt.Repository.open(url(bucket), client=s3_via_proxy) as again:
        snapshot = again.backup(path)
    assert {key: _versions(boto, bucket)[key] for key in sent} == sent
    assert snapshot.reused_bytes >= sum(
        file.size for file in stored_files(snapshot) if f"{PREFIX}/{file.key}" in sent
    )
    if name == "big_files":
        # Known before they would be sent: not one byte of them passes.
        for key in sent:
            if key.endswith(".sst"):
                assert proxy.count("PUT", key) == 0
    # Nor are the hard links of the killed one left, which would hold deleted files' space.
    assert leftovers(tmp_path) == []
    assert repository.verify(level="full").ok
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth(name)


@pytest.mark.usefixtures("each_alone")
def test_killed_restore(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    snapshot = repository.backup(make("many_files"))
    out = tmp_path / "out"
    out.mkdir()
    target = out / "target"
    _killed(s3_server, "restore", bucket, target, 0.3)
    assert not target.exists()
    assert list(out.rglob("CURRENT")) == []
    assert len(leftovers(out)) == 1
    report = repository.restore(target)
    assert 0 < report.kept_bytes < snapshot.total_bytes
    stored = sum(file.size for file in stored_files(snapshot))
    assert report.downloaded_bytes + report.kept_bytes >= stored
    assert report.downloaded_bytes < stored
    assert [path.name for path in out.iterdir()] == ["target"]
    assert content_of(target) == library.truth("many_files")


def test_killed_restore_over_a_database(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    repository.backup(make("many_files"))
    target = make("one_key")
    before = tree(target)
    program = _KILLED.replace("max_concurrency=1", "max_concurrency=1, overwrite=True")
    with start_python(
        program, "restore", url(bucket), str(target), "0.3", env=s3_server.environment()
    ) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert tree(target) == before
    report = repository.restore(target, overwrite=True)
    assert report.kept_bytes > 0
    assert leftovers(tmp_path) == []
    assert content_of(target) == library.truth("many_files")


def test_deleted_while_it_is_restored(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    """Somebody prunes the snapshot: that is no damage."""
    snapshot = repository.backup(make("many_files"))

    def prune(done: int, total: int) -> None:
        remove(boto, bucket, snapshot)
        for key in keys(boto, bucket, "data/"):
            boto.delete_object(Bucket=bucket, Key=f"{PREFIX}/{key}")

    with pytest.raises(kumo_crt.SnapshotNotFoundError, match="while it was being restored"):
        repository.restore(tmp_path / "restored", snapshot.id, progress=prune, max_concurrency=1)
    assert not (tmp_path / "restored").exists()


# -- Ctrl-C ---------------------------------------------------------------------------------------

_INTERRUPTED = """
import sys
import kumo_crt
MIB = 1 << 20
client = kumo_crt.S3Client(part_size=5 * MIB, multipart_threshold=5 * MIB)
with client, kumo_crt.Repository.open(sys.argv[2], client=client) as repository:
    try:
        getattr(repository, sys.argv[1])(sys.argv[3])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise SystemExit(130)
"""


def _interrupted(
    server: S3Server, proxy: FaultProxy, fault: Fault, work: str, bucket: str, path: Path
) -> float:
    """Sends SIGINT when the fault has struck; returns the seconds until the call had returned."""
    environment = {**server.environment(), "AWS_ENDPOINT_URL_S3": proxy.endpoint_url}
    with proxy.armed(fault):
        process: subprocess.Popen[str]
        with start_python(_INTERRUPTED, work, url(bucket), str(path), env=environment) as process:
            struck = fault.fired.wait(30)
            time.sleep(0.1)
            started = time.monotonic()
            process.send_signal(signal.SIGINT if struck else signal.SIGKILL)
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.monotonic() - started
            _, err = process.communicate(timeout=30)
            until_exit = time.monotonic() - started
    assert struck
    assert line == "interrupted\n", err
    assert process.returncode == 130, err
    # The exit waits for the network a little: to abort uploads, to end connections.
    assert until_exit < 5
    return seconds


def test_ctrl_c_in_a_backup(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
) -> None:
    path = make("large")
    fault = Fault("stall", "request", offset=1 << 20, method="PUT", target="partNumber=2")
    seconds = _interrupted(s3_server, proxy, fault, "backup", bucket, path)
    assert seconds < 1
    assert leftovers(tmp_path) == []
    assert keys(boto, bucket, "snapshots/") == set()
    # As after a kill, what was sent stays for the next one.
    assert len(open_uploads(boto, bucket)) == 1
    repository.backup(path)
    assert repository.verify(level="full").ok


def test_ctrl_c_in_a_restore(
    repository: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
) -> None:
    repository.backup(make("large"))
    out = tmp_path / "out"
    out.mkdir()
    fault = Fault("stall", "response", offset=1 << 20, method="GET", target="/data/", times=3)
    seconds = _interrupted(s3_server, proxy, fault, "restore", bucket, out / "target")
    assert seconds < 1
    assert not (out / "target").exists()
    assert [path for path in out.rglob("*") if path.suffix == ".part"] == []
    repository.restore(out / "target")
    assert content_of(out / "target") == library.truth("large")
    assert leftovers(out) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("live", [False, True], ids=["closed", "open"])
def test_progress_that_raises(
    repository: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    error: type[BaseException],
    live: bool,
) -> None:
    path = make("many_files")

    def progress(done: int, total: int) -> None:
        raise error("from the callback")

    source = Rdict(str(path), databases.options(small_files=True)) if live else path
    started = time.monotonic()
    with pytest.raises(error, match="from the callback"):
        repository.backup(source, progress=progress)
    assert time.monotonic() - started < 5
    if isinstance(source, Rdict):
        source.close()
    assert leftovers(tmp_path) == []
    assert keys(boto, bucket, "snapshots/") == set()
    repository.backup(path)
    started = time.monotonic()
    with pytest.raises(error, match="from the callback"):
        repository.restore(tmp_path / "restored", progress=progress)
    assert time.monotonic() - started < 5
    assert not (tmp_path / "restored").exists()
    repository.restore(tmp_path / "restored")
    assert leftovers(tmp_path) == []


@pytest.mark.servers("moto")
def test_uncommitted_backups_on_a_service_without_stored_checksums(
    repository: kumo_crt.Repository, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    """What earlier backups sent is known by its content, however often they failed to commit."""
    path = make("many_files")
    sent = None
    for _ in range(3):
        snapshot = repository.backup(path)
        remove(boto, bucket, snapshot)
        sent = sent or _versions(boto, bucket)
        assert set(_versions(boto, bucket)) == set(sent)
    assert snapshot.uploaded_bytes == 0
    assert repository.backup(path).uploaded_bytes == 0
    assert repository.verify(level="full").ok
