"""The battery's size: a kind that is not there, or too rarely, fails a run of all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import floors
from tests.faults.floors import DISK_FLOORS, FLOORS, KILLS, MODEL_FLOORS, TOTALS
from tests.support.processes import environment

_ROOT = Path(__file__).resolve().parents[2]
_PLENTY = Counter(dict.fromkeys(FLOORS | DISK_FLOORS, 1000))
_PRUNES = KILLS + "prune"


def _lacking(counts: Counter[str], scale: float = 1.0, *, disks: bool = True) -> list[str]:
    return floors.lacking(counts, scale, small_disks=disks)


def test_every_floor_is_reached_by_itself() -> None:
    assert _lacking(_PLENTY) == []
    assert all(floor >= 1 for floor in (FLOORS | DISK_FLOORS | MODEL_FLOORS).values())


@pytest.mark.parametrize("kind", sorted(FLOORS | DISK_FLOORS))
def test_a_kind_that_lacks_or_is_too_rare(kind: str) -> None:
    floor = (FLOORS | DISK_FLOORS)[kind]
    for count in {0, floor - 1}:
        counts = Counter({**_PLENTY, kind: count})
        (told,) = (line for line in _lacking(counts) if kind in line)
        assert told == f"{count} {kind}, where at least {floor} are to be"
    assert not [line for line in _lacking(Counter({**_PLENTY, kind: floor})) if kind in line]


def test_a_run_that_did_nothing_lacks_everything() -> None:
    assert len(_lacking(Counter())) == len(FLOORS) + len(DISK_FLOORS) + len(TOTALS)
    assert floors.lacking_of_model(Counter(), 1.0) == [
        "0 examples of the model, where at least 10 are to be"
    ]


def test_totals() -> None:
    """What the battery promises is more than the kinds one by one have to do."""
    counts = Counter({**_PLENTY, **{kind: FLOORS[kind] for kind in FLOORS if KILLS in kind}})
    assert _lacking(counts) == ["227 kills, where the battery promises 250"]


def test_small_file_systems_count_where_there_can_be_any() -> None:
    without = Counter(dict.fromkeys(FLOORS, 1000))
    assert _lacking(without, disks=False) == []
    assert len(_lacking(without)) == len(DISK_FLOORS)


def test_scale() -> None:
    """A glance has to do its part, a soak no less than CI."""
    counts = Counter({**_PLENTY, _PRUNES: 10})
    assert _lacking(counts, 0.5) == []
    assert len(_lacking(counts, 0.6)) == len(_lacking(counts, 20.0)) == 1


def test_a_kind_without_a_floor() -> None:
    assert _lacking(Counter({**_PLENTY, "new faults": 3})) == ["no floor for 'new faults'"]
    assert _lacking(Counter({**_PLENTY, **dict.fromkeys(floors.BY_CHANCE, 1)})) == []


# -- runs of pytest ---------------------------------------------------------------------------

_CONFTEST = """
import pathlib
from tests.faults import floors, totals

floors.FLOORS.clear()
floors.FLOORS.update({"kills": 3, "storms": 1})
floors.DISK_FLOORS.clear()
floors.TOTALS = ()
totals._FAULTS = pathlib.Path(__file__).resolve().parent / "some" / "faults"

def pytest_configure(config):
    config.pluginmanager.register(totals.Totals())
"""
_KILLS = """
import pytest
from tests.faults.seeds import done

@pytest.mark.parametrize("number", range(3))
def test_kill(number):
    done["kills"] += 1
"""
_STORMS = """
from tests.faults.seeds import done

def test_storm():
    done["storms"] += 1
"""
_OTHERS = """
def test_other():
    pass

def test_another():
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A battery of two kinds, and other tests beside it."""
    faults = tmp_path / "some" / "faults"
    faults.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (faults / "test_kills.py").write_text(_KILLS)
    (faults / "test_storms.py").write_text(_STORMS)
    (tmp_path / "some" / "test_others.py").write_text(_OTHERS)
    return tmp_path


def _run(project: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist.plugin", *arguments],
        env=environment({"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return found.returncode, found.stdout + found.stderr


_STORM = "some/faults/test_storms.py"


@pytest.mark.parametrize("distributed", [(), ("-n", "2")], ids=["one process", "several"])
def test_all_of_it_is_judged(project: Path, distributed: tuple[str, ...]) -> None:
    code, told = _run(project, *distributed)
    assert code == 0, told
    assert "     3 kills" in told
    (project / _STORM).unlink()
    kills = project / "some" / "faults" / "test_kills.py"
    kills.write_text(_KILLS.replace("range(3)", "range(2)"))
    code, told = _run(project, *distributed)
    assert code == 1, told
    assert "2 kills, where at least 3 are to be" in told
    assert "0 storms, where at least 1 are to be" in told


def test_what_is_skipped_lacks(project: Path) -> None:
    (project / _STORM).write_text("import pytest\npytest.skip('no', allow_module_level=True)\n")
    code, told = _run(project)
    assert code == 1, told
    assert "0 storms, where at least 1 are to be" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("some/faults/test_storms.py",),
        ("some/faults/test_kills.py::test_kill[1]", "some/test_others.py"),
        ("-k", "test_storm or test_other"),
        ("-n", "2", "-k", "test_storm or test_other"),
        ("--deselect", "some/faults/test_kills.py::test_kill[1]"),
        ("some/faults", "--ignore", "some/faults/test_kills.py"),
        ("some/test_others.py",),
        ("--collect-only",),
    ],
    ids=" ".join,
)
def test_a_part_of_it_is_not(project: Path, arguments: tuple[str, ...]) -> None:
    code, told = _run(project, *arguments)
    assert code == 0, told
    assert "where at least" not in told


def test_one_case_is_not(project: Path) -> None:
    (project / _STORM).unlink()
    code, told = _run(project, KUMO_FAULT_CASE="3")
    assert code == 0, told


@pytest.mark.parametrize(
    "arguments", [("some/faults",), ("-k", "not test_another"), ("some/test_others.py", "some")]
)
def test_what_is_chosen_elsewhere_does_not_matter(
    project: Path, arguments: tuple[str, ...]
) -> None:
    (project / _STORM).unlink()
    code, told = _run(project, *arguments)
    assert code == 1, told
    assert "0 storms, where at least 1 are to be" in told
