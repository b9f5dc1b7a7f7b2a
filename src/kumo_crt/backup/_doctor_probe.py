"""Tries, one by one, what a backup asks of the service; under keys that nothing refers to."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt import _core
from kumo_crt._engine import Task
from kumo_crt.backup import _layout
from kumo_crt.backup._findings import ERROR, INFO, WARNING, Findings
from kumo_crt.backup._replacing import QUARANTINE
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    AccessDeniedError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._answers import Headers, encode_crc32c, parse_xml, raise_for, text_of
from kumo_crt.s3._body import MemorySource
from kumo_crt.s3._copy import copy_task
from kumo_crt.s3._deletions import delete_task
from kumo_crt.s3._get import GetOptions, get_task
from kumo_crt.s3._head import head_task
from kumo_crt.s3._listings import abort_upload_task, list_uploads_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions

# Below data/: if all fails, a prune takes it away.
SCRATCH = _layout.DATA + "00/kumo-doctor-"
_CONTENT = b"written by kumo-crt doctor; nothing refers to it\n"
_HEADS = 5


@dataclass(slots=True)
class _Probe:
    store: Store
    findings: Findings
    key: str
    written: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    etag: str = ""

    def full(self, key: str) -> str:
        return self.store.location.key(key)


def probe_task(store: Store, findings: Findings, throughput_bytes: int) -> Task[None]:
    """Writes, reads and deletes scratch objects; measures how fast that goes."""
    probe = _Probe(store, findings, SCRATCH + secrets.token_hex(8))
    try:
        wrote = yield from findings.tried(
            "put", _put(probe), permission="s3:PutObject", what_for="there are no backups"
        )
        if wrote:
            yield from _with_an_object(probe)
            if throughput_bytes > 0:
                yield from findings.tried("throughput", _throughput(probe, throughput_bytes))
    finally:
        yield from findings.tried(
            "delete",
            _delete(probe),
            permission="s3:DeleteObject",
            severity=WARNING,
            what_for="nothing can be pruned, and these scratch objects stay: "
            + ", ".join(dict.fromkeys(probe.written)),
        )


def _with_an_object(probe: _Probe) -> Task[None]:
    findings = probe.findings
    yield from findings.tried("conditional put", _conditional(probe))
    yield from findings.tried(
        "head", _head(probe), permission="s3:GetObject", what_for="nothing can be verified"
    )
    yield from findings.tried(
        "get", _get(probe), permission="s3:GetObject", what_for="nothing can be restored"
    )
    yield from findings.tried(
        "list",
        _list(probe),
        permission="s3:ListBucket",
        what_for="snapshots cannot be found",
    )
    yield from findings.tried(
        "copy",
        _copy(probe),
        permission="s3:GetObject and s3:PutObject",
        severity=WARNING,
        what_for="repair cannot keep what it replaces",
    )
    yield from findings.tried(
        "multipart",
        _multipart(probe),
        permission="s3:PutObject and s3:AbortMultipartUpload",
        what_for="large files cannot be sent",
    )
    yield from findings.tried(
        "list uploads",
        _list_uploads(probe),
        permission="s3:ListBucketMultipartUploads",
        severity=WARNING,
        what_for="unfinished uploads are neither resumed nor cleaned",
    )


def _write(probe: _Probe, key: str, content: bytes, if_none_match: str | None = "*") -> Task[str]:
    options = PutOptions(
        checksum=True,
        headers=probe.store.document_headers(),
        if_match=None,
        if_none_match=if_none_match,
    )
    probe.written.append(key)
    result = yield from put_task(
        probe.store.context, probe.store.bucket, probe.full(key), MemorySource(content), options
    )
    if result.version_id:
        probe.versions.append((key, result.version_id))
    return result.etag


def _put(probe: _Probe) -> Task[None]:
    probe.etag = yield from _write(probe, probe.key, _CONTENT)
    probe.findings.ok("put", "an object was written with its CRC32C")


def _conditional(probe: _Probe) -> Task[None]:
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


def _head(probe: _Probe) -> Task[None]:
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


def _get(probe: _Probe) -> Task[None]:
    store = probe.store
    key = probe.full(probe.key)
    whole = yield from get_task(store.context, store.bucket, key, None, GetOptions())
    part = yield from get_task(store.context, store.bucket, key, None, GetOptions(range=(8, 10)))
    if bytes(whole.body or b"") != _CONTENT or bytes(part.body or b"") != _CONTENT[8:10]:
        raise KumoError("what was read is not what was written")
    probe.findings.ok("get", "what was written can be read, in whole and in part")


def _list(probe: _Probe) -> Task[None]:
    listed = yield from probe.store.list_all(SCRATCH)
    if probe.full(probe.key) not in {item.key for item in listed}:
        raise KumoError("an object that was just written is not listed")
    probe.findings.ok("list", "what was written is listed")


def _copy(probe: _Probe) -> Task[None]:
    store = probe.store
    target = QUARANTINE + probe.key.rpartition("/")[2]
    probe.written.append(target)
    yield from copy_task(
        store.context,
        (store.bucket, probe.full(probe.key)),
        (store.bucket, probe.full(target)),
        size=len(_CONTENT),
        etag=probe.etag,
        headers=store.document_headers(),
    )
    probe.findings.ok("copy", "objects can be copied")


def _create(probe: _Probe, key: str, headers: Mapping[str, str]) -> Task[str]:
    store = probe.store
    response = yield from store.context.request(
        "CreateMultipartUpload",
        "POST",
        store.bucket,
        probe.full(key),
        query=[("uploads", "")],
        headers={**store.document_headers(), **headers},
    )
    raise_for(response, "beginning a multipart upload", store.context.endpoint(store.bucket))
    root = parse_xml(memoryview(response.body), "beginning a multipart upload")
    return text_of(root, "UploadId")


def _multipart(probe: _Probe) -> Task[None]:
    """One part, completed with the CRC32C of the whole object; another upload is aborted."""
    store = probe.store
    key = probe.key + "-parts"
    endpoint = store.context.endpoint(store.bucket)
    checksum = {"x-amz-checksum-type": "FULL_OBJECT"}
    upload = yield from _create(probe, key, {**checksum, "x-amz-checksum-algorithm": "CRC32C"})
    probe.written.append(key)
    try:
        answer = yield from store.context.request(
            "UploadPart",
            "PUT",
            store.bucket,
            probe.full(key),
            query=[("partNumber", "1"), ("uploadId", upload)],
            body=_CONTENT,
            send_crc32c=True,
        )
        raise_for(answer, "sending a part", endpoint)
        etag = f'"{Headers(answer.headers).etag}"'
        crc = encode_crc32c(_core.crc32c(_CONTENT))
        body = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{etag}</ETag><ChecksumCRC32C>{crc}</ChecksumCRC32C></Part>"
            "</CompleteMultipartUpload>"
        )
        answer = yield from store.context.request(
            "CompleteMultipartUpload",
            "POST",
            store.bucket,
            probe.full(key),
            query=[("uploadId", upload)],
            headers={
                "Content-Type": "application/xml",
                "If-None-Match": "*",
                "x-amz-checksum-crc32c": crc,
                **checksum,
            },
            body=body.encode(),
        )
        raise_for(answer, "completing a multipart upload", endpoint)
        parse_xml(memoryview(answer.body), "completing a multipart upload")
    except KumoError:
        yield from abort_upload_task(store.context, store.bucket, probe.full(key), upload)
        raise
    found = yield from head_task(store.context, store.bucket, probe.full(key))
    if found.checksum_crc32c == _core.crc32c(_CONTENT):
        probe.findings.ok("multipart", "uploads in parts keep the CRC32C of the whole object")
    else:
        probe.findings.add(
            INFO,
            "multipart",
            "uploads in parts work, and keep no CRC32C of the whole object",
            "verify with level 'full'",
        )


def _list_uploads(probe: _Probe) -> Task[None]:
    store = probe.store
    key = probe.full(probe.key + "-unfinished")
    upload = yield from _create(probe, probe.key + "-unfinished", {})
    try:
        listed = yield from list_uploads_task(store.context, store.bucket, key)
    finally:
        yield from abort_upload_task(store.context, store.bucket, key, upload)
    if upload in {item.upload_id for item in listed}:
        probe.findings.ok("list uploads", "unfinished uploads can be found")
    else:
        probe.findings.add(
            WARNING,
            "list uploads",
            "the service does not list unfinished uploads",
            "let a rule of the service remove them",
        )


def _throughput(probe: _Probe, size: int) -> Task[None]:
    store = probe.store
    key = probe.key + "-throughput"
    content = secrets.token_bytes(min(size, 1 << 20)) * -(-size // (1 << 20))
    content = content[:size]
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
        yield from head_task(store.context, store.bucket, probe.full(probe.key))
        latencies.append(time.monotonic() - begun)
    probe.findings.add(
        INFO,
        "throughput",
        f"one object of {size / 1e6:.0f} MB: up {size / up / 1e6:.1f} MB/s, down "
        f"{size / down / 1e6:.1f} MB/s; a request takes "
        f"{statistics.median(latencies) * 1000:.1f} ms",
        "kumo-crt bench measures it thoroughly",
    )


def _delete(probe: _Probe) -> Task[None]:
    store = probe.store
    retained: datetime | None = None
    for key, version in probe.versions:
        try:
            yield from delete_task(store.context, store.bucket, probe.full(key), version)
        except AccessDeniedError:
            found = yield from head_task(store.context, store.bucket, probe.full(key), version)
            if found.retain_until is None:
                raise
            # As a prune would: it is gone from sight.
            yield from delete_task(store.context, store.bucket, probe.full(key))
            retained = found.retain_until
    versioned = {key for key, _ in probe.versions}
    for key in dict.fromkeys(probe.written):
        if key not in versioned:
            yield from delete_task(store.context, store.bucket, probe.full(key))
    try:
        yield from head_task(store.context, store.bucket, probe.full(probe.key))
    except NotFoundError:
        if retained is None:
            probe.findings.ok("delete", "scratch objects were deleted again")
        else:
            probe.findings.add(
                INFO,
                "delete",
                "objects can be deleted; Object Lock retains the versions of these scratch objects "
                f"until {retained:%F}",
                "they go by the bucket's lifecycle rules, or with prune --delete-versions; look "
                "without writing (--read-only) where that matters",
            )
        return
    raise KumoError("an object is still there after it was deleted")
