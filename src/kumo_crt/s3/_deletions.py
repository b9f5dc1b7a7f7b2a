"""Requests that delete objects, one or many."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

from kumo_crt._engine import Gather, Task
from kumo_crt.exceptions import S3Error
from kumo_crt.s3._answers import Headers, error_class, parse_xml, quoted, raise_for, text_of
from kumo_crt.s3._context import Context
from kumo_crt.s3._xml import escape

DELETE_BATCH = 1000  # DeleteObjects takes no more keys
Object: TypeAlias = tuple[str, str | None]  # a key, and a version of it or None
_BYPASS = {"x-amz-bypass-governance-retention": "true"}
_BATCHES_AT_ONCE = 4
_SINGLE_AT_ONCE = 16
# What XML 1.0 cannot hold, or does not give back as it was: such keys are deleted one by one.
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]").search


class DeleteFailure(NamedTuple):
    """What a request for many deletions did not delete, and why."""

    key: str
    version_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """A deletion.

    Attributes:
        version_id: The deleted version, or the delete marker that was made.
        delete_marker: Whether it is a delete marker.
        key: Key.
        error: Why it was not deleted, of one of many; None if it was.
    """

    version_id: str | None
    delete_marker: bool
    key: str = ""
    error: S3Error | None = None


def delete_task(
    ctx: Context,
    bucket: str,
    key: str,
    version_id: str | None = None,
    *,
    if_match: str | None = None,
    bypass_governance: bool = False,
) -> Task[DeleteResult]:
    """Deletes one object; deleting what is not there succeeds, as S3 has it."""
    headers = _BYPASS if bypass_governance else {}
    if if_match is not None:
        headers = {**headers, "If-Match": quoted(if_match)}
    response = yield from ctx.request(
        "DeleteObject",
        "DELETE",
        bucket,
        key,
        query=[("versionId", version_id)] if version_id else [],
        headers=headers,
    )
    raise_for(response, f"deleting s3://{bucket}/{key}", ctx.endpoint(bucket))
    answer = Headers(response.headers)
    return DeleteResult(
        answer.get("x-amz-version-id"), answer.get("x-amz-delete-marker") == "true", key
    )


def delete_objects_task(
    ctx: Context,
    bucket: str,
    objects: Iterable[Object],
    *,
    check: bool = True,
    bypass_governance: bool = False,
) -> Task[list[DeleteResult]]:
    """Deletes keys, or versions of them, a thousand a request; tells of each what became of it."""
    remaining = iter(objects)

    def batches() -> Iterator[Task[list[DeleteResult]]]:
        while batch := list(islice(remaining, DELETE_BATCH)):
            yield _delete_batch(ctx, bucket, batch, False, bypass_governance)

    found: list[list[DeleteResult]] = yield Gather(batches(), _BATCHES_AT_ONCE)
    results = [result for batch in found for result in batch]
    failed = [_failure(result) for result in results if result.error is not None]
    if check and failed:
        raise delete_error(bucket, failed, len(results))
    return results


def delete_many_task(ctx: Context, bucket: str, keys: Iterable[str]) -> Task[int]:
    """Deletes keys, a thousand a request; returns how many."""
    remaining = iter(keys)
    count = 0
    while batch := list(islice(remaining, DELETE_BATCH)):
        failed = yield from delete_batch_task(ctx, bucket, [(key, None) for key in batch])
        if failed:
            raise delete_error(bucket, failed, len(batch))
        count += len(batch)
    return count


def delete_error(bucket: str, failed: Sequence[DeleteFailure], count: int) -> S3Error:
    """The exception for deletions that were refused."""
    first = failed[0]
    error = _refused(first.code, first.message)
    return type(error)(
        error.code,
        error.status,
        f"deleting from s3://{bucket}: {len(failed)} of {count} keys were not deleted; the first "
        f"is {first.key!r}: {first.message}",
    )


def delete_batch_task(
    ctx: Context, bucket: str, objects: Sequence[Object]
) -> Task[list[DeleteFailure]]:
    """Deletes up to a thousand keys, or versions of them; returns what was refused."""
    results = yield from _delete_batch(ctx, bucket, objects, True, False)
    return [_failure(result) for result in results if result.error is not None]


def _failure(result: DeleteResult) -> DeleteFailure:
    code = result.error.code if result.error is not None else ""
    message = result.error.message if result.error is not None else ""
    return DeleteFailure(result.key, result.version_id, code, message)


def _refused(code: str, message: str) -> S3Error:
    status = 403 if code == "AccessDenied" else 200
    return error_class(code, status)(code, status, message)


def _delete_batch(
    ctx: Context, bucket: str, objects: Sequence[Object], quiet: bool, bypass_governance: bool
) -> Task[list[DeleteResult]]:
    """Deletes up to a thousand; the results are in the order of the objects."""
    odd = [item for item in objects if _NOT_IN_XML(item[0])]
    by_object: dict[tuple[str, str], DeleteResult] = {}
    if len(odd) < len(objects):
        plain = [item for item in objects if not _NOT_IN_XML(item[0])] if odd else objects
        by_object = yield from _delete_request(ctx, bucket, plain, quiet, bypass_governance)
    if odd:

        def single(key: str, version_id: str | None) -> Task[None]:
            try:
                result = yield from delete_task(
                    ctx, bucket, key, version_id, bypass_governance=bypass_governance
                )
            except S3Error as error:
                result = DeleteResult(version_id, False, key, error)
            by_object[key, version_id or ""] = result

        yield Gather(itertools.starmap(single, odd), _SINGLE_AT_ONCE)
    return [by_object[key, version_id or ""] for key, version_id in objects]


def _delete_request(
    ctx: Context, bucket: str, objects: Sequence[Object], quiet: bool, bypass_governance: bool
) -> Task[dict[tuple[str, str], DeleteResult]]:
    what = f"deleting from s3://{bucket}"
    entries = []
    for key, version_id in objects:
        version = f"<VersionId>{escape(version_id)}</VersionId>" if version_id else ""
        entries.append(f"<Object><Key>{escape(key)}</Key>{version}</Object>")
    body = (
        '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Quiet>{str(quiet).lower()}</Quiet>{''.join(entries)}</Delete>"
    )
    response = yield from ctx.request(
        "DeleteObjects",
        "POST",
        bucket,
        query=[("delete", "")],
        headers={
            "Content-Type": "application/xml",
            "x-amz-sdk-checksum-algorithm": "CRC32C",
            **(_BYPASS if bypass_governance else {}),
        },
        body=body.encode(),
        send_crc32c=True,
    )
    raise_for(response, what, ctx.endpoint(bucket))
    results: dict[tuple[str, str], DeleteResult] = {}
    wanted: dict[str, list[str]] = {}
    for key, version_id in objects:
        wanted.setdefault(key, []).append(version_id or "")
    for item in parse_xml(memoryview(response.body), what, "DeleteResult"):
        key, version = text_of(item, "Key"), text_of(item, "VersionId")
        # Services name the version that was asked for, or what became of it, or none.
        versions = [version] if version in wanted.get(key, ()) else wanted.get(key, [])
        if item.tag == "Error":
            error = _refused(text_of(item, "Code"), text_of(item, "Message"))
            result = DeleteResult(version or None, False, key, error)
            if not versions:
                raise delete_error(bucket, [_failure(result)], len(objects))
        elif item.tag == "Deleted":
            marker = text_of(item, "DeleteMarkerVersionId")
            is_marker = text_of(item, "DeleteMarker") == "true"
            result = DeleteResult(version or marker or None, is_marker, key)
        else:
            continue
        for each in versions:
            results[key, each] = result
    for key, version_id in objects:
        # Errors are always told; what was deleted only if asked for, and not by every service.
        results.setdefault((key, version_id or ""), DeleteResult(version_id, False, key))
    return results
