"""Says what to do where files of a database may not be read, or are gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kumo_crt.exceptions import KumoError, RepositoryError

_GONE = (
    "is gone: somebody has opened the database, or checkpoint, meanwhile, or deletes from it. "
    "Nothing was committed: run the backup again, of a database that is open with live=True "
    "(kumo-crt backup finds out by itself)"
)
_DENIED = (
    "{}: run the backup as the user that the database belongs to, or as root, or let this user "
    "read all of its files"
)


@contextlib.contextmanager
def may_be_read() -> Iterator[None]:
    """Makes a clear error of a file that cannot be read in a `with` block, or is gone.

    Raises:
        RepositoryError: There is one; names it.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        if isinstance(error, KumoError) or error.filename is None:
            raise
        advice = _GONE if isinstance(error, FileNotFoundError) else _DENIED
        raise RepositoryError(f"{error.filename}: {advice.format(error.strerror)}") from error
