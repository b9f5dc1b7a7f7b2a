"""Data objects, with what manifests say that they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kumo_crt.backup._format._results import SnapshotFile, StoredObject


class DataObject(NamedTuple):
    """A data object.

    Attributes:
        stored: What it is as a whole.
        files: What is in it, in order; of files that are alike, one.
    """

    stored: StoredObject
    files: tuple[SnapshotFile, ...]

    @property
    def key(self) -> str:
        """Its key."""
        return self.stored.key

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stored.size

    @property
    def is_file(self) -> bool:
        """Whether it is one file's content and nothing else."""
        return self.files[0].container is None


def objects_of(files: Iterable[SnapshotFile]) -> list[DataObject]:
    """The data objects of some files, each once, in the order in which they come.

    Should manifests not agree on what an object is, it is there more than once.
    """
    found: dict[StoredObject, dict[tuple[int, int, int], SnapshotFile]] = {}
    for file in files:
        if file.key is not None:
            place = (file.offset or 0, file.stored_size, file.stored_crc32c)
            found.setdefault(file.stored, {}).setdefault(place, file)
    return [
        DataObject(stored, tuple(file for _, file in sorted(places.items(), key=lambda x: x[0])))
        for stored, places in found.items()
    ]
