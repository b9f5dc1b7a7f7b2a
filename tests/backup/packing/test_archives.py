"""How archives are made: read once, resumed, interrupted, of files that are given up or change."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint, Rdict

import kumo_crt
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._coordination import _inflight, _lease
from kumo_crt.backup._packing import _archive
from kumo_crt.backup._packing._archive import Archive, Subject
from kumo_crt.backup._packing._members import Member
from tests.backup.boundaries import watched
from tests.backup.capture.test_file_checksums import _damage, _make
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    content_of,
    delete,
    flipped,
    get,
    keys,
    leftovers,
    open_uploads,
    put,
    stored_files,
    url,
)
from tests.support import databases
from tests.support.data import MIB, payload
from tests.support.fault_proxy import FaultProxy
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_SUBJECT = Subject("an-id", 17, ("default", "ü\udcff"))


@pytest.fixture
def one_part(s3_server: S3Server) -> Iterator[kumo_crt.S3Client]:
    """A client with room for one part: the next is made when it is sent."""
    arguments = s3_server.client_arguments(
        part_size=5 * MIB, multipart_threshold=5 * MIB, memory_limit=5 * MIB
    )
    with kumo_crt.S3Client(**arguments) as client:
        yield client


def _archive_of(
    directory: Path, sizes: list[int], change: Callable[[CapturedFile], CapturedFile] = lambda f: f
) -> Archive:
    """An archive of files with these sizes."""
    files = []
    for number, size in enumerate(sizes, 1):
        source = directory / f"link-{number}"
        source.write_bytes(payload(size, number))
        name = f"{number:06d}.sst"
        files.append(change(CapturedFile(name, "sst", number, source, size, temporary=True)))
    return Archive(_SUBJECT, files, {file.path: f"sst-{file.number}" for file in files})


def _all(archive: Archive, step: int) -> bytes:
    spans = ((start, min(start + step, archive.size)) for start in range(0, archive.size, step))
    return b"".join(archive.read(*span) for span in spans)


# -- bytes ----------------------------------------------------------------------------------------


def test_the_bytes_do_not_depend_on_how_they_are_read(tmp_path: Path) -> None:
    sizes = [0, 1, 511, 512, 513, 3 * MIB + 7]
    whole = _all(_archive_of(tmp_path, sizes), 1 << 30)
    for step in (509, 512, 4096, 1 << 20):
        archive = _archive_of(tmp_path, sizes)
        assert _all(archive, step) == whole
        assert archive.crc32c() == kumo_crt.crc32c(whole)
    backwards = _archive_of(tmp_path, sizes)
    middle = backwards.size // 2
    rest = backwards.read(middle, backwards.size)  # the index before what it tells of
    assert backwards.read(0, middle) + rest == whole
    assert backwards.name == archive.name
    assert backwards.size == len(whole)


def test_large_files(tmp_path: Path) -> None:
    """Of 8 GiB and more, a size does not fit into the octal digits of a header."""
    sizes = [(1 << 33) - 1, 1 << 33, 5]
    path = tmp_path / "archive.tar"
    with path.open("wb") as file:
        for number, size in enumerate(sizes):
            file.write(_archive._header(f"{number:06d}.sst", size))
            file.seek(_archive._padded(size), os.SEEK_CUR)  # nothing is there: a sparse file
        file.write(bytes(1024))
    with tarfile.open(path) as tar:
        assert [member.size for member in tar] == sizes
    listed = subprocess.run(["tar", "tvf", path], capture_output=True, check=True, text=True)
    assert [int(line.split()[2]) for line in listed.stdout.splitlines()] == sizes
    assert listed.stderr == ""


def test_names_follow_from_the_content(tmp_path: Path) -> None:
    archive = _archive_of(tmp_path, [10, 20])
    others = [
        Archive(Subject("other", 17, ("default",)), archive.files, archive._names),
        Archive(_SUBJECT, archive.files[::-1], archive._names),
        Archive(_SUBJECT, archive.files, dict.fromkeys(archive.offsets, "sst-7")),
        _archive_of(tmp_path, [10, 21]),
    ]
    assert len({archive.name, *(other.name for other in others)}) == 5


# -- files ----------------------------------------------------------------------------------------


def test_files_are_given_up_when_all_of_them_is_stored(tmp_path: Path) -> None:
    archive = _archive_of(tmp_path, [1000, 3000, 100])
    archive.releases = True
    content = _all(archive, 1024)
    links = [file.source for file in archive.files]
    archive.sent(2048, 3072)
    archive.sent(1024, 2048)
    assert [link.exists() for link in links] == [True, True, True]
    archive.sent(0, 1024)
    assert [link.exists() for link in links] == [False, True, True]
    archive.sent(3072, archive.size)
    assert [link.exists() for link in links] == [False, False, False]
    # All that is needed is known; nothing can be read again.
    assert archive.crc32c() == kumo_crt.crc32c(content)
    with pytest.raises(kumo_crt.RepositoryError, match=r"000001\.sst: was sent.*again"):
        archive.read(0, 1024)


def test_what_is_sent_again_is_not_given_up_before(tmp_path: Path) -> None:
    archive = _archive_of(tmp_path, [3000])
    archive.releases = True
    archive.sent(0, 2048)
    archive.read(0, 4096)  # another upload begins
    archive.sent(2048, archive.size)
    assert archive.files[0].source.exists()
    archive.sent(0, 2048)
    assert not archive.files[0].source.exists()


@pytest.mark.parametrize("change", [b"", b"shorter", bytes(5000)])
def test_a_file_that_changes(tmp_path: Path, change: bytes) -> None:
    archive = _archive_of(tmp_path, [2000, 3000])
    archive.read(0, 1024)
    archive.files[1].source.write_bytes(change)
    with pytest.raises(kumo_crt.IntegrityError, match=rf"{len(change)} bytes, it had 3000"):
        _all(archive, 1024)


def test_a_file_that_changes_while_it_is_sent(
    one_part: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, tmp_path: Path
) -> None:
    db = Rdict(str(make("large")), databases.options())
    checkpoint = tmp_path / "checkpoint"
    Checkpoint(db).create_checkpoint(str(checkpoint))
    db.close()
    (table,) = checkpoint.glob("*.sst")
    whole = table.read_bytes()
    table.unlink()
    table.write_bytes(whole)

    def progress(done: int, total: int) -> None:
        os.truncate(table, len(whole) - 1)

    with kumo_crt.Repository.create(url(bucket), client=one_part) as repository:
        with pytest.raises(kumo_crt.IntegrityError, match=rf"{table.name}: {len(whole) - 1} bytes"):
            repository.backup(checkpoint, single_object=True, progress=progress)
        assert repository.snapshots() == []
    assert keys(boto, bucket, "data/") == set()
    assert open_uploads(boto, bucket) == []


@pytest.mark.parametrize("pattern", ["*.sst", "*.blob"])
def test_damage_on_the_disk(
    repository: kumo_crt.Repository, boto: Any, bucket: str, tmp_path: Path, pattern: str
) -> None:
    """Of databases that record the CRC32C of their files."""
    _make(tmp_path / "db").close()
    damaged = _damage(tmp_path / "db", pattern)
    with pytest.raises(kumo_crt.IntegrityError, match=f"{damaged.name}: has CRC32C"):
        repository.backup(tmp_path / "db", single_object=True)
    assert keys(boto, bucket, "data/") == set()
    damaged.write_bytes(flipped(damaged.read_bytes(), 100))
    repository.backup(tmp_path / "db", single_object=True)
    assert repository.verify(level="full").ok


def test_damage_on_the_disk_is_told_before_all_is_sent(tmp_path: Path) -> None:
    def recorded(file: CapturedFile) -> CapturedFile:
        crc = kumo_crt.crc32c(file.source.read_bytes())
        return file._replace(checksum=crc ^ (file.number == 2))

    archive = _archive_of(tmp_path, [1000, 1000, 1000], recorded)
    archive.read(0, 2048)
    with pytest.raises(kumo_crt.IntegrityError, match=r"link-2: has CRC32C"):
        archive.read(2048, 4096)


def test_each_byte_is_read_once(
    one_part: kumo_crt.S3Client, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    gone: list[bool] = []
    members: list[Member] = []
    original = Member.read

    def counted(self: Member, at: int, into: memoryview) -> None:
        original(self, at, into)
        read.append(len(into))
        members.append(self)
        gone.append(any(not member.file.source.exists() for member in members))

    monkeypatch.setattr(Member, "read", counted)
    with kumo_crt.Repository.create(url(bucket), client=one_part) as repository:
        snapshot = repository.backup(make("big_files"), single_object=True)
    assert sum(read) == snapshot.total_bytes
    # Some have been given up before the last was read.
    assert gone[0] is False
    assert gone[-1] is True


@pytest.mark.parametrize("whose", ["backup", "repository"])
def test_its_parts_are_spread_over_time(
    small_parts: kumo_crt.S3Client, bucket: str, make: Make, whose: str
) -> None:
    path = make("large")
    rate = sum(file.stat().st_size for file in path.glob("*.sst"))
    rates: dict[str, int | None] = {"backup": None, "repository": None, whose: rate}
    with kumo_crt.Repository.create(
        url(bucket), client=small_parts, max_bytes_per_second=rates["repository"]
    ) as repository:
        started = time.monotonic()
        repository.backup(path, single_object=True, max_bytes_per_second=rates["backup"])
        # The last part of 5 MiB or less may begin when the rest has had its time.
        assert 0.5 < time.monotonic() - started < 10


def test_the_lease_is_renewed_while_it_is_compared(
    small_parts: kumo_crt.S3Client, bucket: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("large")
    with kumo_crt.Repository.create(url(bucket), client=small_parts) as repository:
        repository.backup(path, single_object=True)
        original = Member.read

        def slow(self: Member, at: int, into: memoryview) -> None:
            time.sleep(0.04)
            original(self, at, into)

        monkeypatch.setattr(Member, "read", slow)
        monkeypatch.setattr(_lease, "_RENEW", 0.1 / _inflight.LEASE)
        with watched(small_parts) as watch:
            assert repository.backup(path, single_object=True).uploaded_bytes == 0
    pins = [sent for sent in watch.sent if sent.operation == "PutObject" and "-0000" in sent.key]
    assert len(pins) >= 3


# -- interrupted ----------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
import kumo_crt
from kumo_crt.backup._packing._archive import Archive
MIB = 1 << 20
sent = Archive.sent
def killed(self, start, stop):
    sent(self, start, stop)
    if stop >= int(sys.argv[3]) * MIB:
        os.kill(os.getpid(), signal.SIGKILL)
Archive.sent = killed
options = {"part_size": 5 * MIB, "multipart_threshold": 5 * MIB, "memory_limit": 5 * MIB}
with (
    kumo_crt.S3Client(**options) as client,
    kumo_crt.Repository.open(sys.argv[1], client=client) as repository,
):
    repository.backup(sys.argv[2], single_object=True)
"""


