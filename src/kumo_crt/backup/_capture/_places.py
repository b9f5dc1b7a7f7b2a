"""The directories that the files of one database are in."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumo_crt.exceptions import RepositoryError

# What RocksDB writes to its LOG when it is opened with db_paths; OPTIONS does not name them.
_DATA_PATH = re.compile(rb" SST files in (/.+) dir, Total Num: ")
# Where the database was then: the LOG of a copied directory is that of the original.
_OWN_PATH = re.compile(rb" Recovered from manifest file:(/.+)/MANIFEST-[0-9]+ ")
_LOG_START = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Places:
    """Where table and blob files may be.

    Attributes:
        directory: The database's own directory.
        named: Others (db_paths, cf_paths) that the caller knows of.
    """

    directory: Path
    named: tuple[Path, ...] = ()

    def find(self, name: str) -> Path:
        """The place of a file.

        Raises:
            FileNotFoundError: It is in none of them.
        """
        for path in self.of(name):
            if path.exists():
                return path
        raise FileNotFoundError(2, os.strerror(2), str(self.directory / name))

    def of(self, name: str) -> Iterator[Path]:
        """The places where a file may be."""
        yield self.directory / name
        for place in self.named or self._logged:
            yield place / name

    @functools.cached_property
    def _logged(self) -> tuple[Path, ...]:
        """Directories that RocksDB said it uses, when it was opened last."""
        try:
            with open(self.directory / "LOG", "rb") as log:
                start = log.read(_LOG_START)
        except OSError:
            return ()
        own = _OWN_PATH.search(start)
        if own is None or Path(os.fsdecode(own[1])).resolve() != self.directory:
            return ()
        found = dict.fromkeys(Path(os.fsdecode(name)) for name in _DATA_PATH.findall(start))
        return tuple(path for path in found if path.resolve() != self.directory)

    def missing(self, name: str) -> RepositoryError:
        """The error for a live file that is in none of them."""
        places = ", ".join(str(path.parent) for path in self.of(name))
        return RepositoryError(
            f"{self.directory}: the MANIFEST names {name}, and it is not there (looked for in "
            f"{places}). If the database keeps files in several directories (db_paths, cf_paths), "
            "name the others (data_paths, --data-path)"
        )


def places_of(directory: Path, named: Sequence[str | os.PathLike[str]]) -> Places:
    """The places of a database.

    Raises:
        RepositoryError: A directory that was named does not exist.
    """
    paths = tuple(Path(path).resolve() for path in named)
    for path in paths:
        if not path.is_dir():
            raise RepositoryError(f"{path}: no such directory (data_paths, --data-path)")
    return Places(directory, paths)
