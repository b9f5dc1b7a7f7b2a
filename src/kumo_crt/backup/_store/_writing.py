"""Writes documents of a repository: apart from `_store`, as those who only read load less."""

from __future__ import annotations

import contextlib
import secrets

from kumo_crt._engine import Task
from kumo_crt.backup._format import _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import KumoError, S3Error
from kumo_crt.s3._body import MemorySource
from kumo_crt.s3._deletions import delete_task
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


def try_storage_class_task(store: Store, storage_class: str) -> Task[None]:
    """Finds out whether the service has a class, before a repository needs it for good.

    Raises:
        ValueError: It has not.
    """
    # Below data/, and named by nothing: if it cannot be deleted, a prune takes it away.
    key = store.location.key(f"{_layout.DATA}00/kumo-create-{secrets.token_hex(8)}")
    options = PutOptions(
        checksum=True, headers=store.data_headers("sst"), if_match=None, if_none_match="*"
    )
    body = MemorySource(b"written when the repository was created; nothing refers to it\n")
    try:
        yield from put_task(store.context, store.bucket, key, body, options)
    except S3Error as error:
        if error.code != "InvalidStorageClass":
            raise
        raise ValueError(
            f"storage_class {storage_class!r} (--storage-class): the service has no such class"
        ) from error
    with contextlib.suppress(KumoError):
        yield from delete_task(store.context, store.bucket, key)
