"""The battery is as large as it says: these run last."""

from __future__ import annotations

import pytest

from tests.faults import seeds

KILLS = 250


def test_kills() -> None:
    works = ("backup", "backup_open", "restore", "prune", "delete_snapshot", "pin", "unpin")
    counts = [seeds.done[f"kills of {work}"] for work in works]
    if not all(counts) or not seeds.is_whole():
        pytest.skip("not all of the kills ran")
    assert sum(counts) >= min(1.0, seeds.scale()) * KILLS
