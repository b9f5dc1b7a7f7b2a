"""What makes backups of a database expensive, and what can be done about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._capture._options import OptionsFile, newest_options
from kumo_crt.backup._local._lock import database_lock
from kumo_crt.exceptions import RepositoryError

# From these on it is told: such files are soon sent once more, and each column family gives a file
# with every checkpoint.
MANY_FILES = 256
TINY = 1 << 20
MANY_FAMILIES = 100
# So many small files of a column family are worth that all of it is written once more.
_SCATTERED = 8

# Things that an application brings along as code: without it a compaction would be wrong.
_MERGE = re.compile(r"^\s*merge_operator=(?!nullptr\s*$).+$", re.M)
_FILTER = re.compile(r"^\s*compaction_filter(?:_factory)?=(?!nullptr\s*$).+$", re.M)
_COMPARATOR = re.compile(
    r"^\s*comparator=(?!(?:leveldb\.BytewiseComparator|rocksdict)\s*$)(.+)$", re.M
)


def warnings_of(manifest: _core.ManifestState) -> tuple[str, ...]:
    """What an operator should know about the shape of a database."""
    found = []
    level_0 = [sst.size for sst in manifest.sst_files if sst.level == 0]
    if len(level_0) >= MANY_FILES and sum(level_0) < TINY * len(level_0):
        mean = sum(level_0) // len(level_0)
        found.append(
            f"{len(level_0)} files of level 0 have {mean} bytes on average, "
            "and what they hold is sent once more when they are compacted away: compact the "
            "database first (compact_first=True, --compact-first), or let it flush less often"
        )
    if len(manifest.column_families) >= MANY_FAMILIES:
        found.append(
            f"{len(manifest.column_families)} column families: each that was written to gives a "
            "small file of its own with every checkpoint: fewer column families, or keys with a "
            "prefix, make backups cheaper"
        )
    return tuple(found)


def compact_open(database: Any, *, everything: bool = False) -> None:
    """Compacts all column families of an open `rocksdict.Rdict`.

    Args:
        database: It.
        everything: Write all of them once more, what is on the last level already as well.
    """
    # The caller has it: the database is one of its objects.
    from rocksdict import BottommostLevelCompaction, CompactOptions

    forced = CompactOptions()
    forced.set_bottommost_level_compaction(BottommostLevelCompaction.force())
    for _, family in families_of(database):
        family.compact_range(None, None, forced if everything else CompactOptions())
    if everything:
        return
    scattered = set(_scattered(Path(database.path())))
    for name, family in families_of(database):
        if name in scattered:
            family.compact_range(None, None, forced)


def _scattered(path: Path) -> Iterator[str]:
    """Column families that still have many small files.

    Files that do not overlap, as of keys that only grow, are moved to the last level as they are.
    """
    manifest = _core.read_manifest(path / _core.read_current(path / "CURRENT"))
    for family in manifest.column_families:
        sizes = [sst.size for sst in manifest.sst_files if sst.column_family_id == family.id]
        if len(sizes) >= _SCATTERED and sum(sizes) < TINY * len(sizes):
            yield family.name


def families_of(database: Any) -> Iterator[tuple[str, Any]]:
    """All column families of an open `rocksdict.Rdict`, with their names."""
    from rocksdict import Options

    for name in database.list_cf(database.path(), Options(raw_mode=True)):
        yield name, database.get_column_family(name)


def compact_closed(path: Path, *, everything: bool = False) -> None:
    """Opens a closed database with the options that it has itself, and compacts it.

    Args:
        path: Its directory.
        everything: See `compact_open`.

    Raises:
        RepositoryLockedError: It is open in some process.
        RepositoryError: It cannot be compacted without its application.
    """
    if not (path / "LOCK").exists():
        raise RepositoryError(
            f"{path}: is no database that was opened, perhaps a checkpoint, and is left as it is: "
            "compact the database that it comes from (compact_first=True, --compact-first)"
        )
    with database_lock(path):
        _check_options(path)
    try:
        from rocksdict import Rdict
    except ImportError:
        raise RepositoryError(
            "compact_first=True, --compact-first: rocksdict opens the database for it: "
            "pip install 'kumo-crt[rocksdb]'"
        ) from None
    try:
        database = Rdict(os.fspath(path))
    except Exception as error:
        raise RepositoryError(
            f"{path}: cannot be opened to be compacted: {error}. Compact it with its application"
        ) from error
    try:
        try:
            compact_open(database, everything=everything)
        finally:
            database.close()  # RocksDB tells here what its threads have met
    except Exception as error:
        raise RepositoryError(f"{path}: the compaction failed: {error}") from error


def has_merge_operator(path: Path) -> bool:
    """Whether the options of a database name one."""
    options = newest_options(path)
    return options is not None and _MERGE.search(_text(options)) is not None


def _text(options: OptionsFile) -> str:
    return options.content.decode("utf-8", "replace")


def _check_options(path: Path) -> None:
    options = newest_options(path)
    if options is None:
        raise RepositoryError(f"{path}: has no OPTIONS file: compact it with its application")
    text = _text(options)
    for match in (code.search(text) for code in (_MERGE, _FILTER, _COMPARATOR)):
        if match is not None:
            raise RepositoryError(
                f"{path}: its options name code that only its application has "
                f"({match[0].strip()[:100]}): compact it there"
            )
    manifest = _core.read_manifest(path / _core.read_current(path / "CURRENT"))
    if any(sst.path_id for sst in manifest.sst_files):
        raise RepositoryError(
            f"{path}: keeps files in several directories (db_paths), which its options do not "
            "name: compact it with its application"
        )
