"""Which snapshots the keep rules keep: restic's meaning, see docs/format.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ALL = -1
_WITHIN = re.compile(r"(?:\d{1,6}[ymdh])+")


@dataclass(frozen=True, slots=True)
class Within:
    """A time span of the calendar."""

    years: int
    months: int
    rest: timedelta

    @classmethod
    def parse(cls, value: str | timedelta) -> Within:
        """Reads ``"1y6m"``, ``"7d12h"`` (years, months, days, hours), or takes a timedelta.

        As in restic, the units may come in any order.

        Raises:
            ValueError: It is something else, or no time at all.
        """
        if isinstance(value, timedelta):
            parsed = cls(0, 0, value)
        else:
            text = value.strip() if isinstance(value, str) else ""
            parts = re.findall(r"(\d+)(.)", text) if _WITHIN.fullmatch(text) else []
            units = {unit: int(number) for number, unit in parts}
            if not parts or len(units) < len(parts):
                raise ValueError(
                    f"keep_within (--keep-within) {value!r}: expected years, months, "
                    "days, hours, such as '1y6m' or '7d12h'"
                )
            rest = timedelta(days=units.get("d", 0), hours=units.get("h", 0))
            parsed = cls(units.get("y", 0), units.get("m", 0), rest)
        if not (parsed.years or parsed.months or parsed.rest > timedelta(0)):
            raise ValueError(f"keep_within (--keep-within) {value!r}: it must be more than no time")
        return parsed

    def before(self, moment: datetime) -> datetime:
        """That long before a moment. As in restic, "February 31st" is a day in March."""
        months = moment.year * 12 + moment.month - 1 - 12 * self.years - self.months
        try:
            start = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
            return start + timedelta(days=moment.day - 1) - self.rest
        except (ValueError, OverflowError):
            return datetime.min.replace(tzinfo=moment.tzinfo)


def _hour(moment: datetime) -> tuple[int, ...]:
    return (moment.year, moment.month, moment.day, moment.hour)


def _week(moment: datetime) -> tuple[int, ...]:
    return moment.isocalendar()[:2]


_BUCKETS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": _hour,
    "daily": lambda moment: _hour(moment)[:3],
    "weekly": _week,
    "monthly": lambda moment: _hour(moment)[:2],
}


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How many snapshots each rule keeps; None and 0: no such rule; -1: all."""

    last: int | None = None
    within: Within | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None

    def __post_init__(self) -> None:
        for name in ("last", *_BUCKETS):
            count = getattr(self, name)
            if count is not None and (not isinstance(count, int) or count < ALL):
                raise ValueError(f"keep_{name} is {count!r}: expected a number, or -1 for all")

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule: everything is kept."""
        return self.within is None and not any(getattr(self, n) for n in ("last", *_BUCKETS))


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rules look at."""

    id: str
    group: str
    created_at: datetime


def kept(
    rules: KeepRules, snapshots: Iterable[Candidate], now: datetime
) -> dict[str, tuple[str, ...]]:
    """Ids of the snapshots that are kept, with the names of the rules that keep them."""
    groups: dict[str, list[Candidate]] = {}
    for snapshot in snapshots:
        groups.setdefault(snapshot.group, []).append(snapshot)
    found: dict[str, tuple[str, ...]] = {}
    for members in groups.values():
        # Ids ascend whatever happens to the clock, and "latest" goes by them, too.
        members.sort(key=lambda item: item.id, reverse=True)
        found.update(_kept_of_group(rules, members, now))
    return found


def _kept_of_group(
    rules: KeepRules, newest_first: Sequence[Candidate], now: datetime
) -> dict[str, tuple[str, ...]]:
    if rules.is_empty:
        return {item.id: ("no rule",) for item in newest_first}
    start: datetime | None = None
    if rules.within is not None:
        past = [item.created_at for item in newest_first if item.created_at <= now]
        start = rules.within.before(max(past, default=datetime.min.replace(tzinfo=UTC)))
    left = {name: getattr(rules, name) or 0 for name in ("last", *_BUCKETS)}
    previous: dict[str, tuple[int, ...]] = {}
    found = {}
    for index, item in enumerate(newest_first):
        is_oldest = index == len(newest_first) - 1
        moment = item.created_at.astimezone(UTC)
        reasons = ["within"] if start is not None and moment > start else []
        for name in left:
            if left[name] == 0:
                continue
            bucket = (index,) if name == "last" else _BUCKETS[name](moment)
            is_new = bucket != previous.get(name)
            if is_new or is_oldest:
                reasons.append(name if is_new else f"oldest {name}")
                previous[name] = bucket
                if left[name] > 0:
                    left[name] -= 1
        if reasons:
            found[item.id] = tuple(reasons)
    return found
