"""Counts what the battery did, over all processes that pytest runs, and judges its size."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import seeds

# Each object was damaged in so many ways.
EVERY_WAY = "ways of damage, each object in each of them"

_KILLS = tuple(
    f"kills of {work}"
    for work in ("backup", "backup_open", "restore", "prune", "delete_snapshot", "pin", "unpin")
)
_DAMAGE = "damaged objects, found by verify"
# What the battery promises, of what kinds, and what shows that every part of that ran.
_PROMISES: tuple[tuple[int, str, tuple[str, ...], tuple[str, ...]], ...] = (
    (250, "kills", _KILLS, _KILLS),
    (500, "damaged objects", (_DAMAGE,), ("restores refused", EVERY_WAY)),
)


def _too_small() -> list[str]:
    """What is missing of a battery of which every part ran."""
    missing = []
    for promised, what, kinds, parts in _PROMISES:
        count = sum(seeds.done[kind] for kind in kinds)
        wanted = round(min(1.0, seeds.scale()) * promised)
        if seeds.is_whole() and all(seeds.done[part] for part in parts) and count < wanted:
            missing.append(f"{count} {what}, where the battery promises {wanted}")
    return missing


class Totals:
    """A plugin, registered by tests/conftest.py, as only that is loaded in every process."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes over what a process of pytest-xdist counted."""
        seeds.done.update(getattr(node, "workeroutput", {}).get("faults", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hands the counts to the main process; there, fails a run whose battery is too small."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["faults"] = dict(seeds.done)
        elif _too_small():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tells what the battery did."""
        if not seeds.done:
            return
        terminalreporter.section(f"faults, seed {seeds.seed()}, scale {seeds.scale():g}")
        for name, count in sorted(seeds.done.items()):
            terminalreporter.line(f"{count:6} {name}")
        for missing in _too_small():
            terminalreporter.line(missing, red=True)
