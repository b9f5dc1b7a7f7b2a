"""Which snapshots restic would keep: its `ApplyPolicy`, told once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

# What restic calls a bucket: snapshots of one hour, day, ISO week, month.
_BUCKETS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m"}


def kept(times: Sequence[datetime], rules: Mapping[str, int]) -> set[int]:
    """Indexes of the snapshots that stay.

    Args:
        times: When they were made, in the order of their ids, newest first; all of one database,
            none in the future.
        rules: ``last``, ``hourly``, ``daily``, ``weekly``, ``monthly``: how many; ``within``:
            hours. -1 is all, 0 none.
    """
    if not any(rules.values()):
        return set(range(len(times)))
    found: set[int] = set()
    for name, wanted in rules.items():
        if name == "within":
            limit = max(times) - timedelta(hours=wanted) if times and wanted else None
            found |= {n for n, time in enumerate(times) if limit is not None and time > limit}
            continue
        # restic keeps a snapshot whose bucket is not that of the one kept before, and the oldest
        # while the rule has some left.
        chosen: list[tuple[int, str]] = []
        for number, time in enumerate(times):
            bucket = str(number) if name == "last" else time.strftime(_BUCKETS[name])
            has_left = wanted == -1 or len(chosen) < wanted
            is_new = not chosen or chosen[-1][1] != bucket
            if has_left and (is_new or number == len(times) - 1):
                chosen.append((number, bucket))
        found |= {number for number, _ in chosen}
    return found
