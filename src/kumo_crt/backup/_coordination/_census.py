"""What a repository holds, and which of its data objects snapshots name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kumo_crt._engine import Gather, Meter, Task
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._format import _documents, _layout
from kumo_crt.backup._format._results import Snapshot
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import ChecksumMismatchError, FormatError, NotFoundError
from kumo_crt.s3._results import ObjectInfo

MARKS = "marks/"
_READERS = 8
_LISTERS = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot, as far as a prune has to know it."""

    id: str
    db_id: str
    created_at: datetime
    keys: tuple[str, ...]
    # What of its bundles it needs: where that begins and how long it is, by their keys.
    parts: Mapping[str, frozenset[tuple[int, int]]]


@dataclass(slots=True)
class Census:
    """The snapshots that exist, and the data objects that they name.

    Attributes:
        entries: Snapshots by id.
    """

    store: Store
    entries: dict[str, Entry] = field(default_factory=dict)
    # Snapshots share most of their keys: one string for each. And most of their parts.
    _names: dict[str, str] = field(default_factory=dict)
    _parts: dict[frozenset[tuple[int, int]], frozenset[tuple[int, int]]] = field(
        default_factory=dict
    )

    def read_new(self, meter: Meter | None = None) -> Task[list[Entry]]:
        """Reads the manifests that have come since the last time.

        Raises:
            FormatError: One cannot be read, or something else is below ``snapshots/``.
        """
        ids = yield from self._listed()
        new = [snapshot_id for snapshot_id in ids if snapshot_id not in self.entries]
        if meter is not None:
            meter.total += len(new)
        found = yield Gather((self._read(i, meter) for i in new), _READERS)
        entries = [entry for entry in found if entry is not None]
        self.entries.update((entry.id, entry) for entry in entries)
        return entries

    def _listed(self) -> Task[list[str]]:
        ids = []
        for item in (yield from self.store.list_all(_layout.SNAPSHOTS)):
            snapshot_id = _id_of(self.store, item.key)
            if snapshot_id is None:
                raise FormatError(
                    f"s3://{self.store.bucket}/{item.key}: is no manifest that this kumo_crt "
                    "knows, and may name data: nothing was deleted. Use a newer kumo_crt, or move "
                    "it elsewhere if it does not belong there"
                )
            ids.append(snapshot_id)
        return ids

    def _read(self, snapshot_id: str, meter: Meter | None) -> Task[Entry | None]:
        try:
            snapshot: Snapshot | None = yield from self.store.listed_snapshot(snapshot_id)
        except FormatError as error:
            raise FormatError(
                f"{error}. As long as a manifest cannot be read, nobody knows which data it names: "
                "nothing was deleted. Put it right (kumo-crt repair does, from its spare), or "
                "delete that snapshot (delete_snapshot, kumo-crt forget), and prune again"
            ) from error
        finally:
            if meter is not None:
                meter.add(1)
        if snapshot is None:
            return None
        keys = tuple(self._names.setdefault(key, key) for key in snapshot.object_keys)
        parts: dict[str, set[tuple[int, int]]] = {}
        for file in snapshot.files:
            # What an archive has beside its files, it needs.
            if file.offset is not None and file.key and not _layout.is_archive(file.key):
                parts.setdefault(file.key, set()).add((file.offset, file.stored_size))
        shared = {
            self._names[key]: self._parts.setdefault(found, found)
            for key, places in parts.items()
            for found in (frozenset(places),)
        }
        return Entry(snapshot.id, snapshot.db_id, snapshot.created_at, keys, shared)

    def live(self, removed: Iterable[str] = ()) -> set[str]:
        """Keys of the data objects that snapshots name, but for some that are removed."""
        gone = frozenset(removed)
        return {
            key for entry in self.entries.values() if entry.id not in gone for key in entry.keys
        }

    def used_parts(self, removed: Iterable[str] = ()) -> dict[str, int]:
        """Bytes of each bundle that snapshots name, but for some that are removed."""
        gone = frozenset(removed)
        parts: dict[str, set[frozenset[tuple[int, int]]]] = {}
        for entry in self.entries.values():
            if entry.id not in gone:
                for key, found in entry.parts.items():
                    parts.setdefault(key, set()).add(found)
        return {
            key: sum(size for _, size in frozenset().union(*found)) for key, found in parts.items()
        }


def _id_of(store: Store, full_key: str) -> str | None:
    """Id of the snapshot whose manifest has a key below ``snapshots/``; None if none has."""
    name = full_key[len(store.location.key(_layout.SNAPSHOTS)) :]
    snapshot_id = name.removesuffix(".json")
    is_one = snapshot_id != name and _layout.is_snapshot_id(snapshot_id)
    return snapshot_id if is_one else None


def list_strangers(store: Store) -> Task[list[str]]:
    """Keys below ``snapshots/`` that are no manifests: a prune deletes nothing beside them."""
    listed = yield from store.list_all(_layout.SNAPSHOTS)
    return [item.key for item in listed if _id_of(store, item.key) is None]


def list_data(store: Store) -> Task[list[list[ObjectInfo]]]:
    """Lists all data objects, in pages; of many, by several listings at once."""
    first, token = yield from store.list_page(_layout.DATA)
    if token is None:
        return [first]
    start = len(store.location.key(_layout.DATA))
    last = int(first[-1].key[start : start + 2], 16) if _is_data(store, first[-1].key) else 0
    prefixes = (f"{_layout.DATA}{number:02x}/" for number in range(last, 256))
    rest: list[list[ObjectInfo]] = yield Gather(map(store.list_all, prefixes), _LISTERS)
    # The last prefix is listed whole: what of it came with the first page would come twice.
    whole = store.location.key(f"{_layout.DATA}{last:02x}/")
    return [[item for item in first if not item.key.startswith(whole)], *rest]


def _is_data(store: Store, key: str) -> bool:
    return _layout.is_data_key(key[len(store.location.prefix) :])


def data_objects(store: Store, pages: Iterable[list[ObjectInfo]]) -> Iterator[ObjectInfo]:
    """Those that are data objects by their names; what else is there is nobody's business."""
    return (item for page in pages for item in page if _is_data(store, item.key))


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark: what an earlier prune found that no snapshot names."""

    key: str
    written: datetime
    objects: frozenset[str]


def encode_mark(hashes: Iterable[str]) -> bytes:
    """A mark as a document."""
    document = {
        "format": "kumo-mark",
        "version": _documents.VERSION,
        "objects": list(hashes),
    }
    return _documents.encode(document)


def decode_mark(document: bytes | memoryview, where: str) -> frozenset[str]:
    """Reads a mark: hashes of objects.

    Raises:
        FormatError: It is malformed.
    """
    reader = _documents.Reader(document, where, "kumo-mark")
    hashes = frozenset(_inflight.hashes(reader))
    reader.check_crc()
    return hashes


def read_marks(store: Store) -> Task[tuple[list[Mark], list[str]]]:
    """All marks, and the keys of those that cannot be read and are worth nothing."""
    start = len(store.location.prefix)
    listed = yield from store.list_all(MARKS)

    def read(item: ObjectInfo) -> Task[Mark | str | None]:
        key = item.key[start:]
        if item.last_modified is None:
            return key
        try:
            document, _ = yield from store.read(key)
            return Mark(key, item.last_modified, decode_mark(document, store.url(key)))
        except NotFoundError:
            return None
        except (FormatError, ChecksumMismatchError):
            return key

    found = yield Gather((read(item) for item in listed), _READERS)
    marks = [item for item in found if isinstance(item, Mark)]
    return marks, [item for item in found if isinstance(item, str)]
