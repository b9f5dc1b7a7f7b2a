"""Rules: what happens to the databases."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model.base import KEYS, ONE, Base, family_of
from tests.model.held import Change, Elsewhere
from tests.support.databases import value_of

_FAMILIES = ("users", "orders", "a b")
_VALUES = st.tuples(st.integers(0, 9), st.sampled_from([0, 9, 300, 1_024, 20_000]))
_CHANGES = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "delete_range"]), ONE, KEYS, _VALUES
)


class Writing(Base):
    """Writes, files, column families, and who has a database open."""

    @rule(one=ONE, changes=st.lists(_CHANGES, min_size=1, max_size=12))
    def write(self, one: int, changes: list[tuple[str, int, bytes, tuple[int, int]]]) -> None:
        """A batch over the column families."""
        database = self.database(one)
        batch: list[Change] = []
        for what, number, key, value in changes:
            family = family_of(database, number)
            if what == "delete_range":
                batch.append((what, family, key, b"%02d" % (int(key) + value[0])))
            else:
                batch.append((what, family, key, value_of(*value)))
        database.opened().write(batch)
        database.apply(batch)

    @rule(one=ONE, number=ONE, files=st.integers(1, 12))
    def flush(self, one: int, number: int, files: int) -> None:
        """Table files, as many as it takes for a bundle."""
        database = self.database(one)
        family = family_of(database, number)
        held = database.opened()
        for file in range(files):
            batch = [("put", family, b"%02d" % file, value_of(file, 100))]
            held.write(batch)
            database.apply(batch)
            held.flush(family)

    @rule(one=ONE, number=ONE)
    def compact(self, one: int, number: int) -> None:
        """All files of a column family become new ones."""
        database = self.database(one)
        database.opened().compact(family_of(database, number))

    @rule(one=ONE, name=st.sampled_from(_FAMILIES))
    def create_or_drop_family(self, one: int, name: str) -> None:
        """Column families come and go, and come again under the same name."""
        database = self.database(one)
        if name in database.content:
            database.opened().drop(name)
            del database.content[name]
        else:
            database.opened().create(name)
            database.content[name] = {}

    @rule(one=ONE, how=st.sampled_from(["close", "here", "elsewhere", "kill"]))
    def reopen(self, one: int, how: str) -> None:
        """Closes a database, or kills who has it open; opens it here or elsewhere."""
        database = self.database(one)
        if how == "kill" and isinstance(database.held, Elsewhere):
            database.held.kill()
            database.held = None
            return
        database.close()
        if how == "elsewhere":
            database.held = Elsewhere(database.path, database.blobs)
        elif how == "here":
            database.opened()

    @rule(hours=st.sampled_from([0, 1, 5, 24, 24 * 7, 24 * 31, -1]))
    def pass_time(self, hours: int) -> None:
        """The clock by which snapshots are made goes on; not always forward."""
        self.world.pass_time(hours)
