"""The public face of backups."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kumo_crt import _core
from kumo_crt._engine import Throttle
from kumo_crt.backup._care import Care
from kumo_crt.backup._coordination._clock import boottime
from kumo_crt.backup._coordination._snapshots import OnDamage
from kumo_crt.backup._format._configuration import Config
from kumo_crt.backup._format._results import RestoreReport, Snapshot
from kumo_crt.backup._keeping import Keeping
from kumo_crt.backup._store._coming import Coming
from kumo_crt.exceptions import AccessDeniedError, RepositoryError

_log = logging.getLogger("kumo_crt.backup")
Progress = Callable[[int, int], object]


class Repository(Care, Keeping):
    """Backups of RocksDB databases under one S3 prefix; the format is in docs/format.md.

    Args:
        url: ``s3://bucket/prefix``.
        client: The client to use; else one of its own, set up from the environment.
        environment: Name of the environment that this client belongs to (dev, staging, prod);
            else ``KUMO_ENVIRONMENT``. A repository of another one is refused before it is written.
        max_bytes_per_second: Limit for everything that goes through this object, in all threads
            together: bodies that are sent and received. Else ``KUMO_CRT_MAX_BYTES_PER_SECOND``,
            which is the whole process's. (For memory see ``memory_limit`` of `S3Client`.)
        max_requests_per_second: The same for requests; else ``KUMO_CRT_MAX_REQUESTS_PER_SECOND``.
        encryption_key: Key of an encrypted repository; else the one that ``KUMO_CRT_KEY_FILE``,
            ``KUMO_CRT_KEY_COMMAND`` or ``KUMO_CRT_KEY`` names, see `Key.from_environment`. Listing,
            pruning and verifying need none; a wrong one is refused by everything.

    Raises:
        ValueError: The URL is malformed.
    """

    def backup(
        self,
        source: object,
        *,
        live: bool = False,
        data_paths: Sequence[str | os.PathLike[str]] = (),
        compact_first: bool = False,
        tags: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        max_bytes_per_second: float | None = None,
        max_concurrency: int | None = None,
        bundle_below: int | None = None,
        bundle_size: int | None = None,
        single_object: bool = False,
        dry_run: bool = False,
    ) -> Snapshot:
        """Stores a consistent state of a database as a new snapshot.

        Only files that the repository does not have are sent, and those of objects that are known
        to be damaged, which are replaced as by `repair`. Interrupted, it leaves no snapshot; run it
        again and what was sent already is found.

        Args:
            source: An open `rocksdict.Rdict`, which may go on being written to, or the directory of
                a closed database or of a checkpoint.
            live: The directory's database may be open, in another process or here: it is captured
                from its files while it is written to.
            data_paths: Further directories of the database (``db_paths``, ``cf_paths``), where
                RocksDB's LOG does not name them.
            compact_first: Compact all column families of an open `Rdict`, or of a closed database,
                before: fewer and larger files. Where the last drill found tables that RocksDB
                cannot read, all are written once more: of the same identity, good ones would not
                be sent. Refused for a directory whose database is open.
            tags: Texts to keep with the snapshot.
            progress: Called with bytes done and total, ten times a second at most.
            max_bytes_per_second: Limit for what is sent.
            max_concurrency: Files at once; 8.
            bundle_below: New table and blob files of less than these bytes are stored together,
                in bundles; else ``KUMO_CRT_BUNDLE_BELOW``, else 1 MiB. 0: each by itself.
            bundle_size: Bytes that a bundle has at most, up to 64 MiB: it is put together in
                memory; else ``KUMO_CRT_BUNDLE_SIZE``, else 16 MiB.
            single_object: Store everything as one object, a tar that anything can unpack (of an
                encrypted repository: to sealed files), streamed while it is made. All of the
                database is sent; only an archive of exactly the same state is found again. Parts of
                it are in memory: see ``memory_limit`` of `S3Client`.
            dry_run: Only find out what would be sent. What interrupted backups have sent, and no
                snapshot names, is not looked for.

        Returns:
            The snapshot, which exists in the repository now (not with ``dry_run``).

        Raises:
            EncryptionKeyError: The repository is encrypted, and the key is missing.
            EnvironmentMismatchError: The repository belongs to another environment.
            RepositoryLockedError: The database is open elsewhere, and `live` is not set.
            IntegrityError: What it relies on was found damaged, again and again, while it ran.
            RepositoryError: The source is no database, or damaged, or changes too fast.
        """
        from kumo_crt.backup._capture import capture, compact
        from kumo_crt.backup._coordination._commit import FoundDamagedError
        from kumo_crt.backup._packing import _packing
        from kumo_crt.backup._send._plan import BackupPlan
        from kumo_crt.backup._send._upload import backup_task

        if not isinstance(tags, Mapping | None) or not all(
            isinstance(text, str) for item in (tags or {}).items() for text in item
        ):
            raise TypeError(f"tags: expected names and values that are texts, not {tags!r}")
        limits = _packing.limits(bundle_below, bundle_size)
        begun = None if self._coming is not None else self._guarded()
        self._need_key("a backup")
        throttle = Throttle(max_bytes_per_second) if max_bytes_per_second is not None else None
        if compact_first and not dry_run:
            compact(source, everything=begun is not None and self._has_rotten_tables(source))

        def attempt(begun: tuple[Config, datetime] | None) -> Snapshot:
            since = boottime()
            with capture(source, live=live, data_paths=data_paths) as taken:
                for warning in taken.warnings:
                    _log.warning("%s", warning)
                config, now = begun or (
                    self._plan_coming() if dry_run else self._create_coming(since)
                )
                plan = BackupPlan(
                    store=self._store(),
                    capture=taken,
                    config=config,
                    created_at=now,
                    tags=dict(tags or {}),
                    tool=f"kumo_crt {_core.build_info()['version']}",
                    concurrency=self._concurrency(max_concurrency),
                    limits=limits,
                    progress=progress,
                    throttle=throttle,
                    dry_run=dry_run,
                    single_object=single_object,
                )
                return self._run(backup_task(plan))

        try:
            return attempt(begun)
        except FoundDamagedError as error:
            # What had to be sent once more has been given up by now: a new capture has it.
            _log.warning("%s (this is done now)", error)
            return attempt(self._guarded())

    def _has_rotten_tables(self, source: Any) -> bool:
        """Whether drills say that tables which are stored have to be replaced by others."""
        from kumo_crt.backup._capture import identity_file, is_open_database
        from kumo_crt.backup._coordination import _ledger

        db_id = identity_file(Path(source.path() if is_open_database(source) else source))
        try:
            return self._run(_ledger.read_task(self._store())).has_rotten_tables(db_id)
        except AccessDeniedError:
            return False

    def _create_with_first(
        self,
        created: Callable[[], object],
        *,
        storage_class: str | None = None,
        sse: str | None = None,
        kms_key_id: str | None = None,
    ) -> None:
        """Has the repository created by the backup that comes next, once it holds a state.

        So a database that cannot be backed up leaves no repository behind. There has to be none.

        Args:
            created: Called when it is; not if somebody else has been faster.
            storage_class: See `create`.
            sse: See `create`.
            kms_key_id: See `create`.

        Raises:
            EncryptionKeyError: A key is named, and cannot be had.
            ValueError: A setting is none that S3 has.
        """
        from kumo_crt.backup._format import _configuration

        key = self._find_key()
        config = _configuration.new_config(self._environment, storage_class, sse, kms_key_id, key)
        self._coming = Coming(config, key, created)

    def _plan_coming(self) -> tuple[Config, datetime]:
        """What it would be created as; nothing is written."""
        if self._coming is None:
            raise AssertionError("otherwise it was there before")
        self._config, self._key = self._coming.config, self._coming.key
        return self._config, self._config.created_at

    def _create_coming(self, since: float) -> tuple[Config, datetime]:
        """Creates it; returns its configuration, and the service's time of ``since``."""
        coming, self._coming = self._coming, None
        if coming is None:
            raise AssertionError("otherwise it was there before")
        try:
            self._write_config(coming.config, coming.key)
        except RepositoryError:
            config, now = self._guarded()
            self._need_key("a backup")
            coming.check(config, self._location)
        else:
            coming.created()
            config, now = self._guarded()
        began = now - timedelta(seconds=boottime() - since)
        return config, began.replace(microsecond=0)

    def recover_config(self, *, dry_run: bool = False) -> str:
        """Writes the configuration (``kumo-repository.json``) anew, if it is lost.

        It becomes what the newest manifest says of it; a key has to be that of encrypted
        snapshots. A configuration that is there is never replaced.

        Args:
            dry_run: Only find out whether it could be done.

        Returns:
            The repository's id.

        Raises:
            RepositoryError: The configuration is there.
            EnvironmentMismatchError: This client belongs to another environment.
            EncryptionKeyError: The snapshots are encrypted, and the key is missing or another one;
                or they are not, and there is one.
            SnapshotNotFoundError: There is no snapshot.
            FormatError: No manifest can be read, or they are of several repositories.
            ValueError: The service does not have the repository's storage class.
        """
        from kumo_crt.backup._repair import _lost

        if self._run(self._store().config()) is not None:
            raise RepositoryError(
                f"{self._location}: the configuration is there, and can be read: nothing is to be "
                "done, and nothing was written"
            )
        self._key = self._find_key()
        config = self._run(_lost.recovered_task(self._store()))
        self._check_environment(config)
        if not dry_run:
            self._write_config(config, self._key)
        return config.repository_id

    def snapshots(self, *, on_damage: OnDamage | None = None) -> list[Snapshot]:
        """All snapshots, newest last.

        Args:
            on_damage: Called with the id of each snapshot whose manifest cannot be read, and the
                error; the others are returned then.

        Raises:
            FormatError: A manifest is damaged.
        """
        self._load()
        return self._run(self._all_snapshots(on_damage))

    def snapshot(self, snapshot_id: str = "latest") -> Snapshot:
        """One snapshot.

        Args:
            snapshot_id: Id, or ``"latest"``.

        Raises:
            SnapshotNotFoundError: There is none of this id, or none at all.
            FormatError: Its manifest is damaged or lost, and its spare is of no use.
        """
        from kumo_crt.backup._coordination._pins import is_pinned

        found = self._snapshot(snapshot_id)
        pinned = self._run(is_pinned(self._store(), found.id))
        return replace(found, pinned=pinned)

    def restore(
        self,
        target: str | os.PathLike[str],
        snapshot: str = "latest",
        *,
        at: object = None,
        progress: Progress | None = None,
        delta: bool = False,
        overwrite: bool = False,
        column_families: Sequence[str] | None = None,
        max_concurrency: int | None = None,
        dry_run: bool = False,
    ) -> RestoreReport:
        """Restores a snapshot to a directory.

        Everything is downloaded and checked in a directory beside the target, which is then
        renamed: until then the target is untouched. Interrupted, it goes on where it was when it
        is run again. Once it is in its place the restore has succeeded: if then what was there
        before cannot be removed, the report's ``warnings`` tell where it is.

        Args:
            target: Directory that does not exist, or is empty.
            snapshot: Id, or ``"latest"``.
            at: A sequence number or a time; needs write-ahead logs that a replicator has shipped,
                and is refused without them.
            progress: Called with bytes done and total, ten times a second at most.
            delta: Replace an older or newer copy of the same database, and take over the files
                that it has in common with the snapshot: they are linked, not downloaded.
            overwrite: Replace a database that is there, once the restored one is complete. Never
                one that is open, be it read-only or as a secondary, as far as Linux tells who has
                files of it open.
            column_families: Restore these only, without downloading what belongs to the others.
                RocksDB cannot be without ``default``: if it is not among them it will be empty.
            max_concurrency: Files at once; 8.
            dry_run: Only check target, space and manifest.

        Raises:
            SnapshotNotFoundError: There is no such snapshot.
            EncryptionKeyError: The repository is encrypted, and the key is missing.
            IntegrityError: The repository is damaged.
            ArchivedError: Objects of it are archived and have to be thawed first.
            RepositoryLockedError: The target's database is open, or is read by a process.
            RepositoryError: The target may not be replaced, or there is no room, or no such column
                family.
        """
        if at is not None:
            raise RepositoryError(
                f"at={at!r}, --at: going to a point in time needs write-ahead logs that a "
                "replicator has shipped, and this repository has snapshots alone: choose one of "
                "them"
            )
        if isinstance(column_families, str):
            raise TypeError("column_families: a list of names, not one text")
        from kumo_crt.backup._restore import _restore

        found, warning = self._find(snapshot)
        self._need_key("a restore")
        plan = _restore.RestorePlan(
            run=self._run,
            snapshot=found,
            store=self._store(),
            target=Path(target).absolute(),
            overwrite=overwrite,
            delta=delta,
            column_families=column_families,
            concurrency=self._concurrency(max_concurrency),
            progress=progress,
            dry_run=dry_run,
            on_damage=self._remember_damage,
        )
        report = _restore.restore(plan)
        if warning is None:
            return report
        return replace(report, warnings=(warning, *report.warnings))
