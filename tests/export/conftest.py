"""Exports are made of many small databases: in memory, where flushing them costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    """A directory in memory."""
    return memory_path
