"""Draws the results: plot.py RESULTS.json PICTURE…; runs in the peers' environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from suite.cases import BOUND, CASES, KUMO, METRICS
from suite.report import size_text

_OURS, _PEER, _BOUND_COLOUR = "#d9480f", "#868e96", "#ced4da"
_COLUMNS = 3


def draw(results: dict[str, Any]) -> Any:
    """Returns a figure with one panel a case."""
    cases = [case for case in CASES if results["summary"].get(case.name)]
    rows = -(-len(cases) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(16, 3.4 * rows), squeeze=False)
    for axis in axes.flat[len(cases) :]:
        axis.set_visible(False)
    for case, axis in zip(cases, axes.flat, strict=False):
        metric = METRICS[case.metric]
        summary = {
            client: row[case.metric]
            for client, row in results["summary"][case.name].items()
            if case.metric in row
        }
        order = sorted(
            summary, key=lambda name: summary[name]["median"], reverse=not metric.higher_is_better
        )
        medians = [summary[name]["median"] for name in order]
        errors = [
            [summary[name]["median"] - summary[name]["min"] for name in order],
            [summary[name]["max"] - summary[name]["median"] for name in order],
        ]
        axis.barh(
            [name.replace(BOUND, "bound: ") for name in order],
            medians,
            xerr=errors,
            color=[_colour(name) for name in order],
            error_kw={"elinewidth": 0.8, "ecolor": "#343a40"},
        )
        axis.set_title(case.title.format(size=size_text(results["size"])), fontsize=10)
        better = "more" if metric.higher_is_better else "less"
        per = " per GiB" if case.per_gib else ""
        axis.set_xlabel(f"{metric.title}{per} ({better} is better)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_xlim(left=0)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    return figure


def _colour(name: str) -> str:
    if name.startswith(BOUND):
        return _BOUND_COLOUR
    return _OURS if name.startswith(KUMO) else _PEER


def main() -> None:
    saved, *pictures = sys.argv[1:]
    figure = draw(json.loads(Path(saved).read_text(encoding="utf-8")))
    for picture in pictures:
        figure.savefig(picture, dpi=110, metadata={"Date": None} if picture[-3:] == "svg" else None)


if __name__ == "__main__":
    main()
