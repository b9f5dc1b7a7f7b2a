"""What `Repository.prune` tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did; with ``dry_run``, what it would have done.

    Attributes:
        dry_run: Nothing was written.
        kept: Why each snapshot that is there was kept: names of the rules (with ``oldest`` before
            that of one that asks for more than there are), ``pinned``, ``locked`` (its manifest is
            under retention), or ``no rule``. By id, oldest first.
        removed: Ids of the snapshots that were removed, oldest first.
        deleted_objects: Data objects that were deleted.
        deleted_bytes: Their size.
        pending_objects: Data objects that no snapshot names, and that a later prune deletes.
        pending_bytes: Their size.
        pending_until: When all of them can be deleted, by the service's clock; None if there are
            none.
        protected_objects: Data objects that no snapshot names, and that running backups need.
        protected_bytes: Their size.
        wasted_bytes: Bytes in bundles that no snapshot names, while others of the same bundles are
            named: they go with them.
        aborted_uploads: Unfinished multipart uploads that were aborted.
        versioned: Whether the bucket keeps versions of what was deleted; None: it does not say.
        deleted_versions: Versions that were deleted for good, delete markers not counted. A dry run
            does not know which of them Object Lock retains.
        deleted_version_bytes: Their size.
        locked: Objects or versions that Object Lock did not let go.
        warnings: What could not be done, and what to do about it.
        seconds: Duration.
    """

    dry_run: bool
    kept: Mapping[str, tuple[str, ...]]
    removed: tuple[str, ...]
    deleted_objects: int = 0
    deleted_bytes: int = 0
    pending_objects: int = 0
    pending_bytes: int = 0
    pending_until: datetime | None = None
    protected_objects: int = 0
    protected_bytes: int = 0
    wasted_bytes: int = 0
    aborted_uploads: int = 0
    versioned: bool | None = None
    deleted_versions: int = 0
    deleted_version_bytes: int = 0
    locked: int = 0
    warnings: tuple[str, ...] = field(default=())
    seconds: float = 0.0
