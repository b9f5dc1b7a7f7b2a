"""Says what to do where files of a database may not be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kumo_crt.exceptions import KumoError, RepositoryError


@contextlib.contextmanager
def may_be_read() -> Iterator[None]:
    """Makes a clear error of a file that this user may not read in a `with` block.

    Raises:
        RepositoryError: There is one; names it.
    """
    try:
        yield
    except PermissionError as error:
        if isinstance(error, KumoError) or error.filename is None:
            raise
        raise RepositoryError(
            f"{error.filename}: {error.strerror}: run the backup as the user that the database "
            "belongs to, or as root, or let this user read all of its files"
        ) from error
