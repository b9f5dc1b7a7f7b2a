"""Exit codes, and which error gets which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumo_crt.exceptions import (
    AccessDeniedError,
    CredentialsError,
    EncryptionKeyError,
    KumoError,
    NotFoundError,
    RepositoryLockedError,
    SnapshotNotFoundError,
)

DONE = 0
FAILED = 1
USAGE = 2
DAMAGED = 3
NOT_FOUND = 10
LOCKED = 11
DENIED = 12
INTERRUPTED = 130
# And the number of the signal that ended it: 143 for SIGTERM, 129 for SIGHUP.
_SIGNALLED = 128

# Commands whose URL names a repository: a missing bucket means that there is none.
_REPOSITORY_COMMANDS = (
    *("backup", "restore", "snapshots", "verify", "repair", "repair-config", "drill"),
    *("prune", "pin", "unpin", "forget", "delete-snapshot"),
    *("export", "import"),
)


class UsageError(Exception):
    """The command line asks for something that cannot be."""


class CommandError(Exception):
    """A command failed, for a reason that is not an error of the library.

    Attributes:
        document: What there is to tell in JSON beside the error.
    """

    def __init__(self, message: str, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.document = document or {}


class OutputClosedError(Exception):
    """Whoever read standard output has gone away."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP; what answers Ctrl-C answers this.

    Attributes:
        number: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(error: BaseException, command: str | None) -> int:
    """The exit code for an error that a command raised."""
    match error:
        case Terminated():
            return _SIGNALLED + error.number
        case KeyboardInterrupt():
            return INTERRUPTED
        case SnapshotNotFoundError():
            return NOT_FOUND
        case NotFoundError() if command in _REPOSITORY_COMMANDS:
            return NOT_FOUND
        case RepositoryLockedError():
            return LOCKED
        case CredentialsError() | AccessDeniedError() | EncryptionKeyError():
            return DENIED
        case UsageError() | ValueError():
            return USAGE
    return FAILED


def describe(error: BaseException) -> str:
    """What to tell the user; what is not foreseen is named as what it is."""
    match error:
        case Terminated():
            return "terminated"
        case KeyboardInterrupt():
            return "interrupted"
        case KumoError() | UsageError() | CommandError() | ValueError():
            return str(error) or type(error).__name__
        case OSError() if error.strerror:
            names = [str(n) for n in (error.filename, error.filename2) if n is not None]
            return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror
        case MemoryError():
            return "out of memory"
    return f"{type(error).__name__}: {error} (unexpected: run again with -vv for the traceback)"
