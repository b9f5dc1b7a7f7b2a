"""The synchronous client."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast

from kumo_crt import _config, _engine, _runtime
from kumo_crt._engine import Task
from kumo_crt.s3 import _body, _get, _objects, _put
from kumo_crt.s3._context import Context, check_names
from kumo_crt.s3._results import DeleteResult, GetResult, HeadResult, ObjectInfo, PutResult
from kumo_crt.s3._retry import Retries

T = TypeVar("T")
Progress = Callable[[int, int], object]


class S3Client:
    """A client of S3, or of a service that speaks its protocol.

    One client serves any number of threads. Calls release the GIL and answer Ctrl-C. Close it, or
    use it as a context manager.

    Args:
        region: Region to sign for; else ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the AWS config
            file, ``us-east-1``.
        endpoint_url: ``http(s)://host[:port]``; else ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``,
            the AWS config file, AWS itself.
        access_key_id: With ``secret_access_key``: fixed credentials; else the AWS default chain
            (environment, profile, SSO, process, web identity, container, instance).
        secret_access_key: See ``access_key_id``.
        session_token: Of temporary credentials.
        profile: Profile of the AWS config files to take credentials from.
        anonymous: Do not sign requests.
        ca_file: PEM file of the CAs to trust instead of the system's; else ``AWS_CA_BUNDLE``.
        verify: False accepts any certificate: for tests only.
        addressing_style: ``"path"``, ``"virtual"`` or ``"auto"`` (virtual on AWS, path elsewhere).
        part_size: Bytes of a part of a multipart upload or of a ranged download, 5 MiB to 5 GiB;
            8 MiB, or ``KUMO_CRT_PART_SIZE``. Grows where an object would need over 10,000 parts.
        multipart_threshold: Larger uploads go in parts; 16 MiB, ``KUMO_CRT_MULTIPART_THRESHOLD``.
        max_connections: Requests at once; 16, or ``KUMO_CRT_MAX_CONNECTIONS``.
        memory_limit: Bytes of part buffers of uploads from files; 64 MiB, or
            ``KUMO_CRT_MEMORY_LIMIT``.
        event_loops: Network threads of the process, decided by its first client; one a CPU, or
            ``KUMO_CRT_EVENT_LOOPS``.
        max_attempts: Tries of a request, the first included, with jittered backoff; 5, or
            ``KUMO_CRT_MAX_ATTEMPTS``, ``AWS_MAX_ATTEMPTS``.
        connect_timeout: Seconds to connect; 5, or ``KUMO_CRT_CONNECT_TIMEOUT``.
        request_timeout: Seconds without a byte moving after which a connection is given up and the
            request tried again; 60, or ``KUMO_CRT_REQUEST_TIMEOUT``.

    Raises:
        ValueError: A setting is out of its range or contradicts another.
    """

    def __init__(
        self,
        region: str | None = None,
        endpoint_url: str | None = None,
        *,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
        anonymous: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        verify: bool = True,
        addressing_style: str = "auto",
        part_size: int | None = None,
        multipart_threshold: int | None = None,
        max_connections: int | None = None,
        memory_limit: int | None = None,
        event_loops: int | None = None,
        max_attempts: int | None = None,
        connect_timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> None:
        self._context: Context | None = None
        self._lock = threading.Lock()
        settings = _config.resolve(
            region=region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            profile=profile,
            anonymous=anonymous,
            ca_file=ca_file,
            verify=verify,
            addressing_style=addressing_style,
            part_size=part_size,
            multipart_threshold=multipart_threshold,
            max_connections=max_connections,
            memory_limit=memory_limit,
            event_loops=event_loops,
            max_attempts=max_attempts,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
        )
        self._settings = settings
        self._pid = os.getpid()
        self._context = Context(_runtime.new_client(settings), settings, Retries(settings))
        _runtime.register(self)

    # -- objects ---------------------------------------------------------------------------

    def put_object(
        self,
        bucket: str,
        key: str,
        body: object,
        *,
        checksum: str | None = "CRC32C",
        if_none_match: str | None = None,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        storage_class: str | None = None,
        tags: Mapping[str, str] | None = None,
        sse: str | None = None,
        kms_key_id: str | None = None,
        progress: Progress | None = None,
    ) -> PutResult:
        """Stores an object.

        Args:
            bucket: Bucket.
            key: Key.
            body: C-contiguous buffer (sent from where it is: do not change it meanwhile), path
                (read natively), or binary file object (from its position to its end).
            checksum: ``"CRC32C"``, checked and stored by the service as a full-object checksum, or
                None.
            if_none_match: ``"*"``: only if there is no such object.
            if_match: Only if the object has this ETag.
            metadata: User metadata, printable ASCII.
            content_type: Content type.
            storage_class: Storage class, such as ``"STANDARD_IA"``.
            tags: Object tags.
            sse: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
            kms_key_id: KMS key, with ``sse="aws:kms"``.
            progress: Called with bytes done and total (0: not known), ten times a second at most.

        Returns:
            What was stored.

        Raises:
            PreconditionFailedError: ``if_none_match`` or ``if_match`` did not hold.
            ChecksumMismatchError: The service stored something else than was sent.
            S3Error: The service refused; see its subclasses.
            TransportError: There was no answer, after every retry.
        """
        return self._run(
            self._put(
                bucket,
                key,
                body,
                checksum=checksum,
                if_none_match=if_none_match,
                if_match=if_match,
                metadata=metadata,
                content_type=content_type,
                storage_class=storage_class,
                tags=tags,
                sse=sse,
                kms_key_id=kms_key_id,
                progress=progress,
            )
        )

    def _put(
        self,
        bucket: str,
        key: str,
        body: object,
        *,
        checksum: str | None = "CRC32C",
        if_none_match: str | None = None,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        storage_class: str | None = None,
        tags: Mapping[str, str] | None = None,
        sse: str | None = None,
        kms_key_id: str | None = None,
        progress: Progress | None = None,
    ) -> Task[PutResult]:
        """The task behind `put_object`."""
        check_names(bucket, key)
        if checksum not in ("CRC32C", None):
            raise ValueError(f"checksum {checksum!r}: 'CRC32C' or None")
        if if_none_match not in ("*", None):
            raise ValueError(f"if_none_match {if_none_match!r}: S3 knows only '*'")
        headers = _body.metadata_headers(metadata or {})
        for name, value in (
            ("Content-Type", content_type),
            ("x-amz-storage-class", storage_class),
            ("x-amz-tagging", _body.tagging(tags) if tags else None),
            ("x-amz-server-side-encryption", sse),
            ("x-amz-server-side-encryption-aws-kms-key-id", kms_key_id),
        ):
            if value is not None:
                headers[name] = value
        options = _put.PutOptions(
            checksum=checksum is not None,
            headers={n: _body.header_value(n, v) for n, v in headers.items()},
            if_match=if_match,
            if_none_match=if_none_match,
            progress=progress,
        )
        context = self._open()
        if isinstance(body, str | os.PathLike):
            with open(body, "rb", buffering=0) as file:
                opened = _body.regular_file(file)
                if opened is None:
                    return (
                        yield from _put.stream_task(
                            context, bucket, key, cast("BinaryIO", file), options
                        )
                    )
                source = _body.FileSource(opened[0])
                return (yield from _put.put_task(context, bucket, key, source, options))
        if hasattr(body, "read"):
            opened = _body.regular_file(body)
            if opened is None:
                return (
                    yield from _put.stream_task(
                        context, bucket, key, cast("BinaryIO", body), options
                    )
                )
            source = _body.FileSource(*opened)
            result = yield from _put.put_task(context, bucket, key, source, options)
            cast("BinaryIO", body).seek(opened[1] + source.size)
            return result
        return (yield from _put.put_task(context, bucket, key, _body.MemorySource(body), options))

    def get_object(
        self,
        bucket: str,
        key: str,
        *,
        into: object = None,
        range: tuple[int, int | None] | None = None,  # noqa: A002 - the contract's name
        if_match: str | None = None,
        version_id: str | None = None,
        progress: Progress | None = None,
    ) -> GetResult:
        """Reads an object, and compares it with its stored checksum.

        Args:
            bucket: Bucket.
            key: Key.
            into: Path (written under a temporary name, then renamed), writable buffer (at least as
                large as the content), or None for fresh memory.
            range: Half-open byte range ``(start, stop)``; a stop of None means to the end. The
                checksum of the whole object says nothing about a range: it is not validated.
            if_match: Only if the object has this ETag.
            version_id: Version to read.
            progress: Called with bytes done and total, ten times a second at most.

        Returns:
            Content and properties.

        Raises:
            NotFoundError: No such object.
            ChecksumMismatchError: The content is not what was stored; no file is left behind.
            TransportError: There was no complete answer, after every retry.
        """
        options = _get.GetOptions(
            range=range, if_match=if_match, version_id=version_id, progress=progress
        )
        target = Path(into) if isinstance(into, str | os.PathLike) else into
        check_names(bucket, key)
        return self._run(_get.get_task(self._open(), bucket, key, target, options))

    def head_object(self, bucket: str, key: str, *, version_id: str | None = None) -> HeadResult:
        """Asks for an object's properties.

        Raises:
            NotFoundError: No such object.
        """
        check_names(bucket, key)
        return self._run(_objects.head_task(self._open(), bucket, key, version_id))

    def delete_object(
        self, bucket: str, key: str, *, version_id: str | None = None
    ) -> DeleteResult:
        """Deletes an object; succeeds if there is none, as S3 does."""
        check_names(bucket, key)
        return self._run(_objects.delete_task(self._open(), bucket, key, version_id))

    def delete_objects(self, bucket: str, keys: Iterable[str]) -> int:
        """Deletes many objects, a thousand a request.

        Returns:
            How many keys were given.

        Raises:
            S3Error: Some were not deleted; the message names the first.
        """
        check_names(bucket)
        return self._run(_objects.delete_many_task(self._open(), bucket, keys))

    def list_objects(
        self,
        bucket: str,
        prefix: str = "",
        delimiter: str | None = None,
        start_after: str | None = None,
    ) -> Iterator[ObjectInfo]:
        """Lists objects in key order, page by page as they are asked for.

        Args:
            bucket: Bucket.
            prefix: Only keys that begin so.
            delimiter: Keys that have it after the prefix are summed up, see `ObjectInfo.is_prefix`.
            start_after: Only keys after this one.
        """
        check_names(bucket)
        return self._pages(bucket, prefix, delimiter, start_after)

    def _pages(
        self, bucket: str, prefix: str, delimiter: str | None, start_after: str | None
    ) -> Generator[ObjectInfo, None, None]:
        token: str | None = None
        while True:
            found, token = self._run(
                _objects.list_page_task(self._open(), bucket, prefix, delimiter, start_after, token)
            )
            yield from found
            if token is None:
                return

    def create_bucket(self, bucket: str) -> None:
        """Creates a bucket in the client's region.

        Raises:
            S3Error: It exists (``BucketAlreadyOwnedByYou``, ``BucketAlreadyExists``), or may not.
        """
        check_names(bucket)
        self._run(_objects.create_bucket_task(self._open(), bucket))

    # -- life ------------------------------------------------------------------------------

    def _open(self) -> Context:
        if self._context is None:
            raise ValueError("this S3Client is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this S3Client was made before the process forked, and its threads are the "
                "parent's: make the first client after the fork, or start workers with 'spawn'"
            )
        return self._context

    def _run(self, task: Task[T]) -> T:
        return _engine.run(task, self._settings.max_connections)

    def close(self) -> None:
        """Drops the connections; calls of other threads that are under way end first."""
        with self._lock:
            context, self._context = self._context, None
        del context

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_context", None) is not None:
            context, self._context = self._context, None
            del context
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        settings = self._settings
        where = settings.endpoint_url or "AWS"
        state = "" if self._context is not None else " closed"
        return f"<kumo_crt.S3Client {where} region={settings.region}{state}>"


__all__ = ["S3Client"]
