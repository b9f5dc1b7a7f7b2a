"""Rules: backups, from everything that a database can be backed up from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from rocksdict import Checkpoint

import kumo_crt
from kumo_crt.exceptions import RepositoryLockedError
from tests.backup.interleaving import run_interleaved, without_waiting
from tests.model.base import ONE, Base
from tests.model.held import Elsewhere, Here
from tests.model.keeping import RULES, Rules, as_arguments
from tests.model.world import KEY, Database
from tests.support.processes import environment

_BUNDLES = st.sampled_from(
    [{}, {"bundle_below": 0}, {"bundle_below": 4_000}, {"bundle_size": 1 << 20}]
)
_FORMS = _BUNDLES | st.just({"single_object": True})
_TAGS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)


class Capturing(Base):
    """Snapshots come."""

    @rule(one=ONE, who=ONE, live=st.booleans(), tags=_TAGS, form=_FORMS)
    def back_up(
        self, one: int, who: int, live: bool, tags: dict[str, str], form: dict[str, Any]
    ) -> None:
        """Of a database that is open here or elsewhere, or closed; in files, or as one object."""
        world, database = self.world, self.database(one)
        repository = self.repository(who)
        held = database.held
        if isinstance(held, Elsewhere):
            live = True
            with pytest.raises(RepositoryLockedError):
                repository.backup(database.path)
        source = held.db if isinstance(held, Here) and not live else database.path
        more: dict[str, Any] = {"live": live, "tags": tags, **form}
        before = world.stored()
        with repository.at(world.now):
            planned = repository.backup(source, dry_run=True, **more)
            assert world.stored() == before
            snapshot = repository.backup(source, **more)
        assert snapshot.tags == planned.tags == tags
        assert snapshot.created_at == world.now
        assert (snapshot.single_object is not None) == ("single_object" in form)
        world.took(snapshot, database)

    @rule(one=ONE, who=ONE, bundles=_BUNDLES)
    def back_up_twice(self, one: int, who: int, bundles: dict[str, Any]) -> None:
        """The second one finds everything there, however small files are stored by then."""
        world, database = self.world, self.database(one)
        repository = self.repository(who)
        database.close()
        with repository.at(world.now):
            world.took(repository.backup(database.path, **bundles), database)
            before = world.stored()
            again = repository.backup(database.path)
        assert again.uploaded_bytes == 0
        new = {f"{folder}/{again.id}.json" for folder in ("snapshots", "spares")}
        assert world.stored() == before | new
        world.took(again, database)

    @rule(one=ONE)
    def back_up_a_checkpoint(self, one: int) -> None:
        """From a directory that RocksDB has made."""
        world, database = self.world, self.database(one)
        if isinstance(database.held, Elsewhere):
            database.close()
        held = database.opened()
        assert isinstance(held, Here)
        path = world.new_path("checkpoint")
        Checkpoint(held.db).create_checkpoint(str(path))
        with self.repository(0).at(world.now):
            snapshot = self.repository(0).backup(path)
        shutil.rmtree(path)
        world.took(snapshot, database)

    @rule(one=ONE, is_rare=st.integers(0, 9))
    def back_up_by_the_command(self, one: int, is_rare: int) -> None:
        """In a process of its own, which finds out by itself whether the database is open."""
        if is_rare != 9:
            return
        world, database = self.world, self.database(one)
        secret = {"KUMO_CRT_KEY": KEY.hex()} if world.key is not None else {}
        command = [sys.executable, "-m", "kumo_crt.cli", "backup", "--json"]
        done = subprocess.run(
            [*command, str(database.path), world.url],
            env=environment({**world.stage.server.environment(), **secret}),
            capture_output=True,
            check=True,
        )
        snapshot_id = json.loads(done.stdout)["snapshot"]["id"]
        world.took(self.repository(0).snapshot(snapshot_id), database)

    @rule(order=st.text("ABP", max_size=80), rules=RULES)
    def everybody_at_once(self, order: str, rules: Rules) -> None:
        """Two backups and a prune, request by request in any order, each with a client."""
        world = self.world
        both = dict(zip("AB", world.databases, strict=True))

        def back_up(number: int, database: Database) -> kumo_crt.Snapshot:
            with self.repository(number).at(world.now):
                return self.repository(number).backup(database.path, live=True)

        clients = world.stage.clients
        with without_waiting(protect_new=True):
            outcomes = run_interleaved(
                {
                    "A": (clients[0], lambda: back_up(0, both["A"])),
                    "B": (clients[1], lambda: back_up(1, both["B"])),
                    "P": (clients[2], lambda: self.repository(2).prune(**as_arguments(rules))),
                },
                order,
            )
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
        removed = set(outcomes["P"].removed)
        # The prune may have seen none of the new snapshots, or some.
        possible = [world.removed(rules)]
        for name in sorted(both, key=lambda name: str(outcomes[name].id)):
            world.took(outcomes[name], both[name], is_last=False)
        possible.append(world.removed(rules))
        for name in both:
            possible.append(world.removed(rules, without=outcomes[name].id))
        # Nor does it remove one whose backup has not ended yet.
        kept = outcomes["P"].kept
        unfinished = {i for i, reasons in kept.items() if reasons == ("not finished",)}
        assert unfinished <= {outcomes[name].id for name in both}
        assert removed in [ids - unfinished for ids in possible]
        world.forget(removed)
