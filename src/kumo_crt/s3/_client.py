"""The synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from kumo_crt import _engine
from kumo_crt._engine import Task
from kumo_crt.s3 import _bucket_operations, _operations
from kumo_crt.s3._base import ClientBase
from kumo_crt.s3._bucket_operations import Pages
from kumo_crt.s3._context import Context
from kumo_crt.s3._methods import presented

P = ParamSpec("P")
T = TypeVar("T")


def _method(
    operation: Callable[Concatenate[Context, P], Task[T]],
) -> Callable[Concatenate[S3Client, P], T]:
    def method(self: S3Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(operation(self._open(), *args, **kwargs))

    return presented(method, operation)


def _listing(
    operation: Callable[Concatenate[Context, P], Pages[T]],
) -> Callable[Concatenate[S3Client, P], Iterator[T]]:
    def method(self: S3Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._items(operation(self._open(), *args, **kwargs))

    return presented(method, operation, "Iterator[{}]")


class S3Client(ClientBase):
    """A client of S3, or of a service that speaks its protocol.

    One client serves any number of threads. Calls release the GIL and answer Ctrl-C. Close it, or
    use it as a context manager.

    Args:
        region: Region to sign for; else ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the AWS config
            file, ``us-east-1``.
        endpoint_url: ``http(s)://host[:port]``; else ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``,
            the AWS config file (none of these if ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` is true),
            AWS itself.
        access_key_id: With ``secret_access_key``: fixed credentials; else the AWS default chain
            (environment, profile, SSO, process, web identity, container, instance).
        secret_access_key: See ``access_key_id``.
        session_token: Of temporary credentials.
        profile: Profile of the AWS config files (``AWS_CONFIG_FILE``,
            ``AWS_SHARED_CREDENTIALS_FILE``) to take credentials from, and region, endpoint and CAs
            where they are said nowhere else; else ``AWS_PROFILE``.
        anonymous: Do not sign requests.
        ca_file: PEM file of the CAs to trust instead of the system's; else ``AWS_CA_BUNDLE``,
            ``ca_bundle`` in the AWS config file.
        verify: False accepts any certificate: for tests only.
        addressing_style: ``"path"``, ``"virtual"`` or ``"auto"`` (virtual on AWS, path elsewhere).
        part_size: Bytes of a part of a multipart upload or of a ranged download, 5 MiB to 5 GiB;
            8 MiB, or ``KUMO_CRT_PART_SIZE``. Grows where an object would need over 10,000 parts.
        multipart_threshold: Larger uploads go in parts; 16 MiB, or ``part_size`` if that is more,
            or ``KUMO_CRT_MULTIPART_THRESHOLD``.
        max_connections: Requests at once; 16, or ``KUMO_CRT_MAX_CONNECTIONS``.
        memory_limit: Bytes of what is held in memory to be sent or opened, such as parts of
            streams, by all that the client does at once; else 64 MiB, two parts where they are
            larger than that, or ``KUMO_CRT_MEMORY_LIMIT``, by all of the process's clients that
            leave it open together. One part each operation may hold in any case.
        event_loops: Network threads of the process, decided by its first client; else
            ``KUMO_CRT_EVENT_LOOPS``, else one for two CPUs (hardware threads), at least one.
        max_attempts: Tries of a request, the first included, with jittered backoff; else
            ``KUMO_CRT_MAX_ATTEMPTS``, ``AWS_MAX_ATTEMPTS``; else 5, but 20 where the service asks
            to slow down, and 10 where one fails that has answered before (half a minute). What a
            `Repository` does waits for a minute then.
        connect_timeout: Seconds to connect; 5, or ``KUMO_CRT_CONNECT_TIMEOUT``.
        request_timeout: Seconds without a byte moving after which a connection is given up and the
            request tried again; 60, or ``KUMO_CRT_REQUEST_TIMEOUT``.
        deadline: Seconds after which a request is not tried again; 300, or ``KUMO_CRT_DEADLINE``.
        requester_pays: Agree to be charged for requests to buckets whose owners do not pay.
        expected_bucket_owner: Account id that has to own the buckets; else requests are refused.
        checksum_trailers: Send CRC32C behind large bodies, which then are read once, where the
            service confirms it (AWS, or one that has confirmed it for a part); else before them.
            True, or ``KUMO_CRT_CHECKSUM_TRAILERS`` (0 or 1).
        proxy: ``http://[user:password@]host:port`` of an HTTP proxy, or empty for none; else
            ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of its range or contradicts another.
        CredentialsError: There is no such profile.
    """

    put_object = _method(_operations.put_object)
    get_object = _method(_operations.get_object)
    head_object = _method(_operations.head_object)
    copy_object = _method(_operations.copy_object)
    delete_object = _method(_operations.delete_object)
    delete_objects = _method(_operations.delete_objects)
    list_objects = _listing(_bucket_operations.list_objects)
    list_object_versions = _listing(_bucket_operations.list_object_versions)
    list_multipart_uploads = _listing(_bucket_operations.list_multipart_uploads)
    abort_multipart_upload = _method(_bucket_operations.abort_multipart_upload)
    create_bucket = _method(_bucket_operations.create_bucket)
    delete_bucket = _method(_bucket_operations.delete_bucket)
    get_bucket_versioning = _method(_bucket_operations.get_bucket_versioning)
    put_bucket_versioning = _method(_bucket_operations.put_bucket_versioning)
    metrics = _method(_operations.metrics)

    def _run(self, task: Task[T]) -> T:
        return _engine.run(task, self._settings.max_connections, self._room)

    def _items(self, pages: Pages[T]) -> Iterator[T]:
        place = None
        while True:
            self._open()
            found, place = self._run(pages(place))
            yield from found
            if place is None:
                return

    def close(self) -> None:
        """Drops the connections; calls of other threads that are under way end first."""
        self._close_at_once()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


__all__ = ["S3Client"]
