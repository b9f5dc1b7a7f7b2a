"""Sends what becomes a data object, unless an unfinished backup has done that already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kumo_crt import _core
from kumo_crt._engine import Meter, Reserve, Task, Throttle
from kumo_crt.backup import _layout, _names
from kumo_crt.backup._archive import checked
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._packing import Bundle
from kumo_crt.backup._results import StoredObject
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import (
    ArchivedError,
    ChecksumMismatchError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
)
from kumo_crt.s3._body import FileSource, MemorySource
from kumo_crt.s3._get import Discard, GetOptions, get_task
from kumo_crt.s3._objects import head_task
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions
from kumo_crt.s3._results import PutResult

# Below this, sending an object that may be there already costs less than asking first.
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


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it."""

    stored: StoredObject
    was_there: bool


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
                raise _changed(file.source, source.size, file.size)
            try:
                return (yield from put_task(store.context, store.bucket, key, source, options))
            except ChecksumMismatchError:
                self.crc32c()
                raise


class BundleContent:
    """Files that become one object, in memory."""

    kind = "sst"
    recorded: int | None = None

    def __init__(self, bundle: Bundle) -> None:
        self.size = bundle.size
        self.crcs: dict[str, int] = {}
        self._content = bytearray(bundle.size)
        rest = memoryview(self._content)
        for name, same in bundle.members.items():
            part, rest = rest[: same[0].size], rest[same[0].size :]
            _read(same[0], part)
            crc = _core.crc32c(part)
            for file in same:
                checked(file, crc)
                file.release()
            self.crcs[name] = crc

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
            raise _changed(file.source, file.source.stat().st_size, file.size)


def _changed(path: Path, size: int, before: int) -> IntegrityError:
    return IntegrityError(f"{path}: {size} bytes, it had {before} when the backup began")


@dataclass(frozen=True, slots=True)
class Sender:
    """How a backup sends.

    Attributes:
        store: The repository.
        meter: Counts bytes.
        throttle: Limits them.
        unfinished: Uploads that killed backups have left, by key.
    """

    store: Store
    meter: Meter
    throttle: Throttle | None
    unfinished: Mapping[str, tuple[str, ...]]


def send_task(sender: Sender, name: str, content: Content) -> Task[Sent]:
    """Stores a content under a name, or under a variant of it that says the content's CRC32C.

    Raises:
        IntegrityError: Both are taken by something else.
    """
    if content.size >= _ASK_FIRST:
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
    return Sent(StoredObject(key, result.size, crc), was_there=False)


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
    return Sent(StoredObject(key, content.size, crc), was_there=True)


def send_bundle_task(
    sender: Sender, bundle: Bundle, name: str
) -> Task[tuple[Sent, Mapping[str, int]]]:
    """Stores a bundle; also tells the CRC32Cs of its files, by their names."""
    with (yield Reserve(bundle.size)):
        content = BundleContent(bundle)
        return (yield from send_task(sender, name, content)), content.crcs
