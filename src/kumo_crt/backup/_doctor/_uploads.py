"""Tries what a doctor has to know of multipart uploads: each permission by itself."""

from __future__ import annotations

from typing import NamedTuple

from kumo_crt import _core
from kumo_crt._engine import Task
from kumo_crt.backup._doctor._findings import INFO, WARNING
from kumo_crt.backup._doctor._scratch import Scratch
from kumo_crt.exceptions import AccessDeniedError, KumoError
from kumo_crt.s3._answers import Headers, encode_crc32c, parse_xml, raise_for, text_of
from kumo_crt.s3._head import head_task
from kumo_crt.s3._listings import abort_upload_task, list_uploads_task

_CONTENT = b"written by kumo-crt doctor in parts; nothing refers to it\n"
_FULL = {"x-amz-checksum-type": "FULL_OBJECT"}
_PUT = "s3:PutObject"


class _Upload(NamedTuple):
    """An upload that was begun."""

    key: str
    id: str


def uploads_task(scratch: Scratch) -> Task[None]:
    """Lists an upload and completes it; aborts another one."""
    findings = scratch.findings
    uploads: list[_Upload] = []
    begun = yield from findings.tried(
        "multipart",
        _begin(scratch, "-parts", uploads),
        permission=_PUT,
        what_for="large files cannot be sent",
    )
    if not begun:
        return
    (upload,) = uploads
    yield from findings.tried(
        "list uploads",
        _list(scratch, upload),
        permission="s3:ListBucketMultipartUploads",
        severity=WARNING,
        what_for="unfinished uploads are neither resumed nor cleaned",
    )
    completed = yield from findings.tried(
        "multipart",
        _complete(scratch, upload),
        permission=_PUT,
        what_for="large files cannot be sent",
    )
    if completed:
        yield from findings.tried("multipart", _look(scratch, upload), severity=WARNING)
        again = _begin(scratch, "-unfinished", uploads)
        if not (yield from findings.tried("abort uploads", again, permission=_PUT)):
            return
    yield from findings.tried(
        "abort uploads", _abort(scratch, uploads[-1], completed), severity=WARNING
    )


def _begin(scratch: Scratch, suffix: str, uploads: list[_Upload]) -> Task[None]:
    store = scratch.store
    key = scratch.key + suffix
    what = "beginning a multipart upload"
    response = yield from store.context.request(
        "CreateMultipartUpload",
        "POST",
        store.bucket,
        scratch.full(key),
        query=[("uploads", "")],
        headers={**store.document_headers(), **_FULL, "x-amz-checksum-algorithm": "CRC32C"},
    )
    raise_for(response, what, store.context.endpoint(store.bucket))
    root = parse_xml(memoryview(response.body), what)
    uploads.append(_Upload(key, text_of(root, "UploadId")))


def _list(scratch: Scratch, upload: _Upload) -> Task[None]:
    store = scratch.store
    listed = yield from list_uploads_task(store.context, store.bucket, scratch.full(upload.key))
    if upload.id in {item.upload_id for item in listed}:
        scratch.findings.ok("list uploads", "unfinished uploads can be found")
    else:
        scratch.findings.add(
            WARNING,
            "list uploads",
            "the service does not list unfinished uploads",
            "let a rule of the service remove them",
        )


def _complete(scratch: Scratch, upload: _Upload) -> Task[None]:
    """Sends one part, and completes the upload with the CRC32C of the whole object."""
    store = scratch.store
    key = scratch.full(upload.key)
    endpoint = store.context.endpoint(store.bucket)
    answer = yield from store.context.request(
        "UploadPart",
        "PUT",
        store.bucket,
        key,
        query=[("partNumber", "1"), ("uploadId", upload.id)],
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
    with scratch.making(upload.key):
        answer = yield from store.context.request(
            "CompleteMultipartUpload",
            "POST",
            store.bucket,
            key,
            query=[("uploadId", upload.id)],
            headers={
                "Content-Type": "application/xml",
                "If-None-Match": "*",
                "x-amz-checksum-crc32c": crc,
                **_FULL,
            },
            body=body.encode(),
        )
        raise_for(answer, "completing a multipart upload", endpoint)
        parse_xml(memoryview(answer.body), "completing a multipart upload")
    if version := Headers(answer.headers).get("x-amz-version-id"):
        scratch.made[upload.key].append(version)


def _look(scratch: Scratch, upload: _Upload) -> Task[None]:
    store = scratch.store
    try:
        found = yield from head_task(store.context, store.bucket, scratch.full(upload.key))
    except AccessDeniedError:
        # Which is said of "head", with its permission.
        scratch.findings.ok("multipart", "uploads in parts work; to look at them is refused")
        return
    if found.checksum_crc32c == _core.crc32c(_CONTENT):
        scratch.findings.ok("multipart", "uploads in parts keep the CRC32C of the whole object")
    else:
        scratch.findings.add(
            INFO,
            "multipart",
            "uploads in parts work, and keep no CRC32C of the whole object",
            "verify with level 'full'",
        )


def _abort(scratch: Scratch, upload: _Upload, may_complete: bool) -> Task[None]:
    store = scratch.store
    key = scratch.full(upload.key)
    try:
        yield from abort_upload_task(store.context, store.bucket, key, upload.id)
    except AccessDeniedError as error:
        denied = error
    else:
        scratch.findings.ok("abort uploads", "unfinished uploads can be aborted")
        return
    what = f"the upload {upload.id} to {store.url(upload.key)}"
    left = f"{what} is left"
    if may_complete:
        # An object can be deleted; an upload would stay, and be paid for.
        try:
            yield from _complete(scratch, upload)
            left = f"{what} was completed instead, not to be left"
        except KumoError:
            pass
    scratch.findings.add(
        WARNING,
        "abort uploads",
        f"not permitted: {denied.code}; without it unfinished uploads are not cleaned; {left}",
        "allow s3:AbortMultipartUpload to these credentials, or have a lifecycle rule abort "
        "unfinished uploads",
    )
