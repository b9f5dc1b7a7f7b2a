"""Counts what the battery did, over all processes that pytest runs, and judges its size."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults import floors, seeds
from tests.faults.mortals import can_mount

_FAULTS = Path(__file__).resolve().parent
_MODEL = _FAULTS.with_name("model")


class Totals:
    """A plugin, registered by tests/conftest.py, as only that is loaded in every process."""

    def __init__(self) -> None:
        # Files of which tests were collected and left out.
        self._left_out: set[str] = set()
        self._lacking: list[str] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notes what -k, -m, --deselect and their like leave out; in each process that collects."""
        self._left_out.update(str(item.path) for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes over what a process of pytest-xdist counted."""
        output = getattr(node, "workeroutput", {})
        seeds.done.update(output.get("faults", {}))
        self._left_out.update(output.get("faults_left_out", []))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hands the counts to the main process; there, fails a run whose battery is too small."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["faults"] = dict(seeds.done)
            output["faults_left_out"] = sorted(self._left_out)
            return
        ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if ended and not session.shouldfail and not session.shouldstop:
            self._lacking = self._judged(session.config)
        if self._lacking:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tells what the battery did."""
        if not seeds.done and not self._lacking:
            return
        terminalreporter.section(f"faults, seed {seeds.seed()}, scale {seeds.scale():g}")
        for name, count in sorted(seeds.done.items()):
            terminalreporter.line(f"{count:6} {name}")
        for missing in self._lacking:
            terminalreporter.line(missing, red=True)

    def _judged(self, config: pytest.Config) -> list[str]:
        """What is missing of what ran as a whole."""
        found = []
        if self._is_whole(config, _FAULTS):
            with tempfile.TemporaryDirectory() as directory:
                disks = can_mount(Path(directory))
            found += floors.lacking(seeds.done, seeds.scale(), small_disks=disks)
        if self._is_whole(config, _MODEL):
            found += floors.lacking_of_model(seeds.done, seeds.scale())
        return found

    def _is_whole(self, config: pytest.Config, directory: Path) -> bool:
        """Whether all tests of a directory were to run; not whether there are any, or they did."""
        option = config.option
        narrowed = (option.collectonly, option.ignore, option.ignore_glob)
        if any(narrowed) or config.getoption("lf", False) or not seeds.is_whole():
            return False
        if any(directory in Path(path).resolve().parents for path in self._left_out):
            return False
        here = config.invocation_params.dir
        asked = [(here / arg).resolve() for arg in config.args if "::" not in arg]
        return any(path == directory or path in directory.parents for path in asked)