@pytest.fixture
def again(
    repository: kumo_crt.Repository, s3_server: S3Server, proxy: FaultProxy, bucket: str
) -> Iterator[kumo_crt.Repository]:
    """The repository, seen through the proxy, with parts like those of the killed backup."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url, part_size=5 * MIB, multipart_threshold=5 * MIB
    )
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository.open(url(bucket), client=client) as opened,
    ):
        yield opened


@pytest.mark.parametrize("mebibytes", [5, 10])
def test_a_killed_backup_is_gone_on_with(
    repository: kumo_crt.Repository,
    again: kumo_crt.Repository,
    s3_server: S3Server,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    library: Library,
    make: Make,
    tmp_path: Path,
    mebibytes: int,
) -> None:
    path = make("large")
    arguments = (url(bucket), str(path), str(mebibytes))
    with start_python(_KILLED, *arguments, env=s3_server.environment()) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert repository.snapshots() == []
    assert len(open_uploads(boto, bucket)) == 1
    snapshot = again.backup(path, single_object=True)
    sent = [n for n in range(1, 4) for _ in range(proxy.count("PUT", f"partNumber={n}&"))]
    assert sent == [2, 3] if mebibytes == 5 else [3]
    assert proxy.count("POST", "uploads") == 0
    assert open_uploads(boto, bucket) == []
    assert leftovers(tmp_path) == []
    assert repository.verify(level="full").ok
    (key,) = snapshot.object_keys
    assert kumo_crt.crc32c(get(boto, bucket, key)) == stored_files(snapshot)[0].stored.crc32c
    repository.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("large")


@pytest.mark.parametrize("other", ["completes", "aborts"])
def test_somebody_else_is_faster(
    one_part: kumo_crt.S3Client, boto: Any, bucket: str, make: Make, tmp_path: Path, other: str
) -> None:
    """When files have been given up already."""
    path = make("big_files")
    with kumo_crt.Repository.create(url(bucket), client=one_part) as repository:
        first = repository.backup(path, single_object=True)
        (key,) = first.object_keys
        content = get(boto, bucket, key)
        repository.delete_snapshot(first.id)
        delete(boto, bucket, key)
        done: list[str] = []

        def meddle(count: int, total: int) -> None:
            if count and not done:
                done.append(other)
                if other == "completes":
                    put(boto, bucket, key, content)
                else:
                    for upload in boto.list_multipart_uploads(Bucket=bucket)["Uploads"]:
                        boto.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

        if other == "aborts":
            with pytest.raises(kumo_crt.RepositoryError, match="run the backup again"):
                repository.backup(path, single_object=True, progress=meddle)
            assert repository.snapshots() == []
            assert leftovers(tmp_path) == []
        second = repository.backup(path, single_object=True, progress=meddle)
        assert done == [other]
        assert second.files == first.files
        assert second.reused_bytes == (len(content) if other == "completes" else 0)
        assert open_uploads(boto, bucket) == []
        assert repository.verify(level="full").ok


def test_interrupted_while_it_reads(
    small_parts: kumo_crt.S3Client,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most of the time that is where Ctrl-C strikes."""
    original = Member.read

    def interrupted(self: Member, at: int, into: memoryview) -> None:
        if at:
            signal.raise_signal(signal.SIGINT)
        original(self, at, into)

    path = make("large")
    with kumo_crt.Repository.create(url(bucket), client=small_parts) as repository:
        with monkeypatch.context() as patch:
            patch.setattr(Member, "read", interrupted)
            with pytest.raises(KeyboardInterrupt):
                repository.backup(path, single_object=True)
        assert repository.snapshots() == []
        assert leftovers(tmp_path) == []
        assert repository.backup(path, single_object=True).uploaded_bytes > 12_000_000
        assert open_uploads(boto, bucket) == []
