"""The operations of both clients: their arguments, their documentation, their tasks.

An operation checks what can be checked without asking anybody, and returns a task, or for a
listing its `Pages`. `S3Client` and `AsyncS3Client` make their methods from these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar, cast

from kumo_crt._engine import Task
from kumo_crt.s3 import _body, _get, _objects, _put
from kumo_crt.s3._context import Context, check_names
from kumo_crt.s3._results import DeleteResult, GetResult, HeadResult, ObjectInfo, PutResult

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], object]
# From where to go on (None: from the start) to a task that finds a page and where that ends.
Pages: TypeAlias = Callable[[Any], Task[tuple[list[T], Any]]]


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
    storage_class: str | None = None,
    tags: Mapping[str, str] | None = None,
    sse: str | None = None,
    kms_key_id: str | None = None,
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
        storage_class: Storage class, such as ``"STANDARD_IA"``.
        tags: Object tags.
        sse: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
        kms_key_id: KMS key, with ``sse="aws:kms"``.
        progress: Called with bytes done and total (0: not known), ten times a second at most.

    Returns:
        What was stored.

    Raises:
        PreconditionFailedError: ``if_none_match`` or ``if_match`` did not hold.
        ChecksumMismatchError: The service stored something else than was sent.
        S3Error: The service refused; see its subclasses.
        TransportError: There was no answer, after every retry.
    """
    check_names(bucket, key)
    if checksum not in ("CRC32C", None):
        raise ValueError(f"checksum {checksum!r}: 'CRC32C' or None")
    if if_none_match not in ("*", None):
        raise ValueError(f"if_none_match {if_none_match!r}: S3 knows only '*'")
    options = _put.PutOptions(
        checksum=checksum is not None,
        headers=_body.object_headers(
            metadata,
            content_type=content_type,
            storage_class=storage_class,
            tagging=_body.tagging(tags) if tags else None,
            sse=sse,
            kms_key_id=kms_key_id,
        ),
        if_match=if_match,
        if_none_match=if_none_match,
        progress=progress,
    )
    if isinstance(body, str | os.PathLike):
        return _put_path(ctx, bucket, key, body, options)
    if hasattr(body, "read"):
        return _put_file(ctx, bucket, key, cast("BinaryIO", body), options)
    return _put.put_task(ctx, bucket, key, _body.MemorySource(body), options)


def _put_path(
    ctx: Context,
    bucket: str,
    key: str,
    path: str | os.PathLike[str],
    options: _put.PutOptions,
) -> Task[PutResult]:
    with open(path, "rb", buffering=0) as file:
        return (yield from _put_file(ctx, bucket, key, cast("BinaryIO", file), options))


def _put_file(
    ctx: Context, bucket: str, key: str, file: BinaryIO, options: _put.PutOptions
) -> Task[PutResult]:
    opened = _body.regular_file(file)
    if opened is None:
        return (yield from _put.stream_task(ctx, bucket, key, file, options))
    source = _body.FileSource(*opened)
    result = yield from _put.put_task(ctx, bucket, key, source, options)
    file.seek(opened[1] + source.size)
    return result


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
        into: Path (written under a temporary name, then renamed), writable buffer (at least as
            large as the content), or None for fresh memory.
        range: Half-open byte range ``(start, stop)``; a stop of None means to the end. The
            checksum of the whole object says nothing about a range: it is not validated.
        if_match: Only if the object has this ETag.
        version_id: Version to read.
        progress: Called with bytes done and total, ten times a second at most.

    Returns:
        Content and properties.

    Raises:
        NotFoundError: No such object.
        ChecksumMismatchError: The content is not what was stored; no file is left behind.
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
    check_names(bucket, key)
    return _objects.head_task(ctx, bucket, key, version_id)


def delete_object(
    ctx: Context, bucket: str, key: str, *, version_id: str | None = None
) -> Task[DeleteResult]:
    """Deletes an object; succeeds if there is none, as S3 does."""
    check_names(bucket, key)
    return _objects.delete_task(ctx, bucket, key, version_id)


def delete_objects(ctx: Context, bucket: str, keys: Iterable[str]) -> Task[int]:
    """Deletes many objects, a thousand a request.

    Returns:
        How many keys were given.

    Raises:
        S3Error: Some were not deleted; the message names the first.
    """
    check_names(bucket)
    return _objects.delete_many_task(ctx, bucket, keys)


def list_objects(
    ctx: Context,
    bucket: str,
    prefix: str = "",
    delimiter: str | None = None,
    start_after: str | None = None,
) -> Pages[ObjectInfo]:
    """Lists objects in key order, page by page as they are asked for.

    Args:
        bucket: Bucket.
        prefix: Only keys that begin so.
        delimiter: Keys that have it after the prefix are summed up, see `ObjectInfo.is_prefix`.
        start_after: Only keys after this one.
    """
    check_names(bucket)
    return lambda token: _objects.list_page_task(ctx, bucket, prefix, delimiter, start_after, token)


def create_bucket(ctx: Context, bucket: str) -> Task[None]:
    """Creates a bucket in the client's region.

    Raises:
        S3Error: It exists (``BucketAlreadyOwnedByYou``, ``BucketAlreadyExists``), or may not.
    """
    check_names(bucket)
    return _objects.create_bucket_task(ctx, bucket)
