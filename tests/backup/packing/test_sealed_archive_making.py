"""How sealed archives are made: examined, sealed, resumed, interrupted, of files that change."""

from __future__ import annotations

import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._coordination import _inflight, _lease
from kumo_crt.backup._format import _layout, _sealing
from kumo_crt.backup._packing._archive import Archive, Subject
from kumo_crt.backup._packing._members import SealedMember
from kumo_crt.backup._store import _ranges
from kumo_crt.backup._store._objects import objects_of
from tests.backup.boundaries import watched
from tests.backup.conftest import Library, Make
from tests.backup.helpers import (
    KEY,
    MATERIAL,
    content_of,
    flipped,
    get,
    leftovers,
    open_uploads,
    stored_files,
    url,
)
from tests.backup.packing.test_archives import _KILLED, _all
from tests.crypto import reference
from tests.support.data import MIB, payload
from tests.support.fault_proxy import FaultProxy
from tests.support.processes import start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

SUBJECT = Subject("an-id", 17, ("default", "ü\udcff"))


def archive_of(directory: Path, sizes: list[int]) -> Archive:
    """An archive of files with these sizes."""
    files = []
    for number, size in enumerate(sizes, 1):
        source = directory / f"link-{number}"
        source.write_bytes(payload(size, number))
        files.append(CapturedFile(f"{number:06d}.sst", "sst", number, source, size, temporary=True))
    return Archive(SUBJECT, files, {file.path: f"sst-{file.number}" for file in files}, KEY)


def test_the_bytes_do_not_depend_on_how_they_are_read(tmp_path: Path) -> None:
    sizes = [0, 1, 511, 65_536, 65_537, 3 * MIB + 7]
    archive = archive_of(tmp_path, sizes)
    whole = _all(archive, 1 << 30)
    assert len(whole) == archive.size
    for step in (32_767, 65_552, 1 << 20):
        other = archive_of(tmp_path, sizes)
        assert _all(other, step) == whole
        assert other.crc32c() == kumo_crt.crc32c(whole)
        assert other.name == archive.name
    backwards = archive_of(tmp_path, sizes)
    middle = backwards.size // 2
    rest = backwards.read(middle, backwards.size)  # the index before what it tells of
    assert backwards.read(0, middle) + rest == whole
    prepared = archive_of(tmp_path, sizes)
    for step_of in prepared.preparations(middle, prepared.size):
        step_of()
    assert prepared.read(middle, prepared.size) == rest
    for file, (start, size) in zip(
        archive.files, ((archive.offsets[f.path], f.size) for f in archive.files), strict=True
    ):
        stored = whole[start : start + _core.sealed_size(size)]
        assert reference.opened(MATERIAL, stored) == file.source.read_bytes()


