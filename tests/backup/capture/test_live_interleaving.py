"""What may happen between the steps of a capture from outside, one thing at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import IngestExternalFileOptions, Options, Rdict, SstFileWriter, WriteOptions

from kumo_crt.backup._capture import _live, _logs, capture
from tests.support import databases

State = dict[str, dict[bytes, bytes]]


class Database:
    """An open database whose every state is remembered."""

    def __init__(self, path: Path, change: Callable[[Options], None] | None = None) -> None:
        self.path = path
        self._options = databases.options(small_files=True)
        if change is not None:
            change(self._options)
        self.states: list[State] = []
        self._count = 0
        self.families: dict[str, Rdict] = {}
        self.open()
        self.create("users")
        for _ in range(3):
            self.write()
            self.flush()
        self.write()

    def open(self) -> None:
        """Opens it as it is on the disk."""
        names = [] if not self.path.exists() else Rdict.list_cf(str(self.path), self._options)
        families = dict.fromkeys(names, self._options)
        db = Rdict(str(self.path), self._options, column_families=families)
        self.families = {name: db.get_column_family(name) for name in names if name != "default"}
        self.families["default"] = db
        self._remember()

    def close(self) -> None:
        """Closes it."""
        db = self.families.pop("default")
        while self.families:
            self.families.popitem()[1].close()
        db.close()

    @property
    def db(self) -> Rdict:
        """The database."""
        return self.families["default"]

    def _remember(self) -> None:
        self.states.append(
            {name: dict(databases.pairs(family)) for name, family in self.families.items()}
        )

    def key(self) -> bytes:
        """A key that was not used yet."""
        self._count += 1
        return b"key-%06d" % self._count

    def write(self) -> None:
        """A put into each column family."""
        for family in list(self.families.values()):
            family[self.key()] = os.urandom(50)
            self._remember()

    def flush(self) -> None:
        """Flushes everything: the logs so far are deleted."""
        for family in self.families.values():
            family.flush()

    def create(self, name: str) -> None:
        """Makes a column family."""
        self.families[name] = self.db.create_column_family(name, self._options)
        self._remember()

    def drop(self, name: str) -> None:
        """Drops a column family."""
        # Closing its handle would flush, and later writes would go into a new log.
        self.db.drop_column_family(name)
        del self.families[name]
        self._remember()

    def ingest(self) -> None:
        """Brings in a file."""
        file = self.path.with_name("ingested.sst")
        writer = SstFileWriter(self._options)
        writer.open(str(file))
        writer[self.key()] = b"ingested"
        writer.finish()
        self.db.ingest_external_file([str(file)], IngestExternalFileOptions())
        self._remember()

    def write_unlogged(self) -> None:
        """A put that is in no log; a crash would lose it until it is flushed."""
        options = WriteOptions()
        options.disable_wal = True  # type: ignore[method-assign, assignment]
        self.db.put(self.key(), b"unlogged", write_opt=options)

    def compact(self) -> None:
        """Replaces all files."""
        self.db.compact_range(None, None)


def _write(database: Database) -> None:
    database.write()


def _flush(database: Database) -> None:
    database.write()
    database.flush()
    database.write()


def _flush_often(database: Database) -> None:
    for _ in range(3):
        _flush(database)


def _flush_one(database: Database) -> None:
    database.write()
    database.families["users"].flush()
    database.write()


def _flush_and_compact(database: Database) -> None:
    database.write()
    database.flush()
    database.compact()
    database.write()


def _create(database: Database) -> None:
    database.create("late")
    database.write()


def _drop(database: Database) -> None:
    database.write()
    database.drop("users")
    database.write()


def _create_and_drop(database: Database) -> None:
    database.create("late")
    database.write()
    database.drop("late")
    database.write()


def _ingest(database: Database) -> None:
    database.ingest()
    database.write()


def _flush_unlogged(database: Database) -> None:
    database.write_unlogged()
    database.db.flush()
    database._remember()
    database.write()


def _reopen(database: Database) -> None:
    database.write()
    database.close()
    database.open()
    database.write()


def _replace(database: Database) -> None:
    database.close()
    Rdict.destroy(str(database.path), Options(raw_mode=True))
    shutil.rmtree(database.path, ignore_errors=True)
    database.states.clear()
    database.open()
    database.create("users")
    database.write()
    database.flush()
    database.write()


_ACTIONS = (
    _write, _flush, _flush_often, _flush_one, _flush_and_compact, _create, _drop, _create_and_drop,
    _ingest, _flush_unlogged, _reopen, _replace,
)  # fmt: skip
# The steps of an attempt, in order; the logs are listed before the first attempt, too.
_STEPS: dict[str, tuple[Any, str]] = {
    "catch up": (_live._Live, "_catch_up"),
    "logs": (_logs.HeldLogs, "hold_new"),
    "cut": (_logs.HeldLogs, "cut"),
    "current": (_live._Live, "_check_current"),
    "captured": (_live._Live, "_captured"),
    "options": (_live._Live, "_options"),
}


def _recycled(options: Options) -> None:
    options.set_recycle_log_file_num(2)


def _rolling(options: Options) -> None:
    options.set_max_manifest_file_size(500)


def _act_once(
    monkeypatch: pytest.MonkeyPatch, step: str, call: int, action: Callable[[], None]
) -> list[int]:
    """Lets something happen just before a step; returns a list that counts its calls."""
    owner, name = _STEPS[step]
    original = getattr(owner, name)
    calls: list[int] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == call:
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


@pytest.mark.parametrize(
    ("change", "action"),
    [
        *((None, action) for action in _ACTIONS),
        *(
            (change, action)
            for change in (_recycled, _rolling)
            for action in (_write, _flush, _flush_often, _flush_and_compact, _create, _ingest)
        ),
    ],
    ids=lambda value: value.__name__.strip("_") if value else "plain",
)
@pytest.mark.parametrize(
    ("step", "call"),
    [
        *(("logs", 1), ("catch up", 1), ("logs", 2), ("cut", 1)),
        *(("current", 1), ("captured", 1), ("options", 1)),
    ],
)
def test_every_capture_is_a_state_that_was(
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    call: int,
    change: Callable[[Options], None] | None,
    action: Callable[[Database], None],
) -> None:
    # That OPTIONS describes other column families would often tell that something happened.
    monkeypatch.setattr(_live, "_ATTEMPTS_FOR_OPTIONS", 0)
    database = Database(memory_path / "db", change)
    before = len(database.states) - 1
    calls = _act_once(monkeypatch, step, call, lambda: action(database))
    found = _captured(memory_path)
    assert len(calls) >= call
    first = 0 if action is _replace else before
    assert found in database.states[first:]
    database.close()


def test_a_log_that_came_and_went(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log that is left has a record before those that are lost."""
    database = Database(memory_path / "db")
    _act_once(monkeypatch, "catch up", 1, lambda: _flush(database))
    calls = _act_once(monkeypatch, "logs", 2, lambda: _flush_often(database))
    before = len(database.states) - 1
    assert _captured(memory_path) in database.states[before:]
    assert len(calls) > 2
    database.close()


def _captured(directory: Path) -> State:
    restored = directory / "restored"
    restored.mkdir()
    with capture(directory / "db", live=True) as taken:
        for file in taken.files:
            os.link(file.source, restored / file.path)
        assert taken.db_id == (directory / "db" / "IDENTITY").read_text()
    found: State = {name: {} for name in taken.column_families}
    for name, key, value in databases.read_all(restored):
        found[name][key] = value
    return found
