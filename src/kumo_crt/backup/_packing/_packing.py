"""Decides what becomes of each file: known already, sent by itself, or with others in a bundle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kumo_crt import _core
from kumo_crt._units import parse_size, read_variable
from kumo_crt.backup._capture import CapturedFile
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._coordination._commit import Reused
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._results import SnapshotFile
from kumo_crt.backup._packing._archive import Archive
from kumo_crt.backup._store._known import Known

MIB = 1024 * 1024
DEFAULT_BUNDLE_BELOW = MIB
DEFAULT_BUNDLE_SIZE = 16 * MIB
# A bundle is put together in memory.
MAX_BUNDLE_SIZE = 64 * MIB
# Fewer are not worth that they live and die together.
_LEAST_MEMBERS = 8
# A bundle ends by itself once it has this part of its largest size.
_LEAST_PART = 4
# Of a bundle that is relied on, a database uses at least this part.
_LEAST_USE = 4


class Limits(NamedTuple):
    """What is bundled.

    Attributes:
        below: Files of less than these bytes; 0 for none.
        size: Bytes that a bundle has at most.
    """

    below: int
    size: int


def limits(below: int | None, size: int | None) -> Limits:
    """Fills in from the environment what was not given.

    Raises:
        ValueError: A value is out of its range.
    """
    below, said_below = _setting("bundle_below", below, DEFAULT_BUNDLE_BELOW, 0)
    size, said_size = _setting("bundle_size", size, DEFAULT_BUNDLE_SIZE, MIB)
    if below > size:
        raise ValueError(f"{said_below} is {below} bytes, more than {said_size}, which is {size}")
    return Limits(below, size)


def _setting(name: str, value: int | None, default: int, least: int) -> tuple[int, str]:
    """A value, and what the one who gave it calls it."""
    if value is None:
        variable = f"KUMO_CRT_{name.upper()}"
        text = os.environ.get(variable)
        if not text:
            return default, name
        name, value = variable, read_variable(variable, text, parse_size)
    if not least <= value <= MAX_BUNDLE_SIZE:
        raise ValueError(f"{name} is {value}: it must be from {least} to {MAX_BUNDLE_SIZE} bytes")
    return value, name


class Bundle(NamedTuple):
    """Files to store as one object.

    Attributes:
        name: Of the object; follows from those of the files.
        size: Of the object.
        members: The files by their names, in order; those of one name are the same.
    """

    name: str
    size: int
    members: Mapping[str, tuple[CapturedFile, ...]]

    @property
    def files(self) -> Iterator[CapturedFile]:
        """All files."""
        return (file for same in self.members.values() for file in same)


def _bundle(members: Mapping[str, list[CapturedFile]], size: int) -> Bundle:
    digest = hashlib.sha256()
    for name, same in members.items():
        digest.update(f"{name} {same[0].size}\n".encode())
    name = f"bundle-{digest.hexdigest()}-{size}"
    return Bundle(name, size, {name: tuple(same) for name, same in members.items()})


@dataclass(slots=True, eq=False, repr=False)
class Packing:
    """What becomes of each file.

    Attributes:
        reused: Those that the repository has, by path.
        alone: Those that become an object of their own.
        bundles: Those that are stored together.
        archive: All of them, and nothing else, if they are stored as a single object.
    """

    reused: dict[str, Reused] = field(default_factory=dict)
    alone: list[CapturedFile] = field(default_factory=list)
    bundles: list[Bundle] = field(default_factory=list)
    archive: Archive | None = None

    def hashes(self, names: Mapping[str, str]) -> set[str]:
        """What a pin has to name: all that may be relied on or sent."""
        keys = {_layout.data_key(names[file.path]) for file in self.alone}
        keys |= {_layout.data_key(bundle.name) for bundle in self.bundles}
        keys |= {reused.file.key or "" for reused in self.reused.values()}
        if self.archive is not None:
            keys.add(_layout.data_key(self.archive.name))
        return set(map(_inflight.object_hash, keys))

    def sources(self) -> list[str]:
        """Ids of the snapshots that what is reused was found in."""
        return sorted({item.source for item in self.reused.values() if item.source is not None})


def pack(
    files: Sequence[CapturedFile],
    names: Mapping[str, str],
    known: Known,
    condemned: frozenset[str],
    wanted: Limits,
    sealed: bool = False,
    shunned: Collection[str] = (),
) -> Packing:
    """Decides.

    Args:
        files: What is to be stored.
        names: What each would be called by itself, by path.
        known: What the repository has.
        condemned: Hashes of objects that are being deleted.
        wanted: What is bundled.
        sealed: Whether files are stored sealed.
        shunned: Keys of objects that are damaged.
    """
    result = Packing()
    small: dict[str, list[CapturedFile]] = {}
    found = {file.path: _same(known.files.get(names[file.path]), file) for file in files}
    wasteful = _wasteful(item for item in found.values() if item is not None)
    for file in files:
        name = names[file.path]
        there = found[file.path]
        if (
            there is not None
            and there.key not in wasteful
            and there.key not in shunned
            and _inflight.object_hash(there.key or "") not in condemned
        ):
            as_here = replace(there, path=file.path, kind=file.kind)
            result.reused[file.path] = Reused(as_here, known.sources[name])
        elif file.kind in ("sst", "blob") and file.size < wanted.below:
            small.setdefault(name, []).append(file)
        else:
            result.alone.append(file)
    if len(small) < _LEAST_MEMBERS:
        result.alone += (file for same in small.values() for file in same)
    else:
        result.bundles += _bundles(small, wanted.size, sealed)
    return result


def _same(known: SnapshotFile | None, file: CapturedFile) -> SnapshotFile | None:
    """What is known, if it can be this file."""
    # One that has not the CRC32C that RocksDB recorded is something else, or damaged.
    if known is None or known.size != file.size or file.checksum not in (None, known.crc32c):
        return None
    return known


def _wasteful(used: Iterable[SnapshotFile]) -> set[str]:
    """Keys of the bundles that are not worth keeping for what is used of them."""
    places: dict[str, set[tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    for file in used:
        if file.offset is not None and file.key is not None:
            places.setdefault(file.key, set()).add((file.offset, file.stored_size))
            sizes[file.key] = file.stored.size
    return {
        key
        for key, size in sizes.items()
        if sum(part for _, part in places[key]) * _LEAST_USE < size
    }


def _bundles(
    small: Mapping[str, list[CapturedFile]], largest: int, sealed: bool
) -> Iterator[Bundle]:
    """Cuts where names say so: one file more or less changes one bundle."""
    members: dict[str, list[CapturedFile]] = {}
    size = 0
    for name, same in sorted(small.items(), key=lambda item: (item[1][0].number, item[0])):
        length = _core.sealed_size(same[0].size) if sealed else same[0].size
        if members and size + length > largest:
            yield _bundle(members, size)
            members, size = {}, 0
        members[name] = same
        size += length
        digits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        if size * _LEAST_PART >= largest and digits * largest < length << 65:
            yield _bundle(members, size)
            members, size = {}, 0
    if members:
        yield _bundle(members, size)
