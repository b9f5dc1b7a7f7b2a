"""Opens restored databases, and tells what is in the way of that from damage."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kumo_crt import _core
from kumo_crt.backup._capture import is_raw
from kumo_crt.backup._local._room import no_room
from kumo_crt.backup._local._scratch import MAX_OPEN_FILES
from kumo_crt.exceptions import RepositoryError

Opener = Callable[[str], Any]
# RocksDB's own words for what this process may not do, or has no memory for.
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# And for what an application brings along, which only an opener of its own has.
_CODE = ("merge_operator", "does not match existing comparator")
# And for tables that it is too old for, or that are damaged.
_FORMAT = re.compile(r"unsupported format_version: (\d{1,9})")


def default_opener() -> Opener:
    """Opens databases of plain bytes, and those of rocksdict's own mode."""
    try:
        from rocksdict import Options, Rdict
    except ImportError:
        raise RepositoryError(
            "a drill opens the restored database, which needs rocksdict: pip install "
            "'kumo-crt[rocksdb]'"
        ) from None

    def options(raw: bool) -> Any:
        made = Options(raw_mode=raw)
        made.create_if_missing(False)
        made.set_max_open_files(MAX_OPEN_FILES)
        return made

    def opened(path: str) -> Any:
        raw = is_raw(Path(path))
        families = {name: options(raw) for name in Rdict.list_cf(path, options(raw))}
        return Rdict(path, options(raw), column_families=families)

    return opened


def check_fault(error: Exception, target: Path, *, ours: bool) -> None:
    """Raises what RocksDB met and is no fault of the snapshot's.

    Args:
        error: RocksDB's.
        target: The restored database.
        ours: It was opened by `default_opener`.

    Raises:
        OSError: There is no room for it.
        RepositoryError: It cannot be drilled here.
    """
    if (full := no_room(error, target)) is not None:
        raise full from error
    if any(os.strerror(number) in str(error) for number in _LIMITS):
        raise RepositoryError(
            f"RocksDB cannot open or read the restored database here: {error}: give this process "
            "more (ulimit -n, ulimit -v, limits of its service), and run the drill again: it says "
            "nothing about the snapshot"
        ) from error
    if ours and any(words in str(error) for words in _CODE):
        raise only_its_application(str(error)) from error
    match = _FORMAT.search(str(error))
    if ours and match and _has_tables_of(target, int(match[1])):
        raise RepositoryError(
            f"the restored database has tables of format_version {match[1]}, which the RocksDB of "
            "this rocksdict is too old for: use a newer one, or drill it from its application "
            "(Repository.drill, opener=): this says nothing about the snapshot"
        ) from error


def _has_tables_of(target: Path, version: int) -> bool:
    """Whether there are tables of a format, and they are sound as far as that goes."""
    for table in target.glob("*.sst"):
        with contextlib.suppress(OSError, _core.RocksDBFormatError):
            if _core.sst_properties(table).format_version == version:
                return True
    return False


def only_its_application(why: str) -> RepositoryError:
    """The error for a database that nobody else can open."""
    return RepositoryError(
        "the restored database needs a comparator or merge operator that only its application "
        f"has: {why.rstrip('.')}. Drill it from there (Repository.drill, opener=), and verify it "
        "with level 'full' here: this says nothing about the snapshot"
    )
