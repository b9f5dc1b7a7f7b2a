"""Sends an export: its files as they are written, then the manifest."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kumo_crt._engine import Blocking, First, Gather, Meter, Sleep, Task
from kumo_crt.backup._format._results import StoredObject
from kumo_crt.backup._store._kept import Kept
from kumo_crt.backup._store._store import Store
from kumo_crt.backup._store._writing import write_new_task
from kumo_crt.exceptions import (
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
    RepositoryError,
)
from kumo_crt.export import _manifest
from kumo_crt.export._files import Written, write_next
from kumo_crt.export._results import ExportedFile, ExportInfo
from kumo_crt.export._source import Entry
from kumo_crt.s3._body import FileSource
from kumo_crt.s3._deletions import delete_many_task, delete_task
from kumo_crt.s3._head import head_task
from kumo_crt.s3._listings import abort_upload_task, list_uploads_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions

_LATE = 0.3  # seconds


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export is to do.

    Attributes:
        store: Where it goes.
        entries: What it sends.
        info: What its manifest will say, but for what is not known before.
        scratch: A directory for the files until they are sent.
        file_bytes: How large a file becomes, about.
        concurrency: Files under way at once.
        meter: Told of what was sent.
        tool: Who writes it.
    """

    store: Store
    entries: Iterator[Entry]
    info: ExportInfo
    scratch: Path
    file_bytes: int
    concurrency: int
    meter: Meter
    tool: str


def export_task(plan: ExportPlan) -> Task[ExportInfo]:
    """Runs a plan; the export exists when this has returned, and not before."""
    yield from check_free(plan.store)
    kept = Kept(plan.store)
    attempt = secrets.token_hex(8)
    place = f"{_manifest.DATA}{attempt}/"
    may_exist = False
    try:
        files: list[ExportedFile] = yield Gather(_tasks(plan, place, kept), plan.concurrency)
        info = replace(
            plan.info,
            files=tuple(files),
            entries=sum(file.entries for file in files),
            total_bytes=sum(file.size for file in files),
        )
        document = _manifest.encode(info, plan.tool)
        _manifest.decode(document, plan.store.url(_manifest.KEY), info.url)
        stored = [StoredObject(file.key, file.size, file.crc32c) for file in files]
        yield from _check(plan.store, kept, stored)
        may_exist = True
        try:
            result = yield from write_new_task(plan.store, _manifest.KEY, document)
        except PreconditionFailedError:
            may_exist = False  # another's does
            raise _taken(plan.store) from None
        kept.heard(_manifest.KEY, result.confirmed)
        stored.append(StoredObject(_manifest.KEY, result.size, 0))
        yield from _check(plan.store, kept, stored)
    except GeneratorExit:
        raise
    except BaseException:  # an interrupt may come from a callback, or while a file is written
        if may_exist:
            yield Sleep(_LATE)
            if not (yield from _is_absent(plan.store, _manifest.KEY)):
                raise  # an export must not lose what it names
        # In the queue for the budget it would stand behind what is not sent any more.
        ahead = plan.store._replace(context=replace(plan.store.context, budget=None))
        yield from _remove(ahead, place)
        # What was cut off when it had been sent in full, the service may have carried out since.
        yield Sleep(_LATE)
        yield from _remove(ahead, place)
        raise
    # What killed exports to this place have left. One that still runs cannot be committed any more.
    yield from _remove(plan.store, _manifest.DATA, but=place)
    plan.meter.flush()
    return info


def check_free(store: Store) -> Task[None]:
    """Looks whether there is an export already, before anything is sent.

    Raises:
        NotFoundError: There is no such bucket, which a listing tells and HEAD does not.
        RepositoryError: There is an export.
    """
    found, _ = yield from store.list_page(_manifest.KEY)
    if any(item.key == store.location.key(_manifest.KEY) for item in found):
        raise _taken(store)


def _taken(store: Store) -> RepositoryError:
    return RepositoryError(
        f"{store.url(_manifest.KEY)}: there is an export here already: choose another URL, or "
        "delete everything below this one"
    )


def _check(store: Store, kept: Kept, objects: list[StoredObject]) -> Task[None]:
    """Makes sure that what was sent is there, as far as its answers do not."""
    lost = yield from kept.lost(objects)
    if lost:
        if objects[-1].key == _manifest.KEY and _manifest.KEY not in lost:
            # It was written by this export, and names what is not there.
            key = store.location.key(_manifest.KEY)
            yield from delete_task(store.context, store.bucket, key)
        raise IntegrityError(
            f"{store.url(lost[0])}: the service said that it had stored it, and does not have it "
            f"({len(lost)} such objects). There is no export: look at what answers at the "
            "endpoint, and run it again"
        )


def _tasks(
    plan: ExportPlan, place: str, kept: Kept
) -> Generator[Task[ExportedFile] | First, Any, None]:
    number = 0
    while True:
        path = plan.scratch / f"{number:06d}.{plan.info.encoding}"
        written = yield First(_write(plan, path))
        if written is None:
            return
        yield _send(plan, f"{place}{path.name}", written, kept)
        number += 1


def _write(plan: ExportPlan, path: Path) -> Task[Written | None]:
    work = partial(write_next, plan.entries, plan.info.encoding, path, plan.file_bytes)
    written: Written | None = yield Blocking(work)
    return written


def _send(plan: ExportPlan, key: str, written: Written, kept: Kept) -> Task[ExportedFile]:
    options = PutOptions(
        checksum=True,
        headers={"Content-Type": "application/octet-stream"},
        if_match=None,
        if_none_match="*",
        meter=plan.meter,
    )
    with open(written.path, "rb", buffering=0) as opened:
        source = FileSource(opened.fileno())
        where = plan.store.location.key(key)
        result = yield from put_task(plan.store.context, plan.store.bucket, where, source, options)
    kept.heard(key, result.confirmed)
    written.path.unlink()
    return ExportedFile(key, result.size, result.checksum_crc32c or 0, written.entries)


def _is_absent(store: Store, key: str) -> Task[bool]:
    """Whether there certainly is no such object."""
    try:
        yield from head_task(store.context, store.bucket, store.location.key(key))
    except NotFoundError:
        return True
    except Exception:
        return False
    return False


def _remove(store: Store, place: str, but: str | None = None) -> Task[None]:
    """Deletes what is at a place, as far as that is possible: nothing names it."""
    start = store.location.key(place)
    kept = None if but is None else store.location.key(but)

    def goes(key: str) -> bool:
        return kept is None or not key.startswith(kept)

    with contextlib.suppress(Exception):
        # One that was cut off in the middle of a file has left parts that no listing shows.
        for upload in (yield from list_uploads_task(store.context, store.bucket, start)):
            if goes(upload.key):
                yield from abort_upload_task(
                    store.context, store.bucket, upload.key, upload.upload_id
                )
    with contextlib.suppress(Exception):
        found = yield from store.list_all(place)
        keys = [item.key for item in found if goes(item.key)]
        if keys:
            yield from delete_many_task(store.context, store.bucket, keys)
