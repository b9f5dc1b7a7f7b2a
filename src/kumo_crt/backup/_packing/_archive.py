"""A database as one tar, made of its files while it is sent (docs/format.md, "Archives")."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._documents import VERSION
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._packing._members import Known, Member, SealedMember, Step

INDEX = "kumo-index.json"
SEALED_INDEX = "kumo-index.sealed"
# Feature of an index.
SEALED = "sealed"
BLOCK = 512
# What tar can write in octal digits; larger sizes are binary.
_MAX_OCTAL = 1 << 33
# One for all, as the same files have to give the same archive; of 1970 tar would warn.
_TIME = 946_684_800
_END = bytes(2 * BLOCK)


class Subject(NamedTuple):
    """What an archive is of.

    Attributes:
        db_id: RocksDB's id of the database.
        sequence_number: The last one in it.
        column_families: Names.
    """

    db_id: str
    sequence_number: int
    column_families: Sequence[str]


class _Piece(NamedTuple):
    """Something in an archive that is not padding."""

    start: int
    size: int
    content: bytes | Member | None  # None: the index, which is known last

    @property
    def stop(self) -> int:
        return self.start + self.size


class Archive:
    """The bytes of an archive.

    Args:
        subject: What it is of.
        files: The database's files, in the order in which they are to be.
        names: What each would be called as a data object of its own, by path.
        key: The repository's, if it is encrypted: files and index are sealed.

    Attributes:
        name: Of its data object: follows from everything but the files' content.
        size: Bytes.
        files: As given.
        offsets: Where what is stored of each file begins, by path.
        releases: Files are given up once they are stored.
    """

    def __init__(
        self,
        subject: Subject,
        files: Sequence[CapturedFile],
        names: Mapping[str, str],
        key: Key | None = None,
    ) -> None:
        self.files = tuple(files)
        self.releases = False
        self.offsets: dict[str, int] = {}
        self._subject = subject
        self._names = names
        self._key = key
        self._members = {
            file.path: Member(file)
            if key is None
            else SealedMember(file, f"{number:06d}.sealed", key)
            for number, file in enumerate(self.files)
        }
        self._stored: dict[str, dict[int, int]] = {file.path: {} for file in files}
        self._sealed_index: bytearray | None = None
        self._pieces: list[_Piece] = []
        self._end = 0
        for path, member in self._members.items():
            self.offsets[path] = self._append(member.name, member.size, member)
        self._index_offset = self._end + BLOCK
        blank = self._index_document(self.blank())
        if key is None:
            self._append(INDEX, len(blank), None)
        else:
            size = _core.sealed_size(len(blank))
            self._append(SEALED_INDEX, size, None)
            guide = _guide(self._index_offset, size, self._end + BLOCK)
            self._append(INDEX, len(guide), guide)
        self.size = self._end + len(_END)
        digest = _sealing.name_of(key, hashlib.sha256(blank).hexdigest())
        self.name = f"archive-{digest}-{self.size}.tar"
        self._starts = [piece.start for piece in self._pieces]

    def _append(self, name: str, size: int, content: bytes | Member | None) -> int:
        """Adds a member; returns where its content begins."""
        start = self._end + BLOCK
        self._pieces.append(_Piece(self._end, BLOCK, _header(name, size)))
        self._pieces.append(_Piece(start, size, content))
        self._end = _padded(start + size)
        return start

    def _index_document(self, known: Mapping[str, Known]) -> bytes:
        """The index; as long whatever is known of the files."""
        document: dict[str, object] = {
            "format": "kumo-archive",
            "version": VERSION,
            "db_id": self._subject.db_id,
            "sequence_number": self._subject.sequence_number,
            "column_families": list(self._subject.column_families),
            "files": [self._entry(file, known[file.path]) for file in self.files],
        }
        if self._key is None:
            document["index_offset"] = self._index_offset
        return _json(document)

    def _entry(self, file: CapturedFile, known: Known) -> dict[str, object]:
        entry: dict[str, object] = {
            "path": file.path,
            "kind": file.kind,
            "size": file.size,
            "offset": self.offsets[file.path],
            "crc32c": f"{known.crc32c:08x}",
        }
        if known.sealed is not None:
            entry["sealed_crc32c"] = f"{known.sealed.crc32c:08x}"
            entry["salt"] = known.sealed.salt.hex()
        entry["name"] = self._names[file.path]
        return entry

    def _index(self) -> bytes | bytearray:
        """The index as it is stored; reads what has not been read."""
        if self._sealed_index is not None:
            return self._sealed_index
        document = self._index_document(self.known())
        if self._key is None:
            return document
        # What is sealed is what it was: a file that changes is refused.
        self._sealed_index = _sealing.seal_memory(self._key, document)[0]
        return self._sealed_index

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
            if isinstance(piece.content, Member):
                piece.content.read(first, part)
            elif piece.content is None:
                part[:] = self._index()[first:last]
            else:
                part[:] = piece.content[first:last]
        return content

    def preparations(self, start: int, stop: int) -> Iterator[Step]:
        """What reading a range would have to do first, in small steps."""
        for piece, _, _ in self._overlapping(start, stop):
            if isinstance(piece.content, Member):
                yield from piece.content.preparations()
            elif piece.content is None:
                # What is in the range comes before its index; the rest has mostly been read.
                for other in self._pieces:
                    if isinstance(other.content, Member) and other.stop <= start:
                        yield from other.content.steps()

    def _overlapping(self, start: int, stop: int) -> Iterator[tuple[_Piece, int, int]]:
        """Pieces of a range, and what of each is in it."""
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._pieces)):
            piece = self._pieces[index]
            if piece.start >= stop:
                break
            first, last = max(start - piece.start, 0), min(stop, piece.stop) - piece.start
            if first < last:
                yield piece, first, last

    # -- checksums -------------------------------------------------------------------------

    def known(self) -> dict[str, Known]:
        """What is known of every file, by path; reads those that have not been read.

        Raises:
            IntegrityError: A file has changed, or has not the CRC32C that RocksDB recorded.
            RepositoryError: A file has been given up.
        """
        for read in self.reads():
            read()
        found = {path: member.known() for path, member in self._members.items()}
        return {path: known for path, known in found.items() if known is not None}  # all of them

    def blank(self) -> dict[str, Known]:
        """What stands for it as long as nothing has been read."""
        return {path: member.blank() for path, member in self._members.items()}

    def reads(self) -> Iterator[Step]:
        """What `known` has to do first, in small steps."""
        for member in self._members.values():
            yield from member.steps()

    def know(self, known: Mapping[str, Known]) -> None:
        """Takes what is known from somebody who has just read the files, by path."""
        for path, member in self._members.items():
            member.know(known[path])

    def crc32c(self) -> int:
        """CRC32C of the archive; reads what of it has not been read."""
        known = self.known()
        value, end = 0, 0
        for piece in self._pieces:
            value = _core.crc32c(bytes(piece.start - end), value)
            if isinstance(piece.content, Member):
                found = known[piece.content.file.path]
                crc = found.crc32c if found.sealed is None else found.sealed.crc32c
                value = _core.crc32c_combine(value, crc, piece.size)
            else:
                value = _core.crc32c(piece.content or self._index(), value)
            end = piece.stop
        return _core.crc32c(bytes(self.size - end), value)

    # -- what is stored --------------------------------------------------------------------

    def sent(self, start: int, stop: int) -> None:
        """Notes that a range is stored; gives up files that are as a whole."""
        for piece, first, last in self._overlapping(start, stop):
            member = piece.content
            if self.releases and isinstance(member, Member):
                stored = self._stored[member.file.path]
                stored[first] = last - first
                at = 0
                while at in stored:
                    at += stored[at]
                if at == member.size:
                    member.file.release()

    def release(self) -> None:
        """Gives up all files."""
        for file in self.files:
            file.release()


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _guide(offset: int, size: int, own_offset: int) -> bytes:
    """What stands where others have their index, and tells where the sealed one is."""
    return _json(
        {
            "format": "kumo-archive",
            "version": VERSION,
            "features": [SEALED],
            "sealed_index_offset": offset,
            "sealed_index_size": size,
            "index_offset": own_offset,
        }
    )


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
