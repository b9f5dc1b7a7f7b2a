"""Counts what the battery did, over all processes that pytest runs, and judges its size."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import seeds

KILLS = 250
_WORKS = ("backup", "backup_open", "restore", "prune", "delete_snapshot", "pin", "unpin")


def _too_small() -> str | None:
    """What is missing of a battery of which every part ran; None if nothing is."""
    counts = [seeds.done[f"kills of {work}"] for work in _WORKS]
    wanted = round(min(1.0, seeds.scale()) * KILLS)
    if not all(counts) or not seeds.is_whole() or sum(counts) >= wanted:
        return None
    return f"{sum(counts)} kills, where the battery promises {wanted}"


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
        elif _too_small() is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tells what the battery did."""
        if not seeds.done:
            return
        terminalreporter.section(f"faults, seed {seeds.seed()}, scale {seeds.scale():g}")
        for name, count in sorted(seeds.done.items()):
            terminalreporter.line(f"{count:6} {name}")
        missing = _too_small()
        if missing is not None:
            terminalreporter.line(missing, red=True)
