"""What every part of `Repository` stands on: where it is, its client, its life."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _snapshots
from kumo_crt.backup._coordination._clock import ServiceClock
from kumo_crt.backup._coordination._snapshots import OnDamage
from kumo_crt.backup._format import _configuration, _layout, _sealing
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._store._coming import Coming
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    EncryptionKeyError,
    EnvironmentMismatchError,
    PreconditionFailedError,
    RepositoryError,
    SnapshotNotFoundError,
)
from kumo_crt.s3 import S3Client
from kumo_crt.s3._budget import Budget

T = TypeVar("T")
DEFAULT_CONCURRENCY = 8
# Seconds.
_JUST = 10.0


def is_id(text: object) -> bool:
    """Whether this is the id of a snapshot.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"snapshot: expected an id, which is a text, not {type(text).__name__}")
    return _layout.is_snapshot_id(text)


class RepositoryBase:
    """A repository's place, client and configuration."""

    def __init__(
        self,
        url: str,
        *,
        client: S3Client | None = None,
        environment: str | None = None,
        max_bytes_per_second: float | None = None,
        max_requests_per_second: float | None = None,
        encryption_key: Key | None = None,
    ) -> None:
        if encryption_key is not None and not isinstance(encryption_key, Key):
            raise TypeError("encryption_key: expected a kumo_crt.Key")
        if environment is not None and not isinstance(environment, str):
            raise TypeError(f"environment: expected a name, not {type(environment).__name__}")
        self._location = _layout.Location.parse(url)
        self._budget = Budget.of(max_bytes_per_second, max_requests_per_second)
        self._environment = environment or os.environ.get("KUMO_ENVIRONMENT") or None
        self._owned = client is None
        self._client = client if client is not None else S3Client()
        self._config: _configuration.Config | None = None
        self._just_read: tuple[_configuration.Config, ServiceClock] | None = None
        self._coming: Coming | None = None
        self._given_key = encryption_key
        # The key that everything in the repository is sealed with, once that is certain.
        self._key: Key | None = None

    @classmethod
    def create(
        cls,
        url: str,
        *,
        client: S3Client | None = None,
        environment: str | None = None,
        storage_class: str | None = None,
        sse: str | None = None,
        kms_key_id: str | None = None,
        max_bytes_per_second: float | None = None,
        max_requests_per_second: float | None = None,
        encryption_key: Key | None = None,
    ) -> Self:
        """Creates a repository in a bucket that exists.

        Args:
            url: ``s3://bucket/prefix``.
            client: See the class.
            environment: See the class; kept in the repository.
            storage_class: Of the objects of SST and blob files, such as ``"STANDARD_IA"`` or
                ``"GLACIER_IR"``; kept in the repository. Everything else is STANDARD.
            sse: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``, asked for with every object;
                kept in the repository. Without it the bucket's default holds.
            kms_key_id: KMS key, with ``sse="aws:kms"``.
            max_bytes_per_second: See the class.
            max_requests_per_second: See the class.
            encryption_key: See the class. With one, the repository is encrypted, for good: without
                it nothing can be restored.

        Raises:
            EncryptionKeyError: A key is named, and cannot be had.
            ValueError: A setting is none that S3, or this service, has.
            RepositoryError: There is one already.
            FormatError: There is one, and its configuration is lost: see
                `Repository.recover_config`.
            NotFoundError: There is no such bucket.
        """
        from kumo_crt.backup._repair import _lost  # those who open one do not need it

        repository = cls(
            url,
            client=client,
            environment=environment,
            max_bytes_per_second=max_bytes_per_second,
            max_requests_per_second=max_requests_per_second,
            encryption_key=encryption_key,
        )
        try:
            key = repository._find_key()
            config = _configuration.new_config(
                repository._environment, storage_class, sse, kms_key_id, key
            )
            if repository._run(_lost.look_task(repository._store())) is not None:
                raise repository._exists()
            repository._write_config(config, key)
        except BaseException:
            repository.close()
            raise
        return repository

    @classmethod
    def open(
        cls,
        url: str,
        *,
        client: S3Client | None = None,
        environment: str | None = None,
        max_bytes_per_second: float | None = None,
        max_requests_per_second: float | None = None,
        encryption_key: Key | None = None,
    ) -> Self:
        """Opens a repository.

        An encrypted one can be opened without its key, for what needs none.

        Args:
            url: ``s3://bucket/prefix``.
            client: See the class.
            environment: See the class.
            max_bytes_per_second: See the class.
            max_requests_per_second: See the class.
            encryption_key: See the class.

        Raises:
            SnapshotNotFoundError: There is none at this URL.
            NotFoundError: There is no such bucket.
            EncryptionKeyError: The key is another one's, or the repository is not encrypted.
            FormatError: It is of a version that this kumo_crt does not know, or its configuration
                is lost.
        """
        repository = cls(
            url,
            client=client,
            environment=environment,
            max_bytes_per_second=max_bytes_per_second,
            max_requests_per_second=max_requests_per_second,
            encryption_key=encryption_key,
        )
        try:
            config, told = repository._load()
            repository._just_read = (config, ServiceClock(told))
        except BaseException:
            repository.close()
            raise
        return repository

    # -- parts -----------------------------------------------------------------------------

    def _write_config(self, config: _configuration.Config, key: Key | None) -> None:
        """Writes the configuration, which must not be there yet.

        Raises:
            ValueError: The service has no such storage class.
            RepositoryError: It is there.
        """
        from kumo_crt.backup._store._writing import try_storage_class_task, write_new_task

        self._config, self._key = config, key
        store = self._store()
        try:
            if config.storage_class is not None:
                self._run(try_storage_class_task(store, config.storage_class))
            self._run(
                write_new_task(store, _layout.CONFIG_KEY, _configuration.encode_config(config))
            )
        except PreconditionFailedError:
            raise self._exists() from None

    def _exists(self) -> RepositoryError:
        return RepositoryError(f"{self._location}: there is a repository already: open it")

    def _store(self, *, persistent: bool = True) -> Store:
        context = replace(self._client._open().within(self._budget), persistent=persistent)
        return Store(context, self._location, self._config, self._key)

    def _run(self, task: Task[T]) -> T:
        return self._client._run(task)

    def _load(self, *, persistent: bool = True) -> tuple[_configuration.Config, datetime]:
        """The configuration, and the service's time.

        What `open` has just read is not read again by what comes next: it never changes.
        """
        just_read, self._just_read = self._just_read, None
        if just_read is not None and just_read[1].age() < _JUST:
            return just_read[0], just_read[1].now().replace(microsecond=0)  # as services tell it
        store = self._store(persistent=persistent)
        found = self._run(store.config())
        if found is None:
            from kumo_crt.backup._repair import _lost

            found = self._run(_lost.look_task(store))
        if found is None:
            raise SnapshotNotFoundError(
                f"{self._location}: there is no repository here: look at the URL, or create it "
                "(Repository.create, kumo-crt backup --create)"
            )
        self._key = self._checked_key(found[0])
        self._config = found[0]
        return found

    def _find_key(self) -> Key | None:
        if self._given_key is None:
            self._given_key = Key.from_environment()
        return self._given_key

    def _checked_key(self, config: _configuration.Config) -> Key | None:
        """The key, if there is one, and it is the repository's.

        Raises:
            EncryptionKeyError: It is another one's, or the repository has none.
        """
        key = self._find_key()
        if key is None:
            return None
        import hmac  # loads OpenSSL, which little else needs

        if config.key_check is None:
            raise EncryptionKeyError(
                f"{self._location}: is not encrypted, and a key was given: what is in it may be of "
                "anybody, and what is backed up to it can be read by everybody who reaches it. "
                "Leave out the key, or create another repository with it"
            )
        if not hmac.compare_digest(config.key_check, _sealing.key_check(key, config.repository_id)):
            raise EncryptionKeyError(
                f"{self._location}: is encrypted with another key than {key.id}: give the one that "
                "it was created with"
            )
        return key

    def _need_key(self, doing: str) -> None:
        """Refuses what cannot be done without the key.

        Raises:
            EncryptionKeyError: The repository is encrypted, and there is no key.
        """
        if self._config is not None and self._config.key_check is not None and self._key is None:
            raise EncryptionKeyError(
                f"{self._location}: is encrypted, and {doing} needs its key: give it "
                "(encryption_key; --key-file, --key-command; KUMO_CRT_KEY_FILE, KUMO_CRT_KEY, "
                "KUMO_CRT_KEY_COMMAND)"
            )

    def _guarded(self) -> tuple[_configuration.Config, datetime]:
        """The configuration and the service's time, if this client may write here.

        Raises:
            EnvironmentMismatchError: The repository belongs to another environment.
        """
        config, now = self._load()
        self._check_environment(config)
        return config, now

    def _check_environment(self, config: _configuration.Config) -> None:
        if self._environment and config.environment and self._environment != config.environment:
            raise EnvironmentMismatchError(
                f"{self._location}: belongs to environment {config.environment!r}, this client to "
                f"{self._environment!r} (environment, --environment, KUMO_ENVIRONMENT): nothing "
                "was written"
            )

    def _all_snapshots(self, on_damage: OnDamage | None) -> Task[list[Snapshot]]:
        return _snapshots.all_task(self._store(), on_damage)

    def _snapshot(self, snapshot_id: str) -> Snapshot:
        return self._find(snapshot_id)[0]

    def _find(self, snapshot_id: str) -> tuple[Snapshot, str | None]:
        """A snapshot; and what is wrong with its manifest, if its spare had to be read instead.

        Raises:
            SnapshotNotFoundError: There is none.
            FormatError: Neither of them can be read.
        """
        self._load()
        wanted = self._resolve(snapshot_id)
        return self._run(_snapshots.find_task(self._store(), wanted))

    def _resolve(self, snapshot_id: str) -> str:
        if snapshot_id != "latest":
            if not is_id(snapshot_id):
                raise SnapshotNotFoundError(
                    f"{self._location}: {snapshot_id!r} is no snapshot id, such as "
                    "20261123T060000Z-0a1b2c3d, nor 'latest'; snapshots() and kumo-crt snapshots "
                    "tell them"
                )
            return snapshot_id
        return self._run(_snapshots.newest_task(self._store()))

    @staticmethod
    def _concurrency(wanted: int | None) -> int:
        if wanted is not None and not isinstance(wanted, int):
            raise TypeError(
                f"max_concurrency: expected a whole number, not {type(wanted).__name__}"
            )
        if wanted is not None and wanted < 1:
            raise ValueError(
                f"files at once (max_concurrency, --max-concurrency): {wanted}, must be at least 1"
            )
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