def test_each_byte_is_read_twice(
    one_part_sealed: kumo_crt.Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[int] = []
    examined: list[int] = []
    read, examine = SealedMember.read, SealedMember._examine

    def counted(self: SealedMember, at: int, into: memoryview) -> None:
        assert self._examined is not None  # before, in steps
        read(self, at, into)
        sealed.append(len(into))

    def counted_too(self: SealedMember, native: _core.Examination, stop: int) -> None:
        examine(self, native, stop)
        examined.append(self.file.size if stop == self.file.size else 0)

    monkeypatch.setattr(SealedMember, "read", counted)
    monkeypatch.setattr(SealedMember, "_examine", counted_too)
    snapshot = one_part_sealed.backup(make("large"), single_object=True)
    assert sum(examined) == snapshot.total_bytes
    assert sum(sealed) == sum(file.stored_size for file in snapshot.files)


def test_a_verification_holds_pieces(encrypted: kumo_crt.Repository, make: Make) -> None:
    """However large a file is, and with as many requests as it has pieces."""
    snapshot = encrypted.backup(make("large"), single_object=True)
    (item,) = objects_of(snapshot.files)
    spans = list(_ranges._spans(encrypted._store(), item))
    assert spans[0][0] == 0
    assert spans[-1][1] == item.size
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert max(stop - start for start, stop in spans) < _ranges.RUN * 1.1
    assert len(spans) <= 4


def test_a_file_that_changes(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, [200_000, 300_000])
    archive.read(0, 1024)
    changed = archive.files[0].source
    changed.write_bytes(flipped(changed.read_bytes()))
    with pytest.raises(kumo_crt.IntegrityError, match="changed while it was being read: chunk 1"):
        _all(archive, 4096)
    # Also if it was sealed, and given room to others: it would be another content's key.
    whole = archive_of(tmp_path, [200_000])
    content = whole.read(0, whole.size)
    changed.write_bytes(flipped(changed.read_bytes()))
    with pytest.raises(kumo_crt.IntegrityError, match="changed while it was being read"):
        whole.read(0, whole.size)
    changed.write_bytes(flipped(changed.read_bytes()))
    assert whole.read(0, whole.size) == content
    changed.write_bytes(b"shorter")
    with pytest.raises(kumo_crt.IntegrityError, match="7 bytes, it had 200000"):
        whole.read(0, 4096)


@pytest.mark.parametrize("mebibytes", [5, 10])
def test_a_killed_backup_is_gone_on_with(
    encrypted: kumo_crt.Repository,
    one_part_sealed: kumo_crt.Repository,
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
    environment = {**s3_server.environment(), "KUMO_CRT_KEY": MATERIAL.hex()}
    arguments = (url(bucket), str(path), str(mebibytes))
    with start_python(_KILLED, *arguments, env=environment) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert len(open_uploads(boto, bucket)) == 1
    snapshot = one_part_sealed.backup(path, single_object=True)
    sent = [n for n in range(1, 4) for _ in range(proxy.count("PUT", f"partNumber={n}&"))]
    assert sent == ([2, 3] if mebibytes == 5 else [3])
    assert proxy.count("POST", "uploads") == 0
    assert open_uploads(boto, bucket) == []
    assert encrypted.verify(level="full").ok
    (key,) = snapshot.object_keys
    assert kumo_crt.crc32c(get(boto, bucket, key)) == stored_files(snapshot)[0].stored.crc32c
    encrypted.restore(tmp_path / "restored")
    assert content_of(tmp_path / "restored") == library.truth("large")


@pytest.mark.parametrize("where", ["read", "_examine"])
def test_interrupted(
    one_part_sealed: kumo_crt.Repository,
    boto: Any,
    bucket: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    original = getattr(SealedMember, where)

    def interrupted(self: SealedMember, *args: Any) -> None:
        if self.size > MIB:
            signal.raise_signal(signal.SIGINT)
        original(self, *args)

    path = make("large")
    with monkeypatch.context() as patch:
        patch.setattr(SealedMember, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            one_part_sealed.backup(path, single_object=True)
    assert one_part_sealed.snapshots() == []
    assert leftovers(tmp_path) == []
    snapshot = one_part_sealed.backup(path, single_object=True)
    assert _layout.is_archive(snapshot.single_object or "")
    assert one_part_sealed.verify(level="full").ok
    assert open_uploads(boto, bucket) == []


def test_the_lease_is_renewed_while_a_file_is_examined(
    encrypted: kumo_crt.Repository,
    s3: kumo_crt.S3Client,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is sent: of a large file that takes long."""
    original = SealedMember._examine

    def slow(self: SealedMember, native: _core.Examination, stop: int) -> None:
        time.sleep(0.04)
        original(self, native, stop)

    monkeypatch.setattr(_sealing, "_SLICE", MIB)
    monkeypatch.setattr(SealedMember, "_examine", slow)
    monkeypatch.setattr(_lease, "_RENEW", 0.1 / _inflight.LEASE)
    with watched(s3) as watch:
        encrypted.backup(make("large"), single_object=True)
    pins = [n for n, one in enumerate(watch.sent) if "/inflight/backup-" in one.key]
    sent = [n for n, one in enumerate(watch.sent) if "/data/" in one.key]
    puts = [n for n in sent if watch.sent[n].operation in ("PutObject", "UploadPart")]
    written = [n for n in pins if watch.sent[n].operation == "PutObject" and n < puts[0]]
    assert len(written) >= 3
