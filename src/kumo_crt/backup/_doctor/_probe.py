"""Tries, one by one, what a backup asks of the service; under keys that nothing refers to."""

from __future__ import annotations

import secrets
import statistics
import time

from kumo_crt import _core
from kumo_crt._engine import Task
from kumo_crt.backup._doctor import _uploads
from kumo_crt.backup._doctor._findings import ERROR, INFO, WARNING, Findings
from kumo_crt.backup._doctor._scratch import SCRATCH, Scratch
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import KumoError, PreconditionFailedError
from kumo_crt.s3._body import MemorySource
from kumo_crt.s3._copy import copy_task
from kumo_crt.s3._deletions import delete_task
from kumo_crt.s3._get import GetOptions, get_task
from kumo_crt.s3._head import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions, PutResult

_CONTENT = b"written by kumo-crt doctor; nothing refers to it\n"
_HEADS = 5


def probe_task(store: Store, findings: Findings, throughput_bytes: int) -> Task[None]:
    """Writes, reads and deletes scratch objects; measures how fast that goes."""
    probe = Scratch(store, findings, SCRATCH + secrets.token_hex(8))
    passed: set[str] = set()
    try:
        wrote = yield from findings.tried(
            "put", _put(probe), permission="s3:PutObject", what_for="there are no backups"
        )
        if wrote:
            yield from _with_an_object(probe, passed)
    finally:
        is_clean: list[bool] = []
        yield from findings.tried("delete", _delete(probe, is_clean), severity=WARNING)
    can_delete = any(is_clean)
    if can_delete and "list" in passed:
        yield from findings.tried(
            "leftovers",
            probe.delete_leftovers(),
            permission="s3:DeleteObject",
            severity=WARNING,
            what_for="scratch objects of earlier doctors stay",
        )
    if not wrote or throughput_bytes <= 0:
        return
    # It is large: nothing of it is to stay, and each permission has been told of by now.
    if can_delete and {"head", "get"} <= passed:
        yield from findings.tried(
            "throughput",
            _throughput(probe, throughput_bytes),
            permission="s3:PutObject, s3:GetObject and s3:DeleteObject",
            severity=WARNING,
        )
    else:
        findings.add(
            INFO,
            "throughput",
            "not measured: an object would have to be written, read, and deleted for good",
        )


def _delete(probe: Scratch, is_clean: list[bool]) -> Task[None]:
    is_clean.append((yield from probe.delete()))


def _with_an_object(probe: Scratch, passed: set[str]) -> Task[None]:
    findings = probe.findings
    # To put was permitted. Refused, a put looks whether what is there is not its own.
    yield from findings.tried(
        "conditional put",
        _conditional(probe),
        permission="s3:GetObject",
        what_for="a put that was refused cannot tell whether another one was faster",
    )
    checks = (
        ("head", _head(probe), "s3:GetObject", "nothing can be verified"),
        ("get", _get(probe), "s3:GetObject", "nothing can be restored"),
        ("list", _list(probe), "s3:ListBucket", "snapshots cannot be found"),
    )
    for check, task, permission, what_for in checks:
        if (yield from findings.tried(check, task, permission=permission, what_for=what_for)):
            passed.add(check)
    yield from findings.tried(
        "copy",
        _copy(probe),
        permission="s3:GetObject and s3:PutObject",
        severity=WARNING,
        what_for="repair cannot keep what it replaces",
    )
    yield from _uploads.uploads_task(probe)


def _write(probe: Scratch, key: str, content: bytes) -> Task[PutResult]:
    store = probe.store
    options = PutOptions(
        checksum=True, headers=store.document_headers(), if_match=None, if_none_match="*"
    )
    with probe.making(key):
        result = yield from put_task(
            store.context, store.bucket, probe.full(key), MemorySource(content), options
        )
    if result.version_id:
        probe.made[key].append(result.version_id)
    return result


def _put(probe: Scratch) -> Task[None]:
    result = yield from _write(probe, probe.key, _CONTENT)
    probe.etag = result.etag
    probe.now = result.server_time or probe.now
    probe.findings.ok("put", "an object was written with its CRC32C")


def _conditional(probe: Scratch) -> Task[None]:
    try:
        yield from _write(probe, probe.key, b"a second writer")
    except PreconditionFailedError:
        probe.findings.ok("conditional put", "If-None-Match holds: nothing is overwritten")
        return
    probe.findings.add(
        ERROR,
        "conditional put",
        "the service overwrites in spite of If-None-Match: two backups at the same time may "
        "destroy each other's snapshots",
        "use a service that honours conditional writes, or never run two clients at once",
    )


def _head(probe: Scratch) -> Task[None]:
    found = yield from head_task(probe.store.context, probe.store.bucket, probe.full(probe.key))
    if found.checksum_crc32c == _core.crc32c(_CONTENT):
        probe.findings.ok("head", "the service tells size and CRC32C of what it stores")
    else:
        probe.findings.add(
            WARNING,
            "head",
            "the service tells no CRC32C of what it stores",
            "verify with level 'full': 'stored' cannot work here",
        )


def _get(probe: Scratch) -> Task[None]:
    store = probe.store
    key = probe.full(probe.key)
    whole = yield from get_task(store.context, store.bucket, key, None, GetOptions())
    part = yield from get_task(store.context, store.bucket, key, None, GetOptions(range=(8, 10)))
    if bytes(whole.body or b"") != _CONTENT or bytes(part.body or b"") != _CONTENT[8:10]:
        raise KumoError("what was read is not what was written")
    probe.findings.ok("get", "what was written can be read, in whole and in part")


def _list(probe: Scratch) -> Task[None]:
    listed = yield from probe.store.list_all(probe.key)
    if probe.full(probe.key) not in {item.key for item in listed}:
        raise KumoError("an object that was just written is not listed")
    probe.findings.ok("list", "what was written is listed")


def _copy(probe: Scratch) -> Task[None]:
    store = probe.store
    with probe.making(probe.aside):
        result = yield from copy_task(
            store.context,
            (store.bucket, probe.full(probe.key)),
            (store.bucket, probe.full(probe.aside)),
            size=len(_CONTENT),
            etag=probe.etag,
            headers=store.document_headers(),
        )
    if result.version_id:
        probe.made[probe.aside].append(result.version_id)
    probe.findings.ok("copy", "objects can be copied")


def _throughput(probe: Scratch, size: int) -> Task[None]:
    store = probe.store
    key = probe.key + "-throughput"
    content = secrets.token_bytes(min(size, 1 << 20)) * -(-size // (1 << 20))
    content = content[:size]
    try:
        begun = time.monotonic()
        yield from _write(probe, key, content)
        up = time.monotonic() - begun
        begun = time.monotonic()
        into = bytearray(size)
        yield from get_task(store.context, store.bucket, probe.full(key), into, GetOptions())
        down = time.monotonic() - begun
        latencies = []
        for _ in range(_HEADS):
            begun = time.monotonic()
            yield from head_task(store.context, store.bucket, probe.full(key))
            latencies.append(time.monotonic() - begun)
    finally:
        versions: list[str | None] = [*probe.made.get(key, ())]
        for version in versions or [None]:
            yield from delete_task(store.context, store.bucket, probe.full(key), version)
    probe.findings.add(
        INFO,
        "throughput",
        f"one object of {size / 1e6:.0f} MB: up {size / up / 1e6:.1f} MB/s, down "
        f"{size / down / 1e6:.1f} MB/s; a request takes "
        f"{statistics.median(latencies) * 1000:.1f} ms",
        "kumo-crt bench measures it thoroughly",
    )
