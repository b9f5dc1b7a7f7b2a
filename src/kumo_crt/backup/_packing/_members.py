"""Members of archives: the files of a database, as they are or sealed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed
from kumo_crt.exceptions import IntegrityError, RepositoryError

# What is done at once; an interrupt is noticed after as much.
_READ = 1 << 20
_SEALED_READ = 64 * (_core.SEALED_CHUNK + _core.SEALED_TAG)
Step = Callable[[], None]


class Known(NamedTuple):
    """What an index and a manifest tell of a file that has been read.

    Attributes:
        crc32c: CRC32C of the file.
        sealed: How it is stored, if it is sealed.
    """

    crc32c: int
    sealed: Sealed | None = None


class Member:
    """A file, as it is.

    Attributes:
        file: The file.
        name: What it is called in the archive.
        size: Bytes in the archive.
    """

    def __init__(self, file: CapturedFile) -> None:
        self.file = file
        self.name = file.path
        self.size = file.size
        # CRC32C and size of what has been read, by place.
        self._read: dict[int, tuple[int, int]] = {}

    def blank(self) -> Known:
        """As long as what will be known."""
        return Known(0)

    def known(self) -> Known | None:
        """What is known of a member that has been read as a whole, in whatever order."""
        crc = self._whole_crc32c()
        return None if crc is None else Known(checked(self.file, crc))

    def know(self, known: Known) -> None:
        """Takes it from somebody who has just read the file."""
        self._read = {0: (self.size, known.crc32c)}

    def read(self, at: int, into: memoryview) -> None:
        """Reads a part.

        Raises:
            IntegrityError: The file has changed, or has not the CRC32C that RocksDB recorded.
            RepositoryError: It has been given up.
        """
        done = 0
        with self._open() as fd:
            while done < len(into):
                count = os.preadv(fd, [into[done:]], at + done)
                if not count:
                    raise self._changed(at + done)
                done += count
        self._read[at] = len(into), _core.crc32c(into)
        if at + done == self.size:
            self.known()

    def preparations(self) -> Iterator[Step]:
        """What has to be done before anything can be read."""
        return iter(())

    def steps(self) -> Iterator[Step]:
        """What has to be done until it is known."""
        if self.known() is None:
            block = memoryview(bytearray(min(_READ, self.size)))
            for at in range(0, self.size, _READ):
                yield partial(self.read, at, block[: self.size - at])

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        """Descriptor of the file, as long as it has its size."""
        file = self.file
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(open(file.source, "rb", buffering=0))
            except FileNotFoundError:
                if not file.temporary:
                    raise
                raise RepositoryError(
                    f"{file.path}: was sent, and given up to free its space, and now the upload "
                    "has to begin again: run the backup again"
                ) from None
            size = os.fstat(opened.fileno()).st_size
            if size != file.size:
                raise self._changed(size)
            yield opened.fileno()

    def _changed(self, size: int) -> IntegrityError:
        file = self.file
        return IntegrityError(
            f"{file.shown}: {size} bytes, it had {file.size} when the backup began"
        )

    def _whole_crc32c(self) -> int | None:
        """CRC32C of what is stored, if all of it has been read."""
        at = value = 0
        while at < self.size:
            if at not in self._read:
                return None
            size, crc = self._read[at]
            value = _core.crc32c_combine(value, crc, size)
            at += size
        return value


class SealedMember(Member):
    """A file in its sealed form, under a name that tells nothing.

    It is read twice: its salt has to be known first.

    Args:
        file: The file.
        name: What it is called in the archive.
        key: The repository's.
    """

    def __init__(self, file: CapturedFile, name: str, key: Key) -> None:
        super().__init__(file)
        self.name = name
        self.size = _core.sealed_size(file.size)
        self._key = key
        self._known: Known | None = None
        # Of the content: for good, and with what takes more room while it is being sealed.
        self._content: tuple[bytes, int] | None = None
        self._examined: _sealing.Examined | None = None

    def blank(self) -> Known:
        """As long as what will be known."""
        return Known(0, Sealed(self.size, 0, bytes(16)))

    def known(self) -> Known | None:
        """What is known of a member that has been sealed as a whole, in whatever order."""
        if self._known is None and self._content is not None:
            crc = self._whole_crc32c()
            if crc is not None:
                salt, plain = self._content
                self._known = Known(plain, Sealed(self.size, crc, salt))
                self._read.clear()
        return self._known

    def know(self, known: Known) -> None:
        """Takes it from somebody who has just read the file."""
        if known.sealed is None:
            raise AssertionError("it is not sealed")
        self._known = known
        self._content = known.sealed.salt, known.crc32c

    def read(self, at: int, into: memoryview) -> None:
        """Seals a part.

        Raises:
            IntegrityError: The file has changed, or has not the CRC32C that RocksDB recorded.
            RepositoryError: It has been given up.
        """
        for step in self.preparations():
            step()
        if self._examined is None:
            raise AssertionError("it has just been examined")
        with self._open() as fd:
            _sealing.seal_into(self._key, fd, self._examined, at, into, self.file.source)
        if self._known is None:
            self._read[at] = len(into), _core.crc32c(into)
        if at + len(into) == self.size:
            # Mostly it is not needed again, and of large files it is large.
            self._examined = None
            self.known()

    def preparations(self) -> Iterator[Step]:
        """Reads the file for its salt."""
        if self._examined is None:
            native = self._key._native.examine()
            for stop in _sealing.stops(self.file.size):
                yield partial(self._examine, native, stop)

    def _examine(self, native: _core.Examination, stop: int) -> None:
        file = self.file
        with self._open() as fd, _sealing.reading(file.source):
            native.read(fd, file.size, stop)
        if stop < file.size:
            return
        found = _sealing.examined(native, file.size)
        checked(file, found.crc32c)
        if self._content not in (None, (found.salt, found.crc32c)):
            raise IntegrityError(
                f"{file.source}: changed while it was being read. No snapshot was made; run this "
                "again"
            )
        self._content = found.salt, found.crc32c
        self._examined = found

    def steps(self) -> Iterator[Step]:
        """What has to be done until it is known."""
        if self.known() is None:
            yield from self.preparations()
            block = memoryview(bytearray(min(_SEALED_READ, self.size)))
            for at in range(0, self.size, _SEALED_READ):
                yield partial(self.read, at, block[: self.size - at])


def checked(file: CapturedFile, crc: int) -> int:
    """Compares a file's CRC32C with the one that RocksDB recorded when it wrote the file."""
    if file.checksum not in (None, crc):
        raise IntegrityError(
            f"{file.shown}: has CRC32C {crc:08x}, and RocksDB recorded {file.checksum:08x} when it "
            "wrote the file: it is damaged on this disk. No snapshot was made; if there are older "
            "ones, they may have the file as it was (kumo-crt snapshots, restore)"
        )
    return crc
