"""Scratch objects of a doctor: what it has made, it deletes, and it tells what stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kumo_crt._engine import Task
from kumo_crt.backup._doctor._findings import INFO, WARNING, Findings
from kumo_crt.backup._format import _layout
from kumo_crt.backup._repair._replacing import QUARANTINE
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    AccessDeniedError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._deletions import delete_many_task, delete_task
from kumo_crt.s3._head import head_task

_NAME = "kumo-doctor-"
# Below data/: if all fails, a prune takes it away.
SCRATCH = f"{_layout.DATA}00/{_NAME}"
# What is younger may be another doctor's that is at work.
_LEFT_AGE = timedelta(hours=1)


@dataclass(slots=True)
class Scratch:
    """What a doctor writes to.

    Attributes:
        key: Of the first object; those of others begin so.
        made: Objects that are there, or may be, with the versions that are known.
        etag: Of the first object.
        now: The service's time.
    """

    store: Store
    findings: Findings
    key: str
    made: dict[str, list[str]] = field(default_factory=dict)
    etag: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _stays: list[str] = field(default_factory=list)
    _retained: list[datetime] = field(default_factory=list)

    def full(self, key: str) -> str:
        """The full key."""
        return self.store.location.key(key)

    @property
    def aside(self) -> str:
        """Where a copy goes."""
        return QUARANTINE + self.key.rpartition("/")[2]

    @contextmanager
    def making(self, key: str) -> Iterator[None]:
        """Remembers that an object is made; one that was refused is not there."""
        try:
            yield
        except (AccessDeniedError, PreconditionFailedError):
            raise
        except BaseException:
            self.made.setdefault(key, [])
            raise
        self.made.setdefault(key, [])

    def delete(self) -> Task[bool]:
        """Deletes what was made; tells whether nothing of it is left, not even a version."""
        refused: dict[str, AccessDeniedError] = {}
        failed: KumoError | None = None
        # Without an object, too, a service says whether it would have been permitted.
        for key, versions in list(self.made.items()) or [(self.key, [])]:
            try:
                yield from self._delete(key, versions)
                self.made.pop(key, None)
            except AccessDeniedError as error:
                refused[key] = error
            except KumoError as error:
                failed = error
        if refused:
            self._tell_refused(next(iter(refused.values())))
            return False
        if failed is not None:
            self.findings.add(
                WARNING,
                "delete",
                f"{failed}; there may still be {self._names()}",
                "run this once more: a doctor removes what earlier ones have left",
            )
            return False
        return (yield from self._tell_gone())

    def _names(self) -> str:
        return ", ".join(map(self.store.url, self.made))

    def _delete(self, key: str, versions: list[str]) -> Task[None]:
        context, bucket = self.store.context, self.store.bucket
        kept = []
        for version in versions:
            try:
                yield from delete_task(context, bucket, self.full(key), version)
            except AccessDeniedError:
                kept.append(version)
        if not kept and versions:
            return
        # As a prune would: it is gone from sight.
        yield from delete_task(context, bucket, self.full(key))
        for version in kept:
            try:
                found = yield from head_task(context, bucket, self.full(key), version)
            except (AccessDeniedError, NotFoundError):
                self._stays.append(key)
                continue
            if found.retain_until is not None:
                self._retained.append(found.retain_until)
            else:
                self._stays.append(key)

    def _tell_refused(self, error: AccessDeniedError) -> None:
        left = f"; these scratch objects are left: {self._names()}" if self.made else ""
        self.findings.add(
            WARNING,
            "delete",
            f"not permitted: {error.code}; without it nothing can be pruned{left}",
            "allow s3:DeleteObject to the credentials that prune; those that only make backups can "
            "do without, and look with --read-only. A doctor that may delete removes what is left",
        )

    def _tell_gone(self) -> Task[bool]:
        check = "delete"
        try:
            yield from head_task(self.store.context, self.store.bucket, self.full(self.key))
        except NotFoundError:
            seen = "scratch objects were deleted again"
        except AccessDeniedError:
            seen = "the service has accepted the deletion of scratch objects; to look is refused"
        else:
            raise KumoError("an object is still there after it was deleted")
        if self._stays:
            self.findings.add(
                INFO,
                check,
                "objects can be deleted; their versions cannot, and stay: "
                + ", ".join(dict.fromkeys(self._stays)),
                "allow s3:DeleteObjectVersion, which prune --delete-versions needs, or let a "
                "lifecycle rule expire noncurrent versions",
            )
        elif self._retained:
            self.findings.add(
                INFO,
                check,
                "objects can be deleted; Object Lock retains the versions of these scratch objects "
                f"until {max(self._retained):%F}",
                "they go by the bucket's lifecycle rules, or with prune --delete-versions; look "
                "without writing (--read-only) where that matters",
            )
        else:
            self.findings.ok(check, seen)
            return True
        return False

    def delete_leftovers(self) -> Task[None]:
        """Deletes what earlier doctors were not permitted to; prunes do not look aside."""
        old: list[str] = []
        for prefix in (SCRATCH, QUARANTINE + _NAME):
            page, _ = yield from self.store.list_page(prefix)
            old += (
                item.key
                for item in page
                if item.last_modified is not None and self.now - item.last_modified > _LEFT_AGE
            )
        if old:
            yield from delete_many_task(self.store.context, self.store.bucket, old)
            self.findings.ok(
                "leftovers", f"{len(old)} scratch objects of earlier doctors were deleted"
            )
