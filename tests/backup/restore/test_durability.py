"""What a power failure could undo is on the disk before what relies on it is done.

Nothing but the order of the calls tells: a process that is killed loses nothing it has written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

import kumo_crt
from kumo_crt import _core
from tests.backup.conftest import Make
from tests.backup.helpers import tree
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")

# What was done, and the sizes of the files that were there then, below the parent of the target.
Effect = tuple[str, str, dict[str, int]]


class Effects:
    """Notes what is brought to the disk, and what gets another name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
        self.all: list[Effect] = []
        self._parent = parent
        self._lock = threading.Lock()
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._noted_sync)
        monkeypatch.setattr(os, "rename", self._renaming(os.rename))
        monkeypatch.setattr(_core, "exchange_paths", self._renaming(_core.exchange_paths))

    def _noted_sync(self, fd: int) -> None:
        self._sync(fd)
        self._note("sync", os.readlink(f"/proc/self/fd/{fd}"))

    def _renaming(self, rename: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def noted(work: Path, target: Path) -> None:
            self._note("rename", str(work))
            rename(work, target)

        return noted

    def _note(self, what: str, path: str) -> None:
        with self._lock:
            files = {
                str(file.relative_to(self._parent)): file.stat().st_size
                for file in self._parent.rglob("*")
                if file.is_file()
            }
            self.all.append((what, os.path.relpath(path, self._parent), files))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overwrite": True},
        {"delta": True},
        {"column_families": ["default", "users"]},
    ],
    ids=str,
)
def test_a_restore(
    repository: kumo_crt.Repository,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    path = make("column_families")
    names = ["default", *(name for name in Rdict.list_cf(str(path)) if name != "default")]
    if "column_families" in options:
        options = {"column_families": names[:2]}
    repository.backup(path)
    parent = tmp_path / "parent"
    target = parent / "db"
    parent.mkdir()
    if "overwrite" in options or "delta" in options:
        repository.restore(target)
        opened = Rdict(str(target), databases.options(small_files=True))
        opened[b"more"] = b"than before"
        opened.close()
    effects = Effects(monkeypatch, parent)
    repository.restore(target, **options)
    monkeypatch.undo()
    (moved,) = [i for i, (what, _, _) in enumerate(effects.all) if what == "rename"]
    work = effects.all[moved][1]
    # Each file, when it was whole; then the directory; CURRENT; and the directory with it.
    restored = {name: (target / name).stat().st_size for name in tree(target)}
    synced: dict[str, int] = {}
    for index, (what, name, files) in enumerate(effects.all[:moved]):
        if what == "sync" and name.startswith(f"{work}/"):
            inside = name.removeprefix(f"{work}/")
            assert files[name] == restored[inside]
            synced[inside] = index
    assert synced.keys() == restored.keys()
    directory = [i for i, (_, name, _) in enumerate(effects.all[:moved]) if name == work]
    others = max(index for name, index in synced.items() if name != "CURRENT")
    assert any(others < index < synced["CURRENT"] for index in directory)
    assert any(synced["CURRENT"] < index for index in directory)
    for _, _, files in effects.all[: directory[0]]:
        assert f"{work}/CURRENT" not in files
    # Its new name at last.
    assert ("sync", ".") in {(what, name) for what, name, _ in effects.all[moved + 1 :]}
