"""The parts of `Repository` that look after what is stored."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kumo_crt import _core
from kumo_crt._engine import Throttle
from kumo_crt.backup._base import RepositoryBase
from kumo_crt.backup._coordination._snapshots import OnDamage
from kumo_crt.exceptions import KumoError, SnapshotNotFoundError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from kumo_crt.backup._reports import (
        DoctorReport,
        DrillReport,
        Problem,
        RepairReport,
        SnapshotHealth,
        ThawReport,
        VerifyReport,
    )
    from kumo_crt.backup._verify._verify import VerifyPlan

# The modules that do the work are loaded by the methods that need them: a program that only makes
# backups does not pay for them at its start.

_log = logging.getLogger("kumo_crt.backup")
Progress = Callable[[int, int], object]


class Care(RepositoryBase):
    """Verifies what a repository holds."""

    def verify(
        self,
        snapshot: str = "latest",
        *,
        level: str = "stored",
        subset: str | tuple[int, int] | None = None,
        max_bytes: int | None = None,
        executor: Executor | None = None,
        record: bool | None = None,
        progress: Progress | None = None,
        max_concurrency: int | None = None,
    ) -> VerifyReport:
        """Looks for damage in a snapshot, or in all of them.

        What level ``"full"`` has read is written to the repository (``health/``), so that later
        runs can go on with what has not been read for longest.

        Args:
            snapshot: Id, ``"latest"``, or ``"all"``: every object once.
            level: ``"quick"``: the manifest is good and every object there, with its size.
                ``"stored"``: also its stored CRC32C is the manifest's. ``"full"``: every byte is
                read and checked; of an encrypted repository also opened, if there is the key.
                ``"restore"``: a `drill`.
            subset: ``"n/t"``: the n-th of t parts, by the hash of the keys. ``"oldest/t"``: a t-th
                of all bytes, those that were not read for longest: t such runs read everything.
            max_bytes: Read no more than these, but at least one object, and first what was not
                read for longest.
            executor: Any `concurrent.futures.Executor`: its workers check the objects; processes
                are to be spawned, not forked (``mp_context``). What they are sent can be pickled
                and run twice; credentials that were given to the client, and the key of an
                encrypted repository, go with it. All workers together keep to the repository's
                limits of bytes and requests. Level ``"quick"`` has nothing to share out.
            record: Whether to write down what was read. By default it is, where this client may
                write, and its environment is the repository's; True fails where that is not so.
            progress: Called with bytes done and total, ten times a second at most.
            max_concurrency: Files at once, in each worker; 8.

        Returns:
            What was found; damage does not raise.

        Raises:
            SnapshotNotFoundError: There is no such snapshot; with ``"all"``, none at all.
            EnvironmentMismatchError: The repository belongs to another one, and `record` is True.
            EncryptionKeyError: Level ``"restore"`` of an encrypted one, and the key is missing.
        """
        from kumo_crt.backup._verify import _verify
        from kumo_crt.backup._verify._selection import Subset

        if level not in _verify.LEVELS:
            raise ValueError(f"level {level!r}: choose one of {', '.join(_verify.LEVELS)}")
        part = Subset.parse(subset) if subset is not None else None
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(
                f"a limit of {max_bytes} bytes (max_bytes, --max-bytes): it must be at least 1"
            )
        oldest_first = max_bytes is not None or (part is not None and part.part is None)
        if level != "full" and oldest_first:
            raise ValueError("max_bytes (--max-bytes), and subset 'oldest/t', are for level 'full'")
        if level == "restore":
            if part is not None or executor is not None or snapshot == _verify.ALL:
                raise ValueError(
                    "level 'restore' (level, --level) takes one whole snapshot, no subset (subset, "
                    "--subset), and no executor"
                )
            drilled = self.drill(
                snapshot, record=record, progress=progress, max_concurrency=max_concurrency
            )
            return _verify.of_drill(drilled, lambda: self._snapshot(drilled.snapshot).files)
        _, now = self._guarded() if record else self._load()
        plan = self._verify_plan(snapshot, level, now, max_concurrency)
        return _verify.verify(
            replace(
                plan,
                subset=part,
                max_bytes=max_bytes,
                executor=executor,
                record=record,
                progress=progress,
            )
        )

    def drill(
        self,
        snapshot: str = "latest",
        *,
        scratch: str | os.PathLike[str] | None = None,
        opener: Callable[[str], Any] | None = None,
        max_rto: float | None = None,
        max_age: float | None = None,
        record: bool | None = None,
        progress: Progress | None = None,
        max_concurrency: int | None = None,
    ) -> DrillReport:
        """Restores a snapshot to a scratch directory, opens it, reads everything, removes it again.

        Files are compared with their CRC32C; the last sequence number and the column families with
        the manifest; the number of entries with what the tables can hold; and every entry, by a
        checksum over all, with what an earlier drill of the same snapshot has found. A manifest
        that is lost or damaged is a problem, also where its spare was read instead.

        Args:
            snapshot: Id, or ``"latest"``.
            scratch: An existing directory with room for the database; else the one for temporary
                files.
            opener: Opens the database at a path and returns an `rocksdict.Rdict` whose keys and
                values are bytes, for databases with a comparator or merge operator of their own.
            max_rto: Seconds that recovery may take.
            max_age: Seconds that the snapshot may be old.
            record: Whether to write down the drill. By default it is, where this client may write,
                and its environment is the repository's; True fails where that is not so.
            progress: Called with bytes done and total, ten times a second at most.
            max_concurrency: Files at once; 8.

        Returns:
            What was measured and found; damage and limits that were passed do not raise.

        Raises:
            SnapshotNotFoundError: There is no such snapshot.
            EnvironmentMismatchError: The repository belongs to another one, and `record` is True.
            EncryptionKeyError: The repository is encrypted, and the key is missing.
            RepositoryError: There is no room, or no rocksdict.
        """
        from kumo_crt.backup._drill import _drill

        _, now = self._guarded() if record else self._load()
        self._need_key("a drill")
        found, trouble = self._find(snapshot)
        plan = _drill.DrillPlan(
            run=self._run,
            snapshot=found,
            trouble=trouble,
            store=self._store(),
            scratch=Path(scratch).absolute() if scratch is not None else None,
            opener=opener,
            max_rto=max_rto,
            max_age=max_age,
            record=record,
            may_record=self._may_write(),
            now=now,
            tool=_tool(),
            concurrency=self._concurrency(max_concurrency),
            progress=progress,
        )
        return _drill.drill(plan)

    def repair(
        self,
        source: object = (),
        *,
        snapshot: str = "all",
        level: str = "stored",
        problems: Sequence[Problem] | None = None,
        dry_run: bool = False,
        max_bytes_per_second: float | None = None,
        progress: Progress | None = None,
        max_concurrency: int | None = None,
    ) -> RepairReport:
        """Brings back damaged and lost objects, from a database that still has the files.

        Manifests need no database: they, and their spares, come back from each other. A file is
        the wanted one if its size, its CRC32C and (of a table) its identity are those of the
        manifest. A damaged object is copied to ``quarantine/`` before it is replaced, and read in
        full afterwards. A source is only read, and may be open meanwhile.

        Args:
            source: An open `rocksdict.Rdict`, the directory of a database, a checkpoint or a
                restored copy, or a list of those; nothing, to repair manifests only.
            snapshot: Where to look for damage: id, ``"latest"`` or ``"all"``.
            level: How thoroughly: ``"quick"``, ``"stored"`` or ``"full"``, as in `verify`.
            problems: What a verification has found, instead of looking again.
            dry_run: Only find out what could be repaired.
            max_bytes_per_second: Limit for what is sent.
            progress: Called with bytes done and total, ten times a second at most.
            max_concurrency: Files at once; 8.

        Returns:
            What was repaired, and what is left.

        Raises:
            SnapshotNotFoundError: There is no such snapshot; with ``"all"``, none at all.
            EncryptionKeyError: The repository is encrypted, and the key is missing.
            EnvironmentMismatchError: The repository belongs to another environment.
            IntegrityError: Somebody else writes to the same keys, or to the source.
            RepositoryLockedError: A snapshot whose manifest is to come back is being deleted.
        """
        from kumo_crt.backup._repair import _repair

        if level not in ("quick", "stored", "full"):
            raise ValueError(f"level {level!r}: choose one of quick, stored, full")
        sources = source if isinstance(source, list | tuple) else [source]
        directories = [_directory(item) for item in sources]
        _, now = self._guarded()
        self._need_key("a repair")
        throttle = Throttle(max_bytes_per_second) if max_bytes_per_second is not None else None
        look = self._verify_plan(snapshot, level, now, max_concurrency)
        plan = _repair.RepairPlan(
            run=self._run,
            store=self._store(),
            look=look,
            known=problems,
            sources=directories,
            now=now,
            throttle=throttle,
            dry_run=dry_run,
            progress=progress,
        )
        return _repair.repair(plan)

    def _verify_plan(
        self, snapshot: str, level: str, now: datetime, max_concurrency: int | None
    ) -> VerifyPlan:
        from kumo_crt.backup._verify import _verify

        return _verify.VerifyPlan(
            run=self._run,
            store=self._store(),
            settings=self._client._settings,
            snapshot=snapshot if snapshot == _verify.ALL else self._resolve(snapshot),
            level=level,
            subset=None,
            max_bytes=None,
            executor=None,
            record=None,
            may_record=self._may_write(),
            now=now,
            tool=_tool(),
            concurrency=self._concurrency(max_concurrency),
            progress=None,
        )

    def doctor(self, *, write: bool = True, throughput_bytes: int = 8 << 20) -> DoctorReport:
        """Looks the repository over: connection, bucket, permissions, contents.

        Also of a repository that cannot be opened: make it with ``Repository(url)``. Before there
        is one, the bucket and the permissions are looked at all the same.

        Args:
            write: Try what a backup needs, one by one, with scratch objects that are removed again.
            throughput_bytes: Size of the object that is sent and read to estimate the throughput;
                0 leaves that out.

        Returns:
            What was found, with what to do about it; nothing of it raises.
        """
        from kumo_crt.backup._doctor import _doctor

        plan = _doctor.DoctorPlan(
            run=self._run,
            store=lambda: self._store(persistent=False),
            load=self._load_if_there,
            settings=self._client._settings,
            environment=self._environment,
            write=write,
            throughput_bytes=throughput_bytes,
        )
        return _doctor.examine(plan)

    def _load_if_there(self) -> datetime | None:
        try:
            return self._load(persistent=False)[1]
        except SnapshotNotFoundError:
            return None

    def health(self, *, on_damage: OnDamage | None = None) -> list[SnapshotHealth]:
        """How old each snapshot is, and when it was last verified; newest last.

        Args:
            on_damage: See `Repository.snapshots`.

        Raises:
            FormatError: A manifest is damaged.
        """
        from kumo_crt.backup._coordination import _ledger
        from kumo_crt.backup._reports import SnapshotHealth

        _, now = self._load()
        snapshots = self._run(self._all_snapshots(on_damage))
        ledger = self._run(_ledger.read_task(self._store()))
        damage = ledger.known_damage()
        result = []
        for snapshot in snapshots:
            keys = sorted(snapshot.object_keys)
            drilled, failed = ledger.drills.get(snapshot.id), ledger.failed_drill(snapshot.id)
            result.append(
                SnapshotHealth(
                    snapshot=snapshot,
                    age_seconds=max(0.0, (now - snapshot.created_at).total_seconds()),
                    last_verified=ledger.oldest_read(keys),
                    last_drill=drilled.at if drilled is not None else None,
                    damaged=tuple(key for key in keys if key in damage),
                    drill_failed=failed.at if failed is not None else None,
                    drill_problem=failed.kind if failed is not None else None,
                )
            )
        return result

    def request_thaw(
        self,
        snapshot: str = "latest",
        *,
        days: int,
        tier: str = "Standard",
        dry_run: bool = False,
    ) -> ThawReport:
        """Asks for readable copies of the archived objects (Glacier) of one snapshot, or of all.

        Asking again while they are being made costs nothing and tells how things stand.

        Args:
            snapshot: Id, ``"latest"`` or ``"all"``.
            days: For how long the copies are to stay.
            tier: ``"Standard"``, ``"Bulk"`` (slower and cheaper) or ``"Expedited"``.
            dry_run: Only look how things stand.

        Returns:
            How many were asked for (or would be), are on their way, and are there.

        Raises:
            SnapshotNotFoundError: There is no such snapshot.
        """
        from kumo_crt.backup._restore import _thaw

        if not isinstance(days, int):
            raise TypeError(f"days: expected a whole number, not {type(days).__name__}")
        if days < 1:
            raise ValueError(f"{days} days (days, --request-thaw): it must be at least 1")
        if tier not in _thaw.TIERS:
            raise ValueError(f"tier {tier!r}: choose one of {', '.join(_thaw.TIERS)}")
        if snapshot == "all":
            self._load()
            # What is wrong with a manifest is not asked for here.
            found = self._run(self._all_snapshots(lambda *_: None))
            name = snapshot
        else:
            found = [self._snapshot(snapshot)]
            name = found[0].id
        return self._run(_thaw.thaw_task(self._store(), name, found, days, tier, dry_run=dry_run))

    def _remember_damage(self, key: str, kind: str) -> None:
        """Writes down what a restore has found, if this client may; it fails for that anyway."""
        from kumo_crt.backup._coordination._ledger import Damage, Ledger
        from kumo_crt.backup._verify import _verify

        try:
            _, now = self._load()
            new = Ledger(damaged={key: Damage(now, kind)})
            _verify.record(self._run, self._store(), new, now, _tool(), None, self._may_write())
        except KumoError as error:
            _log.warning("that an object is damaged could not be written down: %s", error)

    def _may_write(self) -> bool:
        ours, theirs = self._environment, self._config.environment if self._config else None
        return not (ours and theirs and ours != theirs)


def _directory(source: object) -> Path:
    from kumo_crt.backup._capture import is_open_database

    if is_open_database(source):
        return Path(source.path())
    if isinstance(source, str | os.PathLike):
        return Path(source)
    raise TypeError(f"source: an open rocksdict.Rdict or a path, not {type(source).__name__}")


def _tool() -> str:
    return f"kumo_crt {_core.build_info()['version']}"
