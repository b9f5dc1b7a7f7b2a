"""What a backup is to do, and what it has found out and done so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Throttle
from kumo_crt.backup._capture import Capture
from kumo_crt.backup._coordination._commit import Reused
from kumo_crt.backup._coordination._notices import Notices
from kumo_crt.backup._format._configuration import Config
from kumo_crt.backup._packing._packing import Limits, Packing
from kumo_crt.backup._store._kept import Kept
from kumo_crt.backup._store._known import Known
from kumo_crt.backup._store._store import Store


@dataclass(slots=True, eq=False, repr=False)
class BackupPlan:
    """What a backup is to do, and what it has done so far."""

    store: Store
    capture: Capture
    config: Config
    created_at: datetime
    tags: Mapping[str, str]
    tool: str
    concurrency: int
    limits: Limits
    progress: Callable[[int, int], object] | None = None
    throttle: Throttle | None = None
    dry_run: bool = False
    single_object: bool = False
    uploaded: int = 0
    resumed: int = 0
    reused: int = 0
    # Names of the files' data objects, by path; entries of the tables, where they say so.
    names: dict[str, str] = field(default_factory=dict)
    entries: list[int | None] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    packing: Packing = field(default_factory=Packing)
    # What a prune is deleting: its names are not used.
    condemned: frozenset[str] = frozenset()
    sweeps: frozenset[str] = frozenset()
    relied_on: list[Reused] = field(default_factory=list)
    # Known damage: what was said of it, what was found good or made so, and what stays damaged.
    notices: Notices = field(default_factory=Notices)
    sound: set[str] = field(default_factory=set)
    shunned: set[str] = field(default_factory=set)
    sent_again: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    # Id that the snapshot is to have.
    snapshot_id: str = ""
    # When it was last looked at what others do, by this machine's clock.
    looked_at: float | None = None
    # Manifests that may have been written: ids and documents.
    tried: list[tuple[str, bytes]] = field(default_factory=list)
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.store)
