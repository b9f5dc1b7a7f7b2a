"""The keep rules, against a model and against cases worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kumo_crt.backup._prune._retention import Candidate, KeepRules, Within, kept

_NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
_FORMATS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}


def _candidates(times: list[datetime], group: str = "") -> list[Candidate]:
    return [Candidate(f"{group}{n:04}", group, time) for n, time in enumerate(sorted(times))]


def _times(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts]


def _kept_times(rules: KeepRules, times: list[datetime]) -> set[datetime]:
    candidates = _candidates(times)
    found = kept(rules, candidates, _NOW)
    return {item.created_at for item in candidates if item.id in found}


def _model(rules: KeepRules, candidates: list[Candidate]) -> set[str]:
    """The same by other means: whole lists instead of counters."""
    by_age = sorted(candidates, key=lambda item: (item.created_at, item.id))
    if not by_age or rules.is_empty:
        return {item.id for item in by_age}
    found = set()
    if rules.last:
        found |= {item.id for item in (by_age if rules.last < 0 else by_age[-rules.last :])}
    for name, form in _FORMATS.items():
        count = getattr(rules, name)
        if not count:
            continue
        newest_of = {item.created_at.strftime(form): item.id for item in by_age}
        chosen = list(newest_of.values())
        found |= set(chosen if count < 0 else chosen[-count:])
        if count < 0 or len(chosen) < count:
            found.add(by_age[0].id)
    if rules.within is not None:
        newest = max(item.created_at for item in by_age)
        found |= {i.id for i in by_age if i.created_at > newest - rules.within.rest}
    return found


_COUNTS = st.none() | st.integers(-1, 6)
_RULES = st.builds(
    KeepRules,
    last=_COUNTS,
    within=st.none() | st.integers(1, 2000).map(lambda h: Within(0, 0, timedelta(hours=h))),
    hourly=_COUNTS,
    daily=_COUNTS,
    weekly=_COUNTS,
    monthly=_COUNTS,
)
# Close together and far apart, with some at the same time; none in the future.
_AGES = st.integers(0, 400) | st.integers(0, 100_000) | st.integers(0, 3_000_000)
_SNAPSHOTS = st.lists(_AGES.map(lambda minutes: _NOW - timedelta(minutes=minutes)), max_size=60)


@given(_RULES, _SNAPSHOTS, _SNAPSHOTS)
def test_rules_against_the_model(
    rules: KeepRules, one: list[datetime], two: list[datetime]
) -> None:
    first, second = _candidates(one, "a"), _candidates(two, "b")
    expected = _model(rules, first) | _model(rules, second)
    assert set(kept(rules, [*second, *first], _NOW)) == expected


@given(_RULES, _SNAPSHOTS)
def test_the_newest_is_always_kept_and_pruning_again_removes_nothing(
    rules: KeepRules, times: list[datetime]
) -> None:
    candidates = _candidates(times)
    once = kept(rules, candidates, _NOW)
    if candidates:
        assert max(candidates, key=lambda item: (item.created_at, item.id)).id in once
    again = kept(rules, [item for item in candidates if item.id in once], _NOW)
    assert set(again) == set(once)


def test_every_reason_is_told() -> None:
    times = _times("2026-11-25 10:00", "2026-11-25 09:50", "2026-11-25 09:00", "2026-11-20 01:00")
    rules = KeepRules(last=1, hourly=2, daily=7, within=Within.parse("15h"))
    found = kept(rules, _candidates(times), _NOW)
    assert found == {
        "0003": ("within", "last", "hourly", "daily"),
        "0002": ("within", "hourly"),
        "0001": ("within",),
        "0000": ("daily",),
    }


def test_the_oldest_is_kept_while_a_rule_has_some_left() -> None:
    times = _times("2026-11-25 10:00", "2026-11-25 08:00", "2026-11-25 06:00")
    assert _kept_times(KeepRules(daily=1), times) == {times[0]}
    assert _kept_times(KeepRules(daily=2), times) == {times[0], times[2]}
    found = kept(KeepRules(daily=2), _candidates(times), _NOW)
    assert found["0000"] == ("oldest daily",)


def test_weeks_are_those_of_iso_8601() -> None:
    # 2027-01-01 is a Friday of week 53 of 2026.
    times = _times("2026-12-27 12:00", "2026-12-28 12:00", "2027-01-01 12:00", "2027-01-04 12:00")
    assert _kept_times(KeepRules(weekly=3), times) == {times[0], times[2], times[3]}


def test_days_are_those_of_utc() -> None:
    east = [datetime.fromisoformat(f"2026-11-25T{h}:30:00+02:00") for h in ("01", "03")]
    assert len(_kept_times(KeepRules(daily=3), east)) == 2
    assert len(_kept_times(KeepRules(daily=3), _times("2026-11-25 01:30", "2026-11-25 23:30"))) == 2
    assert len(_kept_times(KeepRules(daily=1), east)) == 1


@pytest.mark.parametrize(
    ("within", "start"),
    [
        ("1h", "2026-03-31 11:00"),
        ("7d12h", "2026-03-24 00:00"),
        ("1m", "2026-03-03 12:00"),  # "February 31st"
        ("1m3d", "2026-02-28 12:00"),
        ("2y", "2024-03-31 12:00"),
        ("2y1m", "2024-03-02 12:00"),
        ("13m", "2025-03-03 12:00"),
        ("2h1d", "2026-03-30 10:00"),
        (timedelta(minutes=90), "2026-03-31 10:30"),
    ],
)
def test_within_counts_back_from_the_newest(within: str | timedelta, start: str) -> None:
    newest, limit = _times("2026-03-31 12:00", start)
    second = timedelta(seconds=1)
    times = [newest, limit + second, limit, limit - second]
    assert _kept_times(KeepRules(within=Within.parse(within)), times) == {newest, limit + second}


def test_within_does_not_count_from_the_future() -> None:
    times = [_NOW + timedelta(days=300), _NOW - timedelta(hours=1), _NOW - timedelta(days=2)]
    assert _kept_times(KeepRules(within=Within.parse("1d")), times) == set(times[:2])
    assert _kept_times(KeepRules(within=Within.parse("1d")), times[:1]) == set(times[:1])


def test_the_newest_is_the_last_that_was_made() -> None:
    """The service's clock was a year ahead, and is not any more."""
    ahead = Candidate("20271125T120000Z-00011111", "", _NOW + timedelta(days=365))
    # As `new_snapshot_id` makes it: after the newest one that there is.
    after = Candidate("20271125T120000Z-00122222", "", _NOW)
    assert set(kept(KeepRules(last=1), [ahead, after], _NOW)) == {after.id}
    assert set(kept(KeepRules(daily=1), [ahead, after], _NOW)) == {after.id}


def test_within_all_of_history() -> None:
    times = _times("0001-01-02 00:00", "2026-01-01 00:00")
    assert _kept_times(KeepRules(within=Within.parse("999999y")), times) == set(times)


@pytest.mark.parametrize(
    "wrong",
    ["", "7", "d", "7w", "7 days", "-1d", "1d2d", "1d 2h", "0d", timedelta(0), timedelta(-1), 5],
)
def test_spans_that_are_none(wrong: str | timedelta) -> None:
    with pytest.raises(ValueError, match="keep_within"):
        Within.parse(wrong)


@pytest.mark.parametrize("name", ["last", *_FORMATS])
@pytest.mark.parametrize("wrong", [-2, 1.5, "3"])
def test_counts_that_are_none(name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=f"keep_{name}"):
        KeepRules(**{name: wrong})  # type: ignore[arg-type]


def test_no_rule_keeps_everything() -> None:
    candidates = _candidates(_times("2026-01-01 00:00", "2026-01-01 00:01"))
    for rules in (KeepRules(), KeepRules(last=0, daily=0)):
        assert rules.is_empty
        assert set(kept(rules, candidates, _NOW)) == {"0000", "0001"}
