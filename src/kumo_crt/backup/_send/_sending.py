"""Sends what becomes a data object, unless an unfinished backup has done that already."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from kumo_crt import _core
from kumo_crt._engine import Meter, Reserve, Task, Throttle
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._format import _layout, _names, _sealing
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import Sealed, SnapshotFile, StoredObject
from kumo_crt.backup._packing._members import checked
from kumo_crt.backup._packing._packing import Bundle
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    ArchivedError,
    ChecksumMismatchError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._body import FileSource, MemorySource
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._head import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions, PutResult

# Below this, sending an object that may be there already costs less than asking first; it is asked
# for all the same where a manifest names it.
_ASK_FIRST = 1 << 20


class Content(Protocol):
    """What becomes a data object.

    Attributes:
        size: Bytes.
        kind: Of the files it holds.
        recorded: CRC32C that RocksDB recorded, if it did.
    """

    size: int
    kind: str
    recorded: int | None

    def crc32c(self) -> int:
        """CRC32C of it; reads it."""

    def put(self, store: Store, key: str, options: PutOptions) -> Task[PutResult]:
        """Sends it."""


class Sent(NamedTuple):
    """What came of it.

    Attributes:
        stored: The object.
        was_there: It was, as a whole.
        confirmed: Whether the service told the checksum, or was asked about it.
        resumed: Bytes that were there in parts.
    """

    stored: StoredObject
    was_there: bool
    confirmed: bool
    resumed: int = 0


class FileContent:
    """A file that becomes an object as it is."""

    def __init__(self, file: CapturedFile) -> None:
        self._file = file
        self.size = file.size
        self.kind = file.kind
        self.recorded = file.checksum

    def crc32c(self) -> int:
        """Reads the file; compares with what RocksDB recorded."""
        return checked(self._file, _names.crc32c_of(self._file.source))

    def put(self, store: Store, key: str, options: PutOptions) -> Task[PutResult]:
        """Sends the file."""
        file = self._file
        if self.recorded is not None and self.size <= store.context.settings.multipart_threshold:
            # What fits into one request is stored with it: looked at before, which costs little.
            self.crc32c()
        with open(file.source, "rb", buffering=0) as opened:
            source = FileSource(opened.fileno())
            if source.size != file.size:
                raise changed(file.shown, source.size, file.size)
            try:
                return (yield from put_task(store.context, store.bucket, key, source, options))
            except ChecksumMismatchError:
                self.crc32c()
                raise


class SealedContent:
    """A file that becomes an object in its sealed form.

    It is read twice: its salt has to be known before anything is sent.
    """

    recorded: int | None = None  # of what is sent, nothing was

    def __init__(self, file: CapturedFile, key: Key) -> None:
        self._file = file
        self._key = key
        self._examined: _sealing.Examined | None = None
        self.size = _sealing.sealed_size(key, file.size)
        self.kind = file.kind

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        file = self._file
        with open(file.source, "rb", buffering=0) as opened:
            if (size := os.fstat(opened.fileno()).st_size) != file.size:
                raise changed(file.shown, size, file.size)
            yield opened.fileno()

    def _keep(self, found: _sealing.Examined) -> _sealing.Examined:
        checked(self._file, found.crc32c)
        self._examined = found
        return found

    def crc32c(self) -> int:
        """Seals the file for it."""
        file = self._file
        with self._open() as fd:
            examined = self._examined or self._keep(
                _sealing.examine(self._key, fd, file.size, file.source)
            )
            return _sealing.sealed_crc32c(self._key, fd, examined, file.source)

    def put(self, store: Store, key: str, options: PutOptions) -> Task[PutResult]:
        """Sends the sealed file, sealed part by part."""
        file = self._file
        with self._open() as fd:
            examined = self._examined or self._keep(
                (yield from _sealing.examine_task(self._key, fd, file.size, file.source))
            )
            source = _sealing.sealed_source(self._key, fd, examined, file.source)
            return (yield from put_task(store.context, store.bucket, key, source, options))

    def stored(self, sent: StoredObject) -> SnapshotFile:
        """What a manifest has of it."""
        file, found = self._file, self._examined
        if found is None:
            raise AssertionError("it was sent, or compared with what is there")
        sealed = Sealed(sent.size, sent.crc32c, found.salt)
        return SnapshotFile(
            file.path, file.kind, file.size, found.crc32c, key=sent.key, sealed=sealed
        )


class BundleContent:
    """Files that become one object, in memory; with a key each in its sealed form."""

    kind = "sst"
    recorded: int | None = None

    def __init__(self, bundle: Bundle, key: Key | None) -> None:
        self.size = bundle.size
        self._content = bytearray(bundle.size)
        # By name: what a manifest has of it but for the object.
        self.members: dict[str, SnapshotFile] = {}
        offset = 0
        for name, same in bundle.members.items():
            first = same[0]
            stored = _sealing.sealed_size(key, first.size)
            place = memoryview(self._content)[offset : offset + stored]
            if key is None:
                _read(first, place)
                crc, sealed = _core.crc32c(place), None
            else:
                plain = bytearray(first.size)
                _read(first, memoryview(plain))
                place[:], sealed, crc = _sealing.seal_memory(key, plain)
            for file in same:
                checked(file, crc)
                file.release()
            self.members[name] = SnapshotFile(
                first.path, first.kind, first.size, crc, offset=offset, name=name, sealed=sealed
            )
            offset += stored

    def crc32c(self) -> int:
        """CRC32C of all files, one after the other."""
        return _core.crc32c(self._content)

    def put(self, store: Store, key: str, options: PutOptions) -> Task[PutResult]:
        """Sends the bundle."""
        source = MemorySource(self._content)
        return (yield from put_task(store.context, store.bucket, key, source, options))


def _read(file: CapturedFile, into: memoryview) -> None:
    with open(file.source, "rb", buffering=0) as opened:
        done = 0
        while done < len(into) and (count := opened.readinto(into[done:])):
            done += count
        if done != len(into) or opened.read(1):
            raise changed(file.shown, file.source.stat().st_size, file.size)


def changed(path: Path, size: int, before: int) -> IntegrityError:
    """The error for a file that should not change, and did."""
    return IntegrityError(f"{path}: {size} bytes, it had {before} when the backup began")


class Sender(NamedTuple):
    """How a backup sends.

    Attributes:
        store: The repository.
        meter: Counts bytes.
        throttle: Limits them.
        unfinished: Uploads that killed backups have left, by key.
        likely: Keys of what is likely to be there.
    """

    store: Store
    meter: Meter
    throttle: Throttle | None
    unfinished: Mapping[str, tuple[str, ...]]
    likely: Set[str] = frozenset()


def send_task(sender: Sender, name: str, content: Content) -> Task[Sent]:
    """Stores a content under a name, or under a variant of it that says the content's CRC32C.

    Raises:
        IntegrityError: Both are taken by something else.
    """
    if content.size >= _ASK_FIRST or _layout.data_key(name) in sender.likely:
        there = yield from _already_there(sender, name, content)
        if there is not None:
            return there
    found = yield from _put(sender, name, content)
    if found is None:
        # The name is taken by something else: damage, or an identity that lied.
        name = f"{name}.{content.crc32c():08x}"
        found = yield from _put(sender, name, content)
    if found is None:
        raise IntegrityError(
            f"{sender.store.url(_layout.data_key(name))}: holds something else than its name "
            "says. Look at it, delete it if it is damaged, and run the backup again"
        )
    return found


def _put(sender: Sender, name: str, content: Content) -> Task[Sent | None]:
    """Stores it, or finds that it is there; None: something else is."""
    store = sender.store
    key = _layout.data_key(name)
    options = PutOptions(
        checksum=True,
        expected_crc32c=content.recorded,
        headers=store.data_headers(content.kind),
        if_match=None,
        if_none_match="*",
        meter=sender.meter,
        throttle=sender.throttle,
        resume=sender.unfinished.get(key, ()),
    )
    try:
        result = yield from content.put(store, store.location.key(key), options)
    except PreconditionFailedError:
        return (yield from _already_there(sender, name, content))
    crc = result.checksum_crc32c or 0  # never None: it was asked for
    stored = StoredObject(key, result.size, crc)
    return Sent(stored, False, result.confirmed, result.resumed)


def _already_there(sender: Sender, name: str, content: Content) -> Task[Sent | None]:
    store = sender.store
    key = _layout.data_key(name)
    where = store.location.key(key)
    try:
        found = yield from head_task(store.context, store.bucket, where)
    except NotFoundError:
        return None
    if found.size != content.size:
        return None
    crc = content.crc32c()
    if found.checksum_crc32c is None:
        # A service that keeps no CRC32C: only the content itself can tell.
        options = GetOptions(expected_size=content.size, expected_crc32c=crc)
        try:
            yield from get_task(store.context, store.bucket, where, Discard(), options)
        except (ArchivedError, ChecksumMismatchError, NotFoundError):
            return None
    elif found.checksum_crc32c != crc:
        return None
    sender.meter.add(content.size)
    return Sent(StoredObject(key, content.size, crc), was_there=True, confirmed=True)


def send_bundle_task(
    sender: Sender, bundle: Bundle, name: str
) -> Task[tuple[Sent, list[SnapshotFile]]]:
    """Stores a bundle; also tells what a manifest has of its files."""
    with (yield Reserve(bundle.size)):
        content = BundleContent(bundle, sender.store.key)
        sent = yield from send_task(sender, name, content)
    files = [
        replace(
            content.members[member],
            path=file.path,
            kind=file.kind,
            key=sent.stored.key,
            container=sent.stored,
        )
        for member, same in bundle.members.items()
        for file in same
    ]
    return sent, files


def send_file_task(
    sender: Sender, file: CapturedFile, name: str
) -> Task[tuple[Sent, SnapshotFile]]:
    """Stores a file as an object of its own; also tells what a manifest has of it."""
    key = sender.store.key
    if key is not None:
        sealed = SealedContent(file, key)
        sent = yield from send_task(sender, name, sealed)
        return sent, sealed.stored(sent.stored)
    sent = yield from send_task(sender, name, FileContent(file))
    stored = sent.stored
    return sent, SnapshotFile(file.path, file.kind, stored.size, stored.crc32c, key=stored.key)
