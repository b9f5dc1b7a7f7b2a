"""Times in documents."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from kumo_crt.backup._documents import parse_time, time_text

_PARTS = (
    ("2026", "0001", "0000", "9999", "26"),
    ("01", "1", "00", "12", "13"),
    ("01", "7", "00", "29", "30", "31", "32"),
    ("00", "7", "23", "24"),
    ("00", "59", "60", "5"),
    ("00", "59", "60", "61", "62", "5"),
)
_ODD = (
    "",
    "2026-11-23T06:00:00",
    "2026-11-23T06:00:00z",
    "2026-11-23t06:00:00Z",
    "2026-11-23 06:00:00Z",
    "2026-11-23T06:00:00.5Z",
    "2026-11-23T06:00:00+00:00",
    "2026-11-23T06:00:00Z\n",
    " 2026-11-23T06:00:00Z",
    "2026-W48-1T06:00:00Z",
    "2026-11- 3T06:00:00Z",
    "٢٠٢٦-11-23T06:00:00Z",
    "20261123T060000Z",
)


def _by_strptime(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def test_times_are_those_of_strptime() -> None:
    texts = [
        f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"
        for year, month, day, hour, minute, second in itertools.product(*_PARTS)
    ]
    for text in (*texts, *_ODD):
        assert parse_time(text) == _by_strptime(text), text


@pytest.mark.parametrize("value", [None, 0, b"2026-11-23T06:00:00Z", "2026-11-23T06:00:00Z" * 2])
def test_what_is_no_time(value: object) -> None:
    assert parse_time(value) is None


def test_a_time_of_ours_is_read_without_what_strptime_loads() -> None:
    text = time_text(datetime(2026, 11, 23, 6, tzinfo=UTC))
    program = (
        "import sys; from kumo_crt.backup._documents import parse_time; "
        f"print(parse_time({text!r}), '_strptime' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert answer.stdout == "2026-11-23 06:00:00+00:00 False\n"
