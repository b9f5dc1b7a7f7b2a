"""Free memory is kept during a run, and what was set is put back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from backups.machine import memory_kept


def test_it_is_kept_and_put_back(tmp_path: Path) -> None:
    setting = tmp_path / "page_reporting_order"
    setting.write_text("9\n")
    with contextlib.suppress(KeyboardInterrupt), memory_kept(setting) as said:
        assert said == "not offered to the host meanwhile"
        assert int(setting.read_text()) == 11
        raise KeyboardInterrupt
    assert int(setting.read_text()) == 9


@pytest.mark.parametrize("content", ["4294967295\n", "11\n", "", None])
def test_nobody_takes_it(tmp_path: Path, content: str | None) -> None:
    setting = tmp_path / "page_reporting_order"
    if content is not None:
        setting.write_text(content)
    with memory_kept(setting) as said:
        assert said == "not offered to a host"
    assert (setting.read_text() if setting.exists() else None) == content


def test_a_kernel_that_refuses_it() -> None:
    setting = Path("/sys/class/net/lo/ifindex")  # small, and not to be written, not even by root
    before = setting.read_text()
    with memory_kept(setting) as said:
        assert said.startswith("offered to the host at any time (")
    assert setting.read_text() == before
