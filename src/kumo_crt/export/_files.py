"""Files of entries: written while they are read from a database, and made into SST files again."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from kumo_crt import _core
from kumo_crt.backup._local._room import no_room
from kumo_crt.backup._local._scratch import MAX_OPEN_FILES
from kumo_crt.exceptions import IntegrityError, RepositoryError
from kumo_crt.export._encoding import line_of, parse_line
from kumo_crt.export._source import Entry

# The newest one that every RocksDB since 6.6 reads. A table of a newer one would also keep the
# application of a database that it is imported into from opening that again.
_FORMAT_VERSION = 5
# RocksDB's words where it would have to number the entries of a file.
_NUMBER_NEEDED = "Global seqno is required"


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is whole, and how many entries are in it."""

    path: Path
    entries: int


class _Writer(Protocol):
    def put(self, key: bytes, value: bytes) -> None: ...
    def finish(self) -> None: ...


class _SstWriter:
    def __init__(self, path: Path) -> None:
        from rocksdict import BlockBasedOptions, Options, SstFileWriter

        self._path = path
        options, table = Options(raw_mode=True), BlockBasedOptions()
        table.set_format_version(_FORMAT_VERSION)
        options.set_block_based_table_factory(table)
        self._writer: Any = SstFileWriter(options)
        try:
            self._writer.open(str(path))
        except Exception as error:
            raise self._failure(error) from error

    def put(self, key: bytes, value: bytes) -> None:
        try:
            self._writer[key] = value
        except Exception as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        try:
            self._writer.finish()
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> Exception:
        full = no_room(error, self._path)
        return full or RepositoryError(f"{self._path}: RocksDB cannot write it: {error}")


class _LineWriter:
    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "xb")  # noqa: SIM115

    def put(self, key: bytes, value: bytes) -> None:
        self._file.write(line_of(key, value))

    def finish(self) -> None:
        self._file.close()


_WRITERS: Mapping[str, Callable[[Path], _Writer]] = {"sst": _SstWriter, "jsonl": _LineWriter}


def write_next(
    entries: Iterator[Entry], encoding: str, path: Path, wanted_bytes: int
) -> Written | None:
    """Writes the next entries to a file, until it has about so many bytes; None at their end."""
    first = next(entries, None)
    if first is None:
        return None
    writer = _WRITERS[encoding](path)
    size = count = 0
    for key, value in itertools.chain((first,), entries):
        writer.put(key, value)
        count += 1
        size += len(key) + len(value)
        if size >= wanted_bytes:
            break
    writer.finish()
    return Written(path, count)


def check_table(path: Path, entries: int, key: str) -> None:
    """Looks whether a downloaded SST file holds what the manifest says.

    Raises:
        IntegrityError: It does not.
    """
    try:
        found = _core.sst_properties(path)
    except _core.RocksDBFormatError as error:
        raise IntegrityError(f"{key}: is no SST file: {error}") from error
    if found.num_entries != entries:
        raise IntegrityError(f"{key}: {found.num_entries} entries, the manifest says {entries}")


def check_apart(tables: Sequence[Path], scratch: Path, where: str) -> None:
    """Looks whether no key is in two SST files, nor between two keys of another.

    RocksDB takes files that overlap, and of two values of a key the later one. It has to number
    them for that (`ExternalSstFileIngestionJob`), which an empty database here forbids. It gets
    links to the files, so that no data is copied.

    Raises:
        IntegrityError: Two overlap.
        OSError: There is no room to find out.
        RepositoryError: RocksDB cannot open them.
    """
    from rocksdict import IngestExternalFileOptions, Options, Rdict

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_max_open_files(MAX_OPEN_FILES)
    ingestion = IngestExternalFileOptions()
    ingestion.set_move_files(True)
    ingestion.set_allow_global_seqno(False)
    links = [table.with_suffix(".link") for table in tables]
    try:
        for table, link in zip(tables, links, strict=True):
            _link(table, link)
        database = Rdict(str(scratch), options)
        try:
            database.ingest_external_file([str(link) for link in links], ingestion)
        finally:
            database.close()
    except Exception as error:
        if _NUMBER_NEEDED in str(error):
            raise IntegrityError(
                f"{where}: its SST files overlap: they must be in the order of their keys, and "
                "each key there once"
            ) from error
        raise no_room(error, scratch) or RepositoryError(
            f"{where}: whether its SST files overlap cannot be found out: {error}"
        ) from error
    finally:
        for link in links:
            link.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source, link)
    except OSError:  # a file system without links
        shutil.copyfile(source, link)


class Span(NamedTuple):
    """First and last key of a file."""

    first: bytes
    last: bytes


def table_of_lines(path: Path, table: Path, entries: int, key: str) -> Span:
    """Makes an SST file of a file of lines.

    Raises:
        IntegrityError: A line is no entry, they are not in order, or not as many as they should be.
    """
    count = 0
    first: bytes | None = None
    before: bytes | None = None
    writer = _SstWriter(table)
    with open(path, "rb") as lines:
        for count, line in enumerate(lines, 1):
            try:
                found, value = parse_line(line)
            except ValueError as error:
                raise IntegrityError(f"{key}, line {count}: {error}") from None
            if before is not None and found <= before:
                raise IntegrityError(
                    f"{key}, line {count}: its key {found[:80]!r} is not behind that of the line "
                    "before: lines must be in the order of their keys, and each key there once"
                )
            first, before = found if first is None else first, found
            writer.put(found, value)
    if count != entries or first is None or before is None:
        raise IntegrityError(f"{key}: {count} lines, the manifest says {entries}")
    writer.finish()
    return Span(first, before)
