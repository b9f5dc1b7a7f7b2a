"""A database as one tar, made of its files while it is sent (docs/format.md, "Archives")."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._documents import VERSION
from kumo_crt.exceptions import IntegrityError, RepositoryError

INDEX = "kumo-index.json"
BLOCK = 512
# What tar can write in octal digits; larger sizes are binary.
_MAX_OCTAL = 1 << 33
# One for all, as the same files have to give the same archive; of 1970 tar would warn.
_TIME = 946_684_800
_END = bytes(2 * BLOCK)
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """What an archive is of.

    Attributes:
        db_id: RocksDB's id of the database.
        sequence_number: The last one in it.
        column_families: Names.
    """

    db_id: str
    sequence_number: int
    column_families: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something in an archive that is not padding: bytes that are known, or those of a file."""

    start: int
    size: int
    content: bytes | CapturedFile | None  # None: the index, which is known last

    @property
    def stop(self) -> int:
        return self.start + self.size


class Archive:
    """The bytes of an archive.

    Args:
        subject: What it is of.
        files: The database's files, in the order in which they are to be.
        names: What each would be called as a data object of its own, by path.

    Attributes:
        name: Of its data object: follows from everything but the files' content.
        size: Bytes.
        files: As given.
        offsets: Where each file's content begins, by path.
        releases: Files are given up once they are stored.
    """

    def __init__(
        self, subject: Subject, files: Sequence[CapturedFile], names: Mapping[str, str]
    ) -> None:
        self.files = tuple(files)
        self.releases = False
        self.offsets: dict[str, int] = {}
        self._subject = subject
        self._names = names
        self._pieces: list[_Piece] = []
        # CRC32C of what has been read, and what is stored: by path and place in the file.
        self._read: dict[str, dict[int, tuple[int, int]]] = {file.path: {} for file in files}
        self._stored: dict[str, dict[int, int]] = {file.path: {} for file in files}
        end = 0
        for file in self.files:
            self._pieces.append(_Piece(end, BLOCK, _header(file.path, file.size)))
            self._pieces.append(_Piece(end + BLOCK, file.size, file))
            self.offsets[file.path] = end + BLOCK
            end = _padded(end + BLOCK + file.size)
        self._index_offset = end + BLOCK
        blank = self._index(dict.fromkeys(self.offsets, 0))
        self._pieces.append(_Piece(end, BLOCK, _header(INDEX, len(blank))))
        self._pieces.append(_Piece(end + BLOCK, len(blank), None))
        self.size = _padded(end + BLOCK + len(blank)) + len(_END)
        self.name = f"archive-{hashlib.sha256(blank).hexdigest()}-{self.size}.tar"
        self._starts = [piece.start for piece in self._pieces]

    def _index(self, crcs: Mapping[str, int]) -> bytes:
        """The index; as long whatever the CRC32Cs are."""
        document = {
            "format": "kumo-archive",
            "version": VERSION,
            "db_id": self._subject.db_id,
            "sequence_number": self._subject.sequence_number,
            "column_families": list(self._subject.column_families),
            "files": [
                {
                    "path": file.path,
                    "kind": file.kind,
                    "size": file.size,
                    "offset": self.offsets[file.path],
                    "crc32c": f"{crcs[file.path]:08x}",
                    "name": self._names[file.path],
                }
                for file in self.files
            ],
            "index_offset": self._index_offset,
        }
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"

    # -- bytes -----------------------------------------------------------------------------

    def read(self, start: int, stop: int) -> bytearray:
        """Makes the bytes from a start to a stop.

        Raises:
            IntegrityError: A file has changed, or has not the CRC32C that RocksDB recorded.
            RepositoryError: A file has been given up.
        """
        if start == 0:
            self._stored = {path: {} for path in self._stored}  # it begins anew
        content = bytearray(stop - start)
        view = memoryview(content)
        for piece, first, last in self._overlapping(start, stop):
            part = view[piece.start + first - start : piece.start + last - start]
            if isinstance(piece.content, CapturedFile):
                self._read_file(piece.content, first, part)
            elif piece.content is None:
                part[:] = self._index(self.crcs())[first:last]
            else:
                part[:] = piece.content[first:last]
        return content

    def _overlapping(self, start: int, stop: int) -> Iterator[tuple[_Piece, int, int]]:
        """Pieces of a range, and what of each is in it."""
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._pieces)):
            piece = self._pieces[index]
            if piece.start >= stop:
                break
            first, last = max(start - piece.start, 0), min(stop, piece.stop) - piece.start
            if first < last:
                yield piece, first, last

    def _read_file(self, file: CapturedFile, at: int, into: memoryview) -> None:
        done = 0
        try:
            with open(file.source, "rb", buffering=0) as opened:
                fd = opened.fileno()
                size = os.fstat(fd).st_size
                while done < len(into) and (count := os.preadv(fd, [into[done:]], at + done)):
                    done += count
        except FileNotFoundError:
            if not file.temporary:
                raise
            raise RepositoryError(
                f"{file.path}: was sent, and given up to free its space, and now the upload has to "
                "begin again: run the backup again"
            ) from None
        if size != file.size or done < len(into):
            raise IntegrityError(
                f"{file.source}: {size} bytes, it had {file.size} when the backup began"
            )
        self._read[file.path][at] = len(into), _core.crc32c(into)
        if at + done == file.size:
            self._known_crc(file)

    # -- checksums -------------------------------------------------------------------------

    def crcs(self) -> dict[str, int]:
        """CRC32C of every file, by path; reads those that have not been read.

        Raises:
            IntegrityError: A file has changed, or has not the CRC32C that RocksDB recorded.
            RepositoryError: A file has been given up.
        """
        for read in self.reads():
            read()
        found = {file.path: self._known_crc(file) for file in self.files}
        return {path: crc for path, crc in found.items() if crc is not None}  # all of them

    def reads(self) -> Iterator[Callable[[], None]]:
        """What `crcs` has to do first, in small steps."""
        block = memoryview(bytearray(_READ))
        for file in self.files:
            if self._known_crc(file) is None:
                for at in range(0, file.size, _READ):
                    yield partial(self._read_file, file, at, block[: file.size - at])

    def know(self, crcs: Mapping[str, int]) -> None:
        """Takes CRC32Cs of whole files from somebody who has just read them, by path."""
        for file in self.files:
            self._read[file.path] = {0: (file.size, crcs[file.path])}

    def crc32c(self) -> int:
        """CRC32C of the archive; reads what of it has not been read."""
        crcs = self.crcs()
        value, end = 0, 0
        for piece in self._pieces:
            value = _core.crc32c(bytes(piece.start - end), value)
            if isinstance(piece.content, CapturedFile):
                value = _core.crc32c_combine(value, crcs[piece.content.path], piece.size)
            else:
                value = _core.crc32c(piece.content or self._index(crcs), value)
            end = piece.stop
        return _core.crc32c(bytes(self.size - end), value)

    def _known_crc(self, file: CapturedFile) -> int | None:
        """CRC32C of a file that has been read as a whole, in whatever order."""
        read = self._read[file.path]
        at = value = 0
        while at < file.size:
            if at not in read:
                return None
            size, crc = read[at]
            value = _core.crc32c_combine(value, crc, size)
            at += size
        return checked(file, value)

    # -- what is stored --------------------------------------------------------------------

    def sent(self, start: int, stop: int) -> None:
        """Notes that a range is stored; gives up files that are as a whole."""
        for piece, first, last in self._overlapping(start, stop):
            file = piece.content
            if self.releases and isinstance(file, CapturedFile):
                stored = self._stored[file.path]
                stored[first] = last - first
                at = 0
                while at in stored:
                    at += stored[at]
                if at == file.size:
                    file.release()

    def release(self) -> None:
        """Gives up all files."""
        for file in self.files:
            file.release()


def checked(file: CapturedFile, crc: int) -> int:
    """Compares a file's CRC32C with the one that RocksDB recorded when it wrote the file."""
    if file.checksum not in (None, crc):
        raise IntegrityError(
            f"{file.path}: has CRC32C {crc:08x}, and RocksDB recorded {file.checksum:08x} when it "
            "wrote the file: it is damaged on this disk. No snapshot was made; the last one may "
            "have the file as it was (kumo-crt restore)"
        )
    return crc


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _header(name: str, size: int) -> bytes:
    """A header of POSIX.1-1988 (ustar)."""
    number = b"%011o\0" % size if size < _MAX_OCTAL else b"\x80" + size.to_bytes(11, "big")
    before = b"".join(
        (
            name.encode().ljust(100, b"\0"),
            b"0000644\0",
            b"0000000\0" * 2,
            number,
            b"%011o\0" % _TIME,
        )
    )
    after = b"".join((b"0", bytes(100), b"ustar\0", b"00", bytes(64), b"0000000\0" * 2, bytes(167)))
    checksum = sum(before) + sum(b" " * 8) + sum(after)
    return b"".join((before, b"%06o\0 " % checksum, after))
