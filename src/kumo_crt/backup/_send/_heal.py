"""What a backup does about damage that is known of objects which it needs.

It puts them right, as `repair` does; where that is not possible, it relies on others.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._format._results import Snapshot, SnapshotFile
from kumo_crt.backup._repair import _replacing
from kumo_crt.backup._repair._replacing import Means, Step
from kumo_crt.backup._repair._sources import Sources
from kumo_crt.backup._send._plan import BackupPlan
from kumo_crt.backup._store._objects import DataObject, objects_of
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import FormatError, KumoError, NotFoundError

_READERS = 8
_log = logging.getLogger("kumo_crt.backup")


def heal_task(plan: BackupPlan, suspects: Collection[str]) -> Task[None]:
    """Looks at objects that notices name; fills in ``sound`` and ``shunned`` of the plan.

    To be called once the backup's pin names them, and no sweep does: no prune deletes them then.
    """
    items = yield from _objects(plan.store, frozenset(suspects))
    means = Means(
        store=plan.store,
        sources=Sources(plan.capture.files, plan.store.key),
        now=plan.created_at,
        throttle=plan.throttle,
        meter=Meter(None, 0),
    )
    wanted = list(items.values())
    steps: list[Step | KumoError | None] = yield Gather(
        (_try(means, item) for item in wanted), plan.concurrency
    )
    good: dict[str, datetime] = {}
    for item, step in zip(wanted, steps, strict=True):
        where = plan.store.url(item.key)
        if step is None:
            _log.info("%s: was reported as damaged, and is as it should be", where)
            good[item.key] = plan.created_at
        elif isinstance(step, Step) and step.repaired is not None:
            good[item.key] = step.at or plan.created_at
            plan.sent_again.add(item.key)
            aside = step.repaired.quarantine
            kept = f", what was there is in {plan.store.url(aside)}" if aside else ""
            _warn(plan, f"{where}: was damaged ({step.damage.kind}), and was sent again{kept}")
        else:
            reason = step if isinstance(step, KumoError) else step.damage.message
            _shun(plan, item.key, f"cannot be replaced from this database: {reason}")
    for key in set(suspects).difference(items):
        # Nobody knows what it should be.
        _shun(plan, key, "no manifest that can be read names it")
    plan.sound |= good.keys()
    try:
        yield from _replacing.remember_task(plan.store, good, plan.notices, plan.tool)
    except KumoError as error:
        _log.warning("that damage was put right could not be written down: %s", error)


def _warn(plan: BackupPlan, text: str) -> None:
    _log.warning("%s", text)
    plan.warnings.append(text)


def _shun(plan: BackupPlan, key: str, why: str) -> None:
    plan.shunned.add(key)
    _warn(
        plan,
        f"{plan.store.url(key)}: is known to be damaged, and {why}. This backup stores what it "
        "needs of it under another name; older snapshots go on needing it (repair)",
    )


def _try(means: Means, item: DataObject) -> Task[Step | KumoError | None]:
    try:
        return (yield from _replacing.repair_task(means, item))
    except KumoError as error:
        return error  # the backup can do without the object


def _objects(store: Store, suspects: Collection[str]) -> Task[dict[str, DataObject]]:
    """What all manifests say of these objects, where they agree."""
    ids = yield from store.snapshot_ids()
    found: list[list[SnapshotFile]] = yield Gather(
        (_files(store, snapshot_id, suspects) for snapshot_id in ids), _READERS
    )
    items: dict[str, DataObject] = {}
    doubtful = set()
    for item in objects_of(file for files in found for file in files):
        if items.setdefault(item.key, item) is not item:
            doubtful.add(item.key)
    return {key: item for key, item in items.items() if key not in doubtful}


def _files(store: Store, snapshot_id: str, suspects: Collection[str]) -> Task[list[SnapshotFile]]:
    """Files of a snapshot that are in some objects; the rest of a manifest is not kept."""
    try:
        snapshot: Snapshot = yield from store.snapshot(snapshot_id)
    except (FormatError, NotFoundError):
        return []
    return [file for file in snapshot.files if file.key in suspects]
