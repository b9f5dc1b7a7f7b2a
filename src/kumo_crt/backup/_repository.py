"""The public face of backups."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from kumo_crt import _core, _engine
from kumo_crt._engine import Task, Throttle
from kumo_crt.backup import _layout, _manifest, _restore, _verify
from kumo_crt.backup._capture import capture
from kumo_crt.backup._results import RestoreReport, Snapshot, VerifyReport
from kumo_crt.backup._store import Store
from kumo_crt.backup._upload import BackupPlan, backup_task
from kumo_crt.exceptions import (
    EnvironmentMismatchError,
    NotFoundError,
    PreconditionFailedError,
    RepositoryError,
    SnapshotNotFoundError,
)
from kumo_crt.s3 import S3Client

T = TypeVar("T")
Progress = Callable[[int, int], object]
DEFAULT_CONCURRENCY = 8


class Repository:
    """Backups of RocksDB databases under one S3 prefix; the format is in docs/format.md.

    Args:
        url: ``s3://bucket/prefix``.
        client: The client to use; else one of its own, set up from the environment.
        environment: Name of the environment that this client belongs to (dev, staging, prod);
            else ``KUMO_ENVIRONMENT``. A repository of another one is refused before it is written.

    Raises:
        ValueError: The URL is malformed.
    """

    def __init__(
        self, url: str, *, client: S3Client | None = None, environment: str | None = None
    ) -> None:
        self._location = _layout.Location.parse(url)
        self._environment = environment or os.environ.get("KUMO_ENVIRONMENT") or None
        self._owned = client is None
        self._client = client if client is not None else S3Client()
        self._config: _manifest.Config | None = None

    @classmethod
    def create(
        cls, url: str, *, client: S3Client | None = None, environment: str | None = None
    ) -> Repository:
        """Creates a repository in a bucket that exists.

        Raises:
            RepositoryError: There is one already.
            NotFoundError: There is no such bucket.
        """
        repository = cls(url, client=client, environment=environment)
        try:
            config = _manifest.Config(
                str(uuid.uuid4()), repository._environment, datetime.now(UTC).replace(microsecond=0)
            )
            try:
                repository._run(
                    repository._store().write_new(
                        _layout.CONFIG_KEY, _manifest.encode_config(config)
                    )
                )
            except PreconditionFailedError:
                raise RepositoryError(
                    f"{repository._location}: there is a repository already: open it"
                ) from None
            repository._config = config
        except BaseException:
            repository.close()
            raise
        return repository

    @classmethod
    def open(
        cls, url: str, *, client: S3Client | None = None, environment: str | None = None
    ) -> Repository:
        """Opens a repository.

        Raises:
            SnapshotNotFoundError: There is none at this URL.
            FormatError: It is of a version that this kumo_crt does not know.
        """
        repository = cls(url, client=client, environment=environment)
        try:
            repository._load()
        except BaseException:
            repository.close()
            raise
        return repository

    # -- work ------------------------------------------------------------------------------

    def backup(
        self,
        source: object,
        *,
        tags: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        max_bytes_per_second: float | None = None,
        max_concurrency: int | None = None,
        dry_run: bool = False,
    ) -> Snapshot:
        """Stores a consistent state of a database as a new snapshot.

        Only files that the repository does not have are sent. Interrupted, it leaves no snapshot;
        run it again and what was sent already is found.

        Args:
            source: An open `rocksdict.Rdict`, which may go on being written to, or the directory of
                a closed database or of a checkpoint.
            tags: Texts to keep with the snapshot.
            progress: Called with bytes done and total, ten times a second at most.
            max_bytes_per_second: Limit for what is sent.
            max_concurrency: Files at once; 8.
            dry_run: Only find out what would be sent.

        Returns:
            The snapshot, which exists in the repository now (not with ``dry_run``).

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
            RepositoryLockedError: The database is open elsewhere.
            RepositoryError: The source is no database, or damaged.
        """
        if not all(isinstance(text, str) for item in (tags or {}).items() for text in item):
            raise TypeError(f"tags: expected names and values that are texts, not {tags!r}")
        config, now = self._load()
        if self._environment and config.environment and self._environment != config.environment:
            raise EnvironmentMismatchError(
                f"{self._location}: belongs to environment {config.environment!r}, this client to "
                f"{self._environment!r} (environment, KUMO_ENVIRONMENT): nothing was written"
            )
        throttle = Throttle(max_bytes_per_second) if max_bytes_per_second is not None else None
        with capture(source) as taken:
            plan = BackupPlan(
                store=self._store(),
                capture=taken,
                config=config,
                created_at=now,
                tags=dict(tags or {}),
                tool=f"kumo_crt {_core.build_info()['version']}",
                concurrency=self._concurrency(max_concurrency),
                progress=progress,
                throttle=throttle,
                dry_run=dry_run,
            )
            return self._run(backup_task(plan))

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, newest last.

        Raises:
            FormatError: A manifest is damaged.
        """
        self._load()
        return self._run(self._all_snapshots())

    def snapshot(self, snapshot_id: str = "latest") -> Snapshot:
        """One snapshot.

        Raises:
            SnapshotNotFoundError: There is none of this id, or none at all.
        """
        self._load()
        wanted = self._resolve(snapshot_id)
        try:
            return self._run(self._store().snapshot(wanted))
        except NotFoundError:
            raise SnapshotNotFoundError(
                f"{self._location}: there is no snapshot {wanted}"
            ) from None

    def restore(
        self,
        target: str | os.PathLike[str],
        snapshot: str = "latest",
        *,
        progress: Progress | None = None,
        overwrite: bool = False,
        max_concurrency: int | None = None,
        dry_run: bool = False,
    ) -> RestoreReport:
        """Restores a snapshot to a directory.

        Everything is downloaded and checked in a directory beside the target, which is then
        renamed: until then the target is untouched. Interrupted, it goes on where it was when it
        is run again.

        Args:
            target: Directory that does not exist, or is empty.
            snapshot: Id, or ``"latest"``.
            progress: Called with bytes done and total, ten times a second at most.
            overwrite: Replace a database that is there, once the restored one is complete. Never
                one that is open.
            max_concurrency: Files at once; 8.
            dry_run: Only check target, space and manifest.

        Raises:
            SnapshotNotFoundError: There is no such snapshot.
            IntegrityError: The repository is damaged.
            RepositoryLockedError: The target's database is open.
            RepositoryError: The target may not be replaced, or there is no room.
        """
        found = self.snapshot(snapshot)
        return _restore.restore(
            self._run,
            self._store(),
            found,
            Path(target),
            overwrite=overwrite,
            concurrency=self._concurrency(max_concurrency),
            progress=progress,
            dry_run=dry_run,
        )

    def verify(
        self,
        snapshot: str = "latest",
        *,
        level: str = "stored",
        progress: Progress | None = None,
        max_concurrency: int | None = None,
    ) -> VerifyReport:
        """Looks for damage in a snapshot.

        Args:
            snapshot: Id, or ``"latest"``.
            level: ``"quick"``: the manifest is good and every object there, with its size.
                ``"stored"``: also its stored CRC32C is the manifest's. ``"full"``: every byte is
                read and checked.
            progress: Called with bytes done and total, ten times a second at most.
            max_concurrency: Files at once; 8.

        Returns:
            What was found; damage does not raise.
        """
        if level not in _verify.LEVELS:
            raise ValueError(f"level {level!r}: choose one of {', '.join(_verify.LEVELS)}")
        self._load()
        wanted = self._resolve(snapshot)
        return self._run(
            _verify.verify_task(
                self._store(), wanted, level, self._concurrency(max_concurrency), progress
            )
        )

    # -- parts -----------------------------------------------------------------------------

    def _store(self) -> Store:
        return Store(self._client._open(), self._location)

    def _run(self, task: Task[T]) -> T:
        return self._client._run(task)

    def _load(self) -> tuple[_manifest.Config, datetime]:
        found = self._run(self._store().config())
        if found is None:
            raise SnapshotNotFoundError(
                f"{self._location}: there is no repository here: look at the URL, or create it "
                "(Repository.create, kumo-crt backup --create)"
            )
        self._config = found[0]
        return found

    def _all_snapshots(self) -> Task[list[Snapshot]]:
        store = self._store()
        ids = yield from store.snapshot_ids()
        found: list[Snapshot] = yield _engine.Gather(
            (store.snapshot(i) for i in ids), DEFAULT_CONCURRENCY
        )
        return found

    def _resolve(self, snapshot_id: str) -> str:
        if snapshot_id != "latest":
            if not _layout.is_snapshot_id(snapshot_id):
                raise SnapshotNotFoundError(
                    f"{self._location}: {snapshot_id!r} is no snapshot id, such as "
                    "20261123T060000Z-0a1b2c3d, nor 'latest'"
                )
            return snapshot_id
        ids = self._run(self._store().snapshot_ids())
        if not ids:
            raise SnapshotNotFoundError(f"{self._location}: there is no snapshot yet")
        return ids[-1]

    @staticmethod
    def _concurrency(wanted: int | None) -> int:
        if wanted is not None and wanted < 1:
            raise ValueError(f"max_concurrency is {wanted}: it must be at least 1")
        return wanted or DEFAULT_CONCURRENCY

    # -- life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the client, if it is the repository's own."""
        if self._owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kumo_crt.Repository {self._location}>"
