"""Multipart uploads that killed backups have left, to be gone on with."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._coordination._inflight import LeaseState
from kumo_crt.backup._format import _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import S3Error
from kumo_crt.s3._listings import list_uploads_task

_log = logging.getLogger("kumo_crt.backup")


def find_task(
    store: Store, others: Iterable[LeaseState], now: datetime
) -> Task[Mapping[str, tuple[str, ...]]]:
    """Ids of unfinished uploads of data objects, by key; without those that are being worked on.

    A backup that runs elsewhere, or here in another process, has pinned what it sends. Going on
    with its upload would do no harm: whoever completes it first has stored the same content. But
    both would send it.

    Args:
        store: The repository.
        others: Leases of other backups.
        now: The service's time.
    """
    try:
        found = yield from list_uploads_task(
            store.context, store.bucket, store.location.key(_layout.DATA)
        )
    except S3Error as error:
        _log.info("unfinished uploads cannot be listed, so none is gone on with: %s", error)
        return {}
    if not found:
        return {}
    busy = yield from _busy(store, others, now)
    start = len(store.location.prefix)
    uploads: dict[str, tuple[str, ...]] = {}
    for item in found:
        key = item.key[start:]
        if _layout.is_data_key(key) and _inflight.object_hash(key) not in busy:
            uploads[key] = (*uploads.get(key, ()), item.upload_id)
    return uploads


def _busy(store: Store, others: Iterable[LeaseState], now: datetime) -> Task[frozenset[str]]:
    """Hashes of what backups send that may still be running."""
    running = [
        lease for lease in others if _inflight.BACKUP in lease.kinds and not lease.has_lapsed(now)
    ]
    contents = yield from _inflight.read_parts(store, _inflight.parts_of(running, _inflight.BACKUP))
    return frozenset(
        name
        for content in contents.values()
        if not _is_dead(content.host, content.pid)
        for name in content.objects
    )


def _is_dead(host: str, pid: int) -> bool:
    """Whether a process is known to have ended: it was on this machine, and is not there."""
    if host != os.uname().nodename[:255]:
        return False
    if pid == os.getpid():
        return True  # an earlier process of this number; our own lease is not among them
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    with contextlib.suppress(OSError, IndexError):
        # A child that nobody has waited for yet.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state in (b"Z", b"X")
    return False
