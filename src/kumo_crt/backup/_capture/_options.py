"""RocksDB's OPTIONS file, as far as a backup must know it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from kumo_crt import _core

_SECTION = re.compile(r'^\[CFOptions "(.*)"\]\s*$', re.MULTILINE)
_WAL_DIR = re.compile(rb"^[ \t]*wal_dir=.*\n?", re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r"}


class OptionsFile(NamedTuple):
    """An OPTIONS file that was read.

    Attributes:
        name: Its name.
        content: Its bytes.
    """

    name: str
    content: bytes

    @property
    def _text(self) -> str:
        return self.content.decode("utf-8", "surrogateescape")

    @property
    def named_wal_dir(self) -> str:
        """What it names as the directory of the write-ahead logs; empty: nothing."""
        match = re.search(r"^[ \t]*wal_dir=(.*)$", self._text, re.MULTILINE)
        return unescaped(match[1].strip()) if match else ""

    def wal_dir(self, directory: Path) -> Path:
        """Where the write-ahead logs of the database in a directory are."""
        named = self.named_wal_dir
        # A relative one is relative to where the process was started: nobody knows.
        return Path(named) if named and os.path.isabs(named) else directory

    @property
    def buffers_log(self) -> bool:
        """Whether RocksDB keeps log records in its memory until it is told to write them."""
        return re.search(r"^[ \t]*manual_wal_flush=true\s*$", self._text, re.MULTILINE) is not None

    @property
    def adds_times(self) -> bool:
        """Whether the database puts a time behind each value (DBWithTTL)."""
        return b"TtlCompactionFilter" in self.content

    def column_families(self) -> set[str]:
        """Names of the column families that it describes."""
        return {unescaped(name) for name in _SECTION.findall(self._text)}

    def mended(self) -> bytes:
        """The content without a name of the place where the logs were: see `mended_options`."""
        return mended_options(self.content)


def mended_options(content: bytes) -> bytes:
    """Takes the name of the logs' directory out of the content of an OPTIONS file.

    A restored database that is opened with it would read the logs of the original there, and delete
    those that it does not need.
    """
    return _WAL_DIR.sub(b"", content)


def unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: _CONTROLS.get(match[1], match[1]), text)


def newest_options(directory: Path) -> OptionsFile | None:
    """The newest OPTIONS file; None without one.

    Raises:
        FileNotFoundError: It vanished while it was looked at.
    """
    found = numbered(directory, "options")
    if not found:
        return None
    path = found[-1][1]
    return OptionsFile(path.name, path.read_bytes())


def numbered(directory: Path, kind: str) -> list[tuple[int, Path]]:
    """Files of a kind in a directory, by number."""
    found = []
    for name in os.listdir(directory):
        found_kind, number = _core.classify_file(name)
        if found_kind == kind and number is not None:
            found.append((number, directory / name))
    return sorted(found)
