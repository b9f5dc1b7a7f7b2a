"""Files of databases that have what a repository has lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _names
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import SnapshotFile

_KINDS = ("sst", "blob", "wal", "manifest", "options")
_log = logging.getLogger("kumo_crt.backup")


class Sources:
    """Files that may be the wanted ones.

    Args:
        files: All of them.
        key: The repository's, if it is encrypted.
    """

    def __init__(self, files: Iterable[CapturedFile], key: Key | None) -> None:
        self._key = key
        self._by_size: dict[int, list[CapturedFile]] = {}
        for file in files:
            # Immutable or known by all of their content: a database may be open meanwhile.
            if file.kind in _KINDS:
                self._by_size.setdefault(file.size, []).append(file)

    def find(self, file: SnapshotFile) -> Path | None:
        """A file with the size, identity and CRC32C that are wanted."""
        # A blob file has no identity but its number.
        candidates = [
            candidate
            for candidate in self._by_size.get(file.size, ())
            if candidate.kind == file.kind and (file.kind != "blob" or candidate.path == file.path)
        ]
        for candidate in sorted(candidates, key=lambda c: c.path != file.path):
            try:
                if (
                    _names.is_name_of(file, candidate, self._key)
                    and _names.crc32c_of(candidate.source) == file.crc32c
                ):
                    return candidate.source
            except OSError as error:
                _log.warning("a file that may be the wanted one cannot be read: %s", error)
        return None


def files_in(directories: Iterable[Path]) -> Iterator[CapturedFile]:
    """Files of directories."""
    for directory in directories:
        for path in sorted(directory.iterdir()):
            kind, number = _core.classify_file(path.name)
            if kind in _KINDS and path.is_file():
                yield CapturedFile(path.name, kind, number or 0, path, path.stat().st_size)
