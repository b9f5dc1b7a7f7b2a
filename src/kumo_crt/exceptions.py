"""The exception tree.

::

    KumoError
    ├── S3Error                     the service answered with an error
    │   ├── NotFoundError           (also FileNotFoundError)
    │   ├── AccessDeniedError       (also PermissionError)
    │   │   └── ExpiredCredentialsError   (also CredentialsError)
    │   ├── ArchivedError           the object is in an archive, and has to be thawed first
    │   ├── PreconditionFailedError
    │   └── ThrottledError
    ├── ChecksumMismatchError       bytes are not the ones that were stored
    ├── TransportError              no answer (also ConnectionError)
    ├── CredentialsError            none found, or they could not be had
    ├── DecodeError                 an event stream is damaged
    └── RepositoryError
        ├── SnapshotNotFoundError
        ├── IntegrityError          a committed backup is damaged
        ├── RepositoryLockedError
        ├── LeaseExpiredError       work took so long that others thought it dead
        ├── EnvironmentMismatchError
        ├── EncryptionKeyError      no key, not the repository's, or none where one was given
        └── FormatError             a document that this version cannot accept
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes a while to load
if TYPE_CHECKING:
    from typing import Any


class KumoError(Exception):
    """Base of every error that kumo_crt raises on purpose.

    But for arguments that make no sense (`ValueError`, `TypeError`), which nothing was done with,
    for the caller's own files (`OSError`), and for what a callback raises.

    Attributes:
        valid_bytes: Of a download into a caller's buffer that failed: how many bytes from the
            start arrived whole (they were not compared with the stored checksum); 0 if all arrived
            and is not what is stored. Else None.
    """

    valid_bytes: int | None = None


class S3Error(KumoError):
    """The service answered with an error.

    Attributes:
        code: S3's error code, such as ``"NoSuchKey"``; the HTTP status where S3 gave none.
        status: HTTP status, 0 where the error came inside a successful answer.
        message: What the service said, and what to do about it where that is known.
        request_id: The service's id of the request, for its support; empty where absent.
    """

    def __init__(self, code: str, status: int, message: str, request_id: str = "") -> None:
        super().__init__(code, status, message, request_id)
        self.code = code
        self.status = status
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        end = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.code} ({self.status}): {self.message}{end}"


class NotFoundError(S3Error, FileNotFoundError):
    """There is no such bucket, object, version or upload."""


class AccessDeniedError(S3Error, PermissionError):
    """The service refused these credentials."""


class ArchivedError(S3Error):
    """The object is in an archive tier (Glacier) and cannot be read until it was thawed."""


class PreconditionFailedError(S3Error):
    """An ``if_match`` or ``if_none_match`` did not hold: nothing was written."""


class ThrottledError(S3Error):
    """The service asked to slow down, and went on asking after every retry."""


class ChecksumMismatchError(KumoError):
    """Bytes sent or received do not have the checksum that is stored or was sent."""


class TransportError(KumoError, ConnectionError):
    """There was no usable answer: refused, cut, timed out, TLS."""


class CredentialsError(KumoError):
    """No credentials were found, or the source of them failed."""


class ExpiredCredentialsError(AccessDeniedError, CredentialsError):
    """The service says that the credentials have expired, and there were no newer ones."""


class DecodeError(KumoError):
    """An event stream is damaged, or ended inside a message.

    Attributes:
        offset: Where in the stream the message begins that cannot be read, in bytes.
        messages: The `kumo_crt.event_stream.Message` objects that came whole before it in the same
            call.
    """

    def __init__(self, problem: str, offset: int = 0, messages: list[Any] | None = None) -> None:
        super().__init__(problem, offset, messages or [])
        self.problem = problem
        self.offset = offset
        self.messages = messages or []

    def __str__(self) -> str:
        return f"event stream, offset {self.offset}: {self.problem}"


class RepositoryError(KumoError):
    """Something about a backup repository."""


class SnapshotNotFoundError(RepositoryError):
    """The repository, or the snapshot in it, does not exist."""


class IntegrityError(RepositoryError):
    """A committed snapshot names data that is missing or damaged."""


class RepositoryLockedError(RepositoryError):
    """The database or the repository is in use by someone else."""


class LeaseExpiredError(RepositoryError):
    """A backup or prune could not renew its lease in time, and stopped: run it again."""


class EnvironmentMismatchError(RepositoryError):
    """The repository belongs to another environment than this client."""


class EncryptionKeyError(RepositoryError):
    """The key of an encrypted repository is missing, cannot be had, or is another one's."""


class FormatError(RepositoryError):
    """A document in the repository is malformed, hostile, of a newer version, or lost."""
