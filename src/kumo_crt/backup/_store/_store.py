"""A repository's documents and objects, over one client."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from kumo_crt._engine import Task
from kumo_crt.backup._format import _configuration, _documents, _layout, _manifest
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._layout import Location
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.exceptions import ChecksumMismatchError, FormatError, NotFoundError
from kumo_crt.s3._context import Context
from kumo_crt.s3._get import GetOptions, TooLargeError, get_task
from kumo_crt.s3._head import head_task
from kumo_crt.s3._objects import list_page_task
from kumo_crt.s3._results import ObjectInfo


class Store(NamedTuple):
    """Where a repository is, the client that reaches it, and how objects are to be stored.

    ``key`` is that of an encrypted repository, if it is at hand.
    """

    context: Context
    location: Location
    terms: _configuration.Config | None = None
    key: Key | None = None

    @property
    def bucket(self) -> str:
        """The bucket."""
        return self.location.bucket

    def url(self, relative: str) -> str:
        """The URL of something in the repository, for messages."""
        return f"s3://{self.bucket}/{self.location.key(relative)}"

    def data_headers(self, kind: str) -> Mapping[str, str]:
        """Headers that the data object of a file of this kind is written with."""
        headers = {"Content-Type": "application/octet-stream", **self.document_headers()}
        # Logs and MANIFESTs are small and short-lived: cheaper classes would make them dearer.
        keeps = kind in ("sst", "blob")
        if keeps and self.terms is not None and self.terms.storage_class is not None:
            headers["x-amz-storage-class"] = self.terms.storage_class
        return headers

    def document_headers(self) -> Mapping[str, str]:
        """Headers that everything is written with."""
        headers = {}
        if self.terms is not None and self.terms.sse is not None:
            headers["x-amz-server-side-encryption"] = self.terms.sse
            if self.terms.kms_key_id is not None:
                headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.terms.kms_key_id
        return headers

    def read(self, relative: str) -> Task[tuple[memoryview, datetime]]:
        """Reads a document; also tells the service's time.

        Raises:
            FormatError: It is too large for one.
        """
        options = GetOptions(max_size=_documents.MAX_DOCUMENT)
        where = self.location.key(relative)
        try:
            found = yield from get_task(self.context, self.bucket, where, None, options)
        except TooLargeError as error:
            problem = _documents.too_large(error.size)
            raise FormatError(f"{self.url(relative)}: {problem}") from None
        return memoryview(found.body or b""), found.server_time or datetime.now(UTC)

    def list_page(
        self, relative: str, start_after: str | None = None, token: str | None = None
    ) -> Task[tuple[list[ObjectInfo], str | None]]:
        """Lists up to a thousand of what begins so, and how to go on; keys are full."""
        start = None if start_after is None else self.location.key(start_after)
        prefix = self.location.key(relative)
        return (yield from list_page_task(self.context, self.bucket, prefix, None, start, token))

    def list_all(self, relative: str) -> Task[list[ObjectInfo]]:
        """Lists what begins so; keys are full."""
        found: list[ObjectInfo] = []
        token: str | None = None
        while True:
            page, token = yield from self.list_page(relative, None, token)
            found.extend(page)
            if token is None:
                return found

    def snapshot_ids(self) -> Task[list[str]]:
        """Ids of all snapshots, oldest first."""
        found = yield from self.list_all(_layout.SNAPSHOTS)
        start = len(self.location.key(_layout.SNAPSHOTS))
        names = (item.key[start:].removesuffix(".json") for item in found)
        return sorted(name for name in names if _layout.is_snapshot_id(name))

    def snapshot(self, snapshot_id: str) -> Task[Snapshot]:
        """Reads one manifest.

        Raises:
            NotFoundError: There is no such snapshot.
            FormatError: The manifest is damaged or hostile.
        """
        key = _layout.snapshot_key(snapshot_id)
        try:
            document, _ = yield from self.read(key)
        except ChecksumMismatchError as error:
            raise FormatError(f"{self.url(key)}: the manifest is damaged: {error}") from error
        ours = self.terms.repository_id if self.terms is not None else None
        return _manifest.decode_snapshot(document, self.url(key), snapshot_id, self.key, ours)

    def listed_snapshot(self, snapshot_id: str) -> Task[Snapshot | None]:
        """Reads a manifest that a listing has shown; None if it has been deleted since.

        Raises:
            FormatError: It is damaged or hostile, or listings still show it and it is not there:
                whoever took that for deleted would delete what it names.
        """
        try:
            return (yield from self.snapshot(snapshot_id))
        except NotFoundError as error:
            key = _layout.snapshot_key(snapshot_id)
            if not (yield from self.is_listed(key)):
                return None
            raise FormatError(
                f"{self.url(key)}: the manifest is in listings and cannot be read: {error}"
            ) from error

    def has(self, key: str) -> Task[bool]:
        """Whether there is something at a key."""
        try:
            yield from head_task(self.context, self.bucket, self.location.key(key))
        except NotFoundError:
            return False
        return True

    def has_snapshot(self, snapshot_id: str) -> Task[bool]:
        """Whether there is a snapshot, be its manifest there or lost."""
        if (yield from self.has(_layout.snapshot_key(snapshot_id))):
            return True
        return (yield from self.has(_layout.spare_key(snapshot_id)))

    def is_listed(self, key: str) -> Task[bool]:
        """Whether a listing has it, which is how readers find snapshots."""
        page, _ = yield from self.list_page(key)
        return any(item.key == self.location.key(key) for item in page)

    def config(self) -> Task[tuple[_configuration.Config, datetime] | None]:
        """The repository's configuration and the service's time; None if there is none.

        Raises:
            FormatError: It is damaged, or of a version that this kumo_crt does not know.
        """
        try:
            document, now = yield from self.read(_layout.CONFIG_KEY)
            return _configuration.decode_config(document, self.url(_layout.CONFIG_KEY)), now
        except NotFoundError as error:
            if error.code == "NoSuchBucket":
                raise
            return None
        except (ChecksumMismatchError, FormatError) as error:
            raise _configuration.unreadable(error) from error
