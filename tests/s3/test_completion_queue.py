"""The descriptor of a completion queue, which event loops watch."""

from __future__ import annotations

import fcntl
import select
from pathlib import Path

import kumo_crt
from kumo_crt import _core
from kumo_crt._engine import Call
from tests.support.fake_s3 import FakeS3


def _start(client: kumo_crt.S3Client, queue: _core.CompletionQueue, call_id: int) -> object:
    call: Call = next(client._open().request("HeadObject", "HEAD", "bucket", "key"))
    return call.start(queue, call_id)


def _readable(descriptor: int, timeout: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout)[0])


def test_readable_while_there_are_ids(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    queue = _core.CompletionQueue()
    descriptor = queue.fileno()
    assert queue.fileno() == descriptor
    assert not _readable(descriptor, 0)
    for turn in range(3):
        operations = [_start(s3_fake, queue, 10 * turn + n) for n in range(4)]
        found: list[int] = []
        while len(found) < len(operations):
            assert _readable(descriptor, 10)
            taken = queue.take(0)
            assert taken
            found += taken
        assert sorted(found) == [10 * turn + n for n in range(4)]
        assert not _readable(descriptor, 0)
        assert queue.take(0) == []


def test_asked_for_when_there_are_ids_already(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    queue, other = _core.CompletionQueue(), _core.CompletionQueue()
    operations = [_start(s3_fake, queue, 1), _start(s3_fake, other, 2)]
    assert _readable(other.fileno(), 10)
    while not operations[0].done:  # type: ignore[attr-defined]
        select.select([], [], [], 0.01)
    assert _readable(queue.fileno(), 10)
    assert queue.take(0) == [1]
    assert not _readable(queue.fileno(), 0)


def test_the_descriptor_ends_with_the_queue_and_is_not_inherited() -> None:
    queue = _core.CompletionQueue()
    descriptor = queue.fileno()
    assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    link = Path(f"/proc/self/fd/{descriptor}")
    assert "eventfd" in str(link.readlink())
    del queue
    assert not link.exists() or "eventfd" not in str(link.readlink())
