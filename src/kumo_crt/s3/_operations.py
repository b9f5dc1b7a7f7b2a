"""The operations of both clients on objects: their arguments, documentation and tasks.

An operation checks what can be checked without asking anybody, and returns a task. `S3Client` and
`AsyncS3Client` make their methods from these; see also `_bucket_operations`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kumo_crt._engine import Task
from kumo_crt.s3 import _get
from kumo_crt.s3._body import conditions, object_headers
from kumo_crt.s3._context import Context, check_names
from kumo_crt.s3._results import GetResult

if TYPE_CHECKING:
    from kumo_crt.s3._deletions import DeleteResult
    from kumo_crt.s3._head import HeadResult
    from kumo_crt.s3._putting import PutResult

# What one operation alone needs is loaded by it: a program that only reads does not pay for more.

Progress: TypeAlias = Callable[[int, int], object]


def put_object(
    ctx: Context,
    bucket: str,
    key: str,
    body: object,
    *,
    checksum: str | None = "CRC32C",
    if_none_match: str | None = None,
    if_match: str | None = None,
    metadata: Mapping[str, str] | None = None,
    content_type: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    storage_class: str | None = None,
    tags: Mapping[str, str] | None = None,
    sse: str | None = None,
    kms_key_id: str | None = None,
    lock_mode: str | None = None,
    retain_until: datetime | None = None,
    legal_hold: bool | None = None,
    progress: Progress | None = None,
) -> Task[PutResult]:
    """Stores an object.

    Args:
        bucket: Bucket.
        key: Key.
        body: C-contiguous buffer (sent from where it is: do not change it meanwhile), path
            (read natively), or binary file object (from its position to its end).
        checksum: ``"CRC32C"``, checked and stored by the service as a full-object checksum, or
            None.
        if_none_match: ``"*"``: only if there is no such object.
        if_match: Only if the object has this ETag.
        metadata: User metadata, printable ASCII.
        content_type: Content type.
        cache_control: Cache-Control.
        content_disposition: Content-Disposition.
        content_encoding: Content-Encoding; the body is stored as it is.
        content_language: Content-Language.
        storage_class: Storage class, such as ``"STANDARD_IA"``.
        tags: Object tags.
        sse: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
        kms_key_id: KMS key, with ``sse="aws:kms"``.
        lock_mode: ``"GOVERNANCE"`` or ``"COMPLIANCE"``: Object Lock retains the version until
            ``retain_until``.
        retain_until: Until when, with its time zone.
        legal_hold: Whether to put it under a legal hold.
        progress: Called with bytes done and total (0: not known), ten times a second at most.

    Returns:
        What was stored.

    Raises:
        PreconditionFailedError: ``if_none_match`` or ``if_match`` did not hold.
        ChecksumMismatchError: The service stored something else than was sent.
        S3Error: The service refused; see its subclasses.
        TransportError: There was no answer, after every retry.
        OSError: The file cannot be read.
    """
    from kumo_crt.s3._put import put_body

    check_names(bucket, key)
    _check_conditions(checksum, if_none_match)
    headers = object_headers(
        metadata,
        lock_mode=lock_mode,
        retain_until=retain_until,
        content_type=content_type,
        cache_control=cache_control,
        content_disposition=content_disposition,
        content_encoding=content_encoding,
        content_language=content_language,
        storage_class=storage_class,
        tags=tags or None,
        sse=sse,
        kms_key_id=kms_key_id,
        legal_hold=legal_hold,
    )
    if checksum is not None and (lock_mode is not None or legal_hold is not None):
        # The checksum is what Object Lock asks for; some services look for its announcement.
        headers["x-amz-sdk-checksum-algorithm"] = checksum
    return put_body(
        ctx,
        bucket,
        key,
        body,
        checksum=checksum is not None,
        headers=headers,
        if_match=if_match,
        if_none_match=if_none_match,
        progress=progress,
    )


def get_object(
    ctx: Context,
    bucket: str,
    key: str,
    *,
    into: object = None,
    range: tuple[int, int | None] | None = None,  # noqa: A002 - the contract's name
    if_match: str | None = None,
    version_id: str | None = None,
    progress: Progress | None = None,
) -> Task[GetResult]:
    """Reads an object, and compares it with its stored checksum.

    Args:
        bucket: Bucket.
        key: Key.
        into: Path (written under a temporary name, then renamed; links are followed, and what is no
            file is refused), writable buffer (at least as large as the content), or None for fresh
            memory.
        range: Half-open byte range ``(start, stop)``; a stop of None means to the end. The
            checksum of the whole object says nothing about a range: it is not validated.
        if_match: Only if the object has this ETag.
        version_id: Version to read.
        progress: Called with bytes done and total, ten times a second at most.

    Returns:
        Content and properties.

    Raises:
        NotFoundError: No such object.
        PreconditionFailedError: ``if_match`` did not hold.
        ChecksumMismatchError: The content is not what was stored; no file is left behind.
        KumoError: The buffer is too small.
        OSError: The file cannot be written.
        S3Error: The service refused, such as a range that begins behind the end.
        TransportError: There was no complete answer, after every retry.
    """
    check_names(bucket, key)
    options = _get.GetOptions(
        range=range, if_match=if_match, version_id=version_id, progress=progress
    )
    target = Path(into) if isinstance(into, str | os.PathLike) else into
    return _get.get_task(ctx, bucket, key, target, options)


def head_object(
    ctx: Context, bucket: str, key: str, *, version_id: str | None = None
) -> Task[HeadResult]:
    """Asks for an object's properties.

    Raises:
        NotFoundError: No such object.
    """
    from kumo_crt.s3._head import head_task

    check_names(bucket, key)
    return head_task(ctx, bucket, key, version_id)


def copy_object(
    ctx: Context,
    src_bucket: str,
    src_key: str,
    bucket: str,
    key: str,
    *,
    src_version_id: str | None = None,
    src_if_match: str | None = None,
    checksum: str | None = "CRC32C",
    if_none_match: str | None = None,
    if_match: str | None = None,
    metadata: Mapping[str, str] | None = None,
    content_type: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    storage_class: str | None = None,
    tags: Mapping[str, str] | None = None,
    sse: str | None = None,
    kms_key_id: str | None = None,
    lock_mode: str | None = None,
    retain_until: datetime | None = None,
    legal_hold: bool | None = None,
    progress: Progress | None = None,
) -> Task[PutResult]:
    """Copies an object within the service, in parts where it is larger than 5 GiB.

    Metadata, content properties and tags that are not given are those of the source; storage
    class, encryption and lock are not taken from it. The copy is of the object that was there when
    this was called: if it is replaced meanwhile, the copy fails.

    Args:
        src_bucket: Bucket to copy from.
        src_key: Key to copy from.
        bucket: Bucket to copy to.
        key: Key to copy to.
        src_version_id: Version to copy.
        src_if_match: Only if the source has this ETag.
        checksum: ``"CRC32C"``: the service stores one with the copy, which is compared with that of
            the source where it has one; or None.
        if_none_match: ``"*"``: only if there is no such object yet.
        if_match: Only if the object that is replaced has this ETag.
        metadata: User metadata instead of the source's.
        content_type: See `put_object`.
        cache_control: See `put_object`.
        content_disposition: See `put_object`.
        content_encoding: See `put_object`.
        content_language: See `put_object`.
        storage_class: See `put_object`.
        tags: Object tags instead of the source's; ``{}`` for none.
        sse: See `put_object`.
        kms_key_id: See `put_object`.
        lock_mode: See `put_object`.
        retain_until: See `put_object`.
        legal_hold: See `put_object`.
        progress: Called with bytes done and total; of a copy in parts after each part.

    Returns:
        What was stored.

    Raises:
        NotFoundError: No such object.
        PreconditionFailedError: A condition did not hold, or the source was replaced.
        ChecksumMismatchError: The copy has another CRC32C than the source.
    """
    from kumo_crt.s3._copy import CopyOptions, copy_object_task

    check_names(src_bucket, src_key)
    check_names(bucket, key)
    _check_conditions(checksum, if_none_match)
    properties = {
        "content_type": content_type,
        "cache_control": cache_control,
        "content_disposition": content_disposition,
        "content_encoding": content_encoding,
        "content_language": content_language,
    }
    options = CopyOptions(
        headers=object_headers(
            metadata,
            lock_mode=lock_mode,
            retain_until=retain_until,
            storage_class=storage_class,
            tags=tags,
            sse=sse,
            kms_key_id=kms_key_id,
            legal_hold=legal_hold,
            **properties,
        ),
        checksum=checksum is not None,
        conditions=conditions(if_match, if_none_match),
        progress=progress,
    )
    return copy_object_task(
        ctx,
        (src_bucket, src_key),
        (bucket, key),
        src_version_id,
        src_if_match,
        options,
        metadata=metadata,
        replaces=any(value is not None for value in properties.values()),
    )


def delete_object(
    ctx: Context,
    bucket: str,
    key: str,
    *,
    version_id: str | None = None,
    if_match: str | None = None,
    bypass_governance: bool = False,
) -> Task[DeleteResult]:
    """Deletes an object; succeeds if there is none, as S3 does.

    Args:
        bucket: Bucket.
        key: Key.
        version_id: Version to delete for good.
        if_match: Only if the object has this ETag.
        bypass_governance: Delete it also if it is retained in ``GOVERNANCE`` mode.

    Returns:
        The deleted version, or the delete marker that was made in a versioned bucket.
    """
    from kumo_crt.s3._deletions import delete_task

    check_names(bucket, key)
    return delete_task(
        ctx, bucket, key, version_id, if_match=if_match, bypass_governance=bypass_governance
    )


def delete_objects(
    ctx: Context,
    bucket: str,
    keys: Iterable[str | tuple[str, str | None]],
    *,
    check: bool = True,
    bypass_governance: bool = False,
) -> Task[list[DeleteResult]]:
    """Deletes many objects, a thousand a request.

    Args:
        bucket: Bucket.
        keys: Keys, or pairs of a key and a version.
        check: Raise if some were not deleted. Else look at `DeleteResult.error`.
        bypass_governance: Delete them also if they are retained in ``GOVERNANCE`` mode.

    Returns:
        What became of each, in their order.

    Raises:
        S3Error: Some were not deleted; the message names the first. The others were.
        TypeError: One is no key, and no pair; those before it may be gone.
    """
    from kumo_crt.s3._deletions import delete_objects_task

    check_names(bucket)
    if isinstance(keys, str):
        raise TypeError("keys: expected many keys, not one; see delete_object")
    objects = (_object(bucket, key) for key in keys)
    return delete_objects_task(
        ctx, bucket, objects, check=check, bypass_governance=bypass_governance
    )


def _object(bucket: str, key: str | tuple[str, str | None]) -> tuple[str, str | None]:
    name, version_id = (key, None) if isinstance(key, str) else _pair(key)
    check_names(bucket, name)
    return name, version_id


def _pair(key: object) -> tuple[str, str | None]:
    match key:
        case (str() as name, str() | None as version_id):
            return name, version_id
    raise TypeError(f"keys: expected keys, or pairs of a key and a version, not {key!r}")


def metrics(ctx: Context) -> Task[dict[str, Any]]:
    """What the client has done since it was made, as values that JSON takes.

    Returns:
        ``operations``: by S3 operation, what its attempts came to: ``succeeded``, ``failed``,
        ``bytes_sent``, ``bytes_received``, and in milliseconds ``latency_ms`` (an attempt, from
        its submission) and ``first_byte_ms`` (from the start of sending to the first byte of
        the answer), each with ``count``, ``mean``, ``p50``, ``p90``, ``p99``, ``p999`` and
        ``max``, exact to 3 %. ``retries``: attempts that followed a failed one, by what that
        was (``throttled``, ``server_error``, ``timeout``, ``transport``, ``clock_skew``,
        ``expired_credentials``). ``connections``: ``idle``, ``leased``, and requests
        ``waiting`` for one. ``throttled``: whether the client goes slower now because the
        service asked for it. ``clock_offset_ms``: what is added to this machine's clock.
    """
    yield from ()
    return {
        **ctx.native.metrics(),
        "retries": dict(ctx.retries.causes),
        "throttled": ctx.retries.pace.limited,
        "clock_offset_ms": ctx.native.clock_offset,
    }


def _check_conditions(checksum: str | None, if_none_match: str | None) -> None:
    if checksum not in ("CRC32C", None):
        raise ValueError(f"checksum {checksum!r}: 'CRC32C' or None")
    if if_none_match not in ("*", None):
        raise ValueError(f"if_none_match {if_none_match!r}: S3 knows only '*'")
