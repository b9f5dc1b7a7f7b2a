"""Writes documents of a repository: apart from `_store`, as those who only read load less."""

from __future__ import annotations

from kumo_crt._engine import Task
from kumo_crt.backup._store import Store
from kumo_crt.s3._body import MemorySource
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions, PutResult


def write_new_task(store: Store, relative: str, document: bytes) -> Task[PutResult]:
    """Writes a document that must not exist yet.

    Raises:
        PreconditionFailedError: It does.
    """
    options = PutOptions(
        checksum=True,
        headers={"Content-Type": "application/json", **store.document_headers()},
        if_match=None,
        if_none_match="*",
    )
    key = store.location.key(relative)
    return (yield from put_task(store.context, store.bucket, key, MemorySource(document), options))
