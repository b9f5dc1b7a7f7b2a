"""Says what could not be done, and what to do, where the operating system forbids something."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from kumo_crt.exceptions import RepositoryError

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def allowed(place: Path, what: str, advice: str) -> Iterator[None]:
    """Makes a clear error of a refusal by the operating system in a `with` block.

    Args:
        place: What the user has named.
        what: What cannot be done with it.
        advice: What to do.

    Raises:
        RepositoryError: It was refused; names the file, too, if that is another one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DENIED:
            raise
        raise RepositoryError(f"{place}: {what}: {reason(error, place)}: {advice}") from error


def reason(error: OSError, place: Path | None = None) -> str:
    """The system's words, with the file that they are about, unless that is `place`."""
    names = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes) and os.fsdecode(name) != str(place)
    ]
    return ": ".join([" -> ".join(names)] * bool(names) + [error.strerror or str(error)])
