"""How much the battery has to do at least: of each kind, and in total."""

from __future__ import annotations

import math
from collections.abc import Mapping

KILLS = "kills of "
# Each object was damaged in so many ways.
EVERY_WAY = "ways of damage, each object in each of them"
DAMAGED = "damaged objects, found by verify"
MANIFESTS = "damaged manifests, found by verify and by restore"
MANIFEST_ENDS = "bits at the end of manifests, found by verify and by restore"
LOST = "lost manifests, found by verify and by restore"
FROM_SPARES = "damaged and lost manifests, restored exactly from their spares"
PUT_BACK = "damaged and lost manifests, put back by repair"
HOSTILE = "hostile documents refused"

# Of each kind some 60 % of what a run of scale 1 does. Most come out the same every time, as they
# are planned, or the tests demand so many. Of requests refused in storms it is less, as they are
# chance.
FLOORS: dict[str, int] = {
    KILLS + "backup": 78,
    KILLS + "backup_open": 4,
    KILLS + "delete_snapshot": 7,
    KILLS + "pin": 2,
    KILLS + "prune": 21,
    KILLS + "restore": 113,
    KILLS + "unpin": 2,
    DAMAGED: 430,
    EVERY_WAY: 11,
    MANIFESTS: 184,
    MANIFEST_ENDS: 384,
    LOST: 21,
    FROM_SPARES: 72,
    PUT_BACK: 123,
    "snapshots restored beside a damaged manifest": 5,
    "restores refused": 140,
    "restores beside damage": 16,
    "damaged objects, put right by the next backup": 220,
    "bits changed on a server's disk, put right by the next backup": 1,
    HOSTILE: 600,
    "hostile documents in a repository, refused": 16,
    "vast hostile documents refused": 10,
    "files that grew too large during a capture": 2,
    "files that grew too large during a download": 1,
    "files that grew too large during a drill": 2,
    "files that grew too large during a restore": 14,
    "files that grew too large during an export": 4,
    "files that grew too large during an import": 5,
    "credentials renewed in the middle": 3,
    "work that credentials ended": 3,
    "parts sent before that, and not again": 8,
    "requests refused in a storm of 5 %": 6,
    "requests refused in a storm of 10 %": 5,
    "requests refused in a storm of 20 %": 10,
    "requests refused in a storm of 50 %": 40,
    "requests sent in a storm of 5 %": 170,
    "requests sent in a storm of 10 %": 60,
    "requests sent in a storm of 20 %": 80,
    "requests sent in a storm of 50 %": 100,
    "servers away for 15 s during a backup": 2,
    "servers away for 15 s during a restore": 1,
    "servers killed during a backup, which ended": 2,
    "servers killed during a backup, which went on": 2,
    "servers killed during a restore, which ended": 2,
    "servers killed during a restore, which went on": 2,
    "servers killed during a verification or a prune": 3,
    "servers killed during an export or an import, which went on": 2,
}
# These need a small file system, which not every system lets anybody have.
DISK_FLOORS: dict[str, int] = {
    "full disks during a capture": 5,
    "full disks during a download": 1,
    "full disks during a drill": 2,
    "full disks during a restore": 11,
    "full disks during an export": 4,
    "full disks during an import": 5,
    "full disks, seen before": 3,
}
MODEL_FLOORS: dict[str, int] = {"examples of the model": 10}
# What happens or does not: told, and not judged.
BY_CHANCE = {"objects that the killed server had and did not list"}

# What the battery promises in total, and of which kinds.
TOTALS: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (250, "kills", tuple(kind for kind in FLOORS if kind.startswith(KILLS))),
    (500, "damaged objects", (DAMAGED, MANIFESTS)),
    (150, "hostile documents", (HOSTILE,)),
)


def lacking(counts: Mapping[str, int], scale: float, *, small_disks: bool) -> list[str]:
    """What a run of all of `tests/faults` did not do, and would have had to.

    Args:
        counts: What it did, by kind.
        scale: How many times as much as CI does it was to do; more than 1 is judged as 1.
        small_disks: Whether the system lets anybody have a small file system.
    """
    share = min(1.0, scale)
    found = _below(counts, FLOORS, share)
    if small_disks:
        found += _below(counts, DISK_FLOORS, share)
    for promised, what, kinds in TOTALS:
        count, wanted = sum(counts.get(kind, 0) for kind in kinds), math.floor(promised * share)
        if count < wanted:
            found.append(f"{count} {what}, where the battery promises {wanted}")
    known = FLOORS.keys() | DISK_FLOORS.keys() | MODEL_FLOORS.keys() | BY_CHANCE
    found += [f"no floor for {kind!r}" for kind in sorted(counts.keys() - known)]
    return found


def lacking_of_model(counts: Mapping[str, int], scale: float) -> list[str]:
    """What a run of all of `tests/model` did not do, and would have had to."""
    return _below(counts, MODEL_FLOORS, min(1.0, scale))


def _below(counts: Mapping[str, int], floors: Mapping[str, int], share: float) -> list[str]:
    """Each kind that was done less often than it has to be."""
    return [
        f"{counts.get(kind, 0)} {kind}, where at least {wanted} are to be"
        for kind, floor in sorted(floors.items())
        if counts.get(kind, 0) < (wanted := math.floor(floor * share))
    ]
