"""How the benchmarks judge: the gate's comparison, the targets, the report."""

from __future__ import annotations

from typing import Any

import pytest

import gate
from suite import report
from suite.cases import CASES, KUMO


@pytest.mark.parametrize(
    ("found", "good", "said"),
    [
        ({"import": 1029, "crc32c-large": 1009}, True, "+2.90%"),
        ({"import": 1031, "crc32c-large": 1000}, False, "FAIL"),
        ({"import": 1000, "crc32c-large": 1011}, False, "FAIL"),
        ({"import": 900, "crc32c-large": 1000}, True, "better: record it"),
        ({"import": 1000}, False, "not measured"),
        ({"import": 1000, "crc32c-large": 1000, "new": 5}, False, "record it with --update"),
    ],
)
def test_the_gate(
    capsys: pytest.CaptureFixture[str], found: dict[str, int], good: bool, said: str
) -> None:
    assert gate.compare(found, {"import": 1000, "crc32c-large": 1000}) is good
    assert said in capsys.readouterr().out


def _results(samples: list[tuple[int, str, str, dict[str, float]]]) -> dict[str, Any]:
    cases: dict[str, list[str]] = {}
    for _, case, client, _ in samples:
        if client not in cases.setdefault(case, []):
            cases[case].append(client)
    return {
        "size": 1 << 30,
        "rounds": 3,
        "machine": {"cpu": "one", "cpus": 2, "kernel": "6", "python": "3"},
        "versions": {KUMO: "1", "awscrt": "2"},
        "not_installed": {"minio==1": "no such version"},
        "cases": cases,
        "failed": {"upload-memory": {"boto3": "status 1: it broke"}},
        "unsupported": {},
        "checks": {},
        "samples": [
            {"round": turn, "case": case, "client": client, **figures}
            for turn, case, client, figures in samples
        ],
    }


def _cpu(*values: float) -> list[tuple[int, dict[str, float]]]:
    return [
        (turn, {"cpu_seconds": value, "peak_rss_growth_mib": 65.0})
        for turn, value in enumerate(values)
    ]


def test_ratios_are_of_the_same_round() -> None:
    # The machine is twice as slow in the second round, and the client fails in the third.
    samples = [(t, "upload-memory", KUMO, f) for t, f in _cpu(0.3, 0.6, 9.0)]
    samples += [(t, "upload-memory", "awscrt", f) for t, f in _cpu(1.0, 2.0)]
    results = _results(samples)
    found = report.ratio(results, "upload-memory", "cpu_seconds", KUMO, "awscrt")
    assert found == {"median": 0.3, "min": 0.3, "max": 0.3}
    results["summary"], results["targets"] = report.summarize(results), report.judge(results)
    judged = {(t["level"], t["metric"], t["against"]): t["passed"] for t in results["targets"]}
    assert judged == {
        ("must", "cpu_seconds", "awscrt"): True,
        ("must", "cpu_seconds", "bound:upload-memory-crc"): None,
        ("must", "peak_rss_growth_mib", ""): False,
        ("aim", "cpu_seconds", "bound:upload-memory-crc"): None,
    }
    text = report.markdown(results)
    assert "| upload-memory | must | CPU s ≤ 0.4 x awscrt | 0.30 (0.30-0.30) | pass |" in text
    assert "| 65 (65-65) | **FAIL** |" in text
    assert "| boto3 | failed: status 1: it broke |" in text
    assert "Not installed: minio==1: no such version" in text


def test_more_is_better_where_it_is_a_rate() -> None:
    samples = [
        (0, "crc32c-large", KUMO, {"gib_per_second": 12.0}),
        (0, "crc32c-large", "crc32c", {"gib_per_second": 10.0}),
        (0, "crc32c-large", "fastcrc", {"gib_per_second": 5.0}),
    ]
    judged = report.judge(_results(samples))
    assert [(t["level"], t["against"], t["passed"]) for t in judged] == [
        ("must", "crc32c", True),
        ("aim", "crc32c", False),
    ]


def test_targets_name_what_is_measured() -> None:
    for case in CASES:
        known = {*case.clients, *(f"bound:{name}" for name in case.bounds), "fastest", ""}
        assert {target.against for target in case.targets} <= known
