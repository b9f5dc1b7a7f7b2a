"""What uploads in one request and in several have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kumo_crt._engine import Meter, Task, Throttle
from kumo_crt.exceptions import ChecksumMismatchError, NotFoundError
from kumo_crt.s3._answers import SSE, SSE_KEY, Headers, decode_crc32c
from kumo_crt.s3._context import Context


@dataclass(frozen=True, slots=True)
class PutResult:
    """An object that was stored.

    Attributes:
        etag: ETag, without quotes.
        version_id: Version in a versioned bucket.
        checksum_crc32c: CRC32C of the whole object, as sent and confirmed by the service where it
            says so; None if the checksum was turned off, or the service told none of a copy.
        size: Bytes.
        parts: Parts of a multipart upload or copy; 0 for a single request.
        server_time: The service's clock when it answered.
        sse: Encryption that the service says it used.
        kms_key_id: KMS key that it used.
        confirmed: Whether the service told the CRC32C, or was asked about the object since. Many
            services never do.
        resumed: Bytes in parts that were there already, of an upload that was gone on with.
    """

    etag: str
    version_id: str | None
    checksum_crc32c: int | None
    size: int
    parts: int = 0
    server_time: datetime | None = None
    sse: str | None = None
    kms_key_id: str | None = None
    confirmed: bool = False
    resumed: int = 0


class PutOptions(NamedTuple):
    """What goes with an object; headers by their S3 names, without preconditions.

    ``meter`` and ``throttle`` are shared with other transfers; ``progress`` is this one's own. A
    multipart upload whose CRC32C is not ``expected_crc32c`` is aborted instead of completed.
    ``resume``, if not None, says that the key stands for the content, whoever writes it; with ids
    of uploads that were begun and may be gone on with. Such an upload stays if it is interrupted.
    """

    checksum: bool
    headers: Mapping[str, str]
    if_match: str | None
    if_none_match: str | None
    expected_crc32c: int | None = None
    progress: Callable[[int, int], object] | None = None
    meter: Meter | None = None
    throttle: Throttle | None = None
    resume: Sequence[str] | None = None


def result_of(
    answer: Headers, etag: str, crc: int | None, size: int, confirmed: bool, parts: int = 0
) -> PutResult:
    """What was stored, by the answer to the request that stored it."""
    return PutResult(
        etag,
        answer.get("x-amz-version-id"),
        crc,
        size,
        parts,
        answer.time("date"),
        answer.get(SSE),
        answer.get(SSE_KEY),
        confirmed,
    )


def confirm(stored: str | None, crc: int | None, what: str) -> bool:
    """Compares what the service says it stored with what was sent; False if it says nothing."""
    value = decode_crc32c(stored)
    if crc is not None and value is not None and value != crc:
        raise ChecksumMismatchError(
            f"{what}: sent CRC32C {crc:08x}, the service stored {value:08x}. The object may be "
            "damaged: put it again"
        )
    return value is not None


def already_ours(
    ctx: Context, bucket: str, key: str, size: int, crc: int | None, attempt: str | None
) -> Task[PutResult | None]:
    """Whether a refused write had in truth succeeded before, when its answer was lost."""
    if attempt is None and crc is None:
        return None
    from kumo_crt.s3._head import head_task  # rarely needed

    try:
        found = yield from head_task(ctx, bucket, key)
    except NotFoundError:
        return None
    if attempt is not None and found.attempt != attempt:
        return None
    if found.size != size or (crc is not None and found.checksum_crc32c not in (crc, None)):
        return None
    if attempt is None and found.checksum_crc32c != crc:
        return None
    return PutResult(
        found.etag,
        found.version_id,
        crc,
        size,
        server_time=found.server_time,
        sse=found.sse,
        kms_key_id=found.kms_key_id,
        confirmed=True,
    )
