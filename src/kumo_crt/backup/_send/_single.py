"""Snapshots as a single object: everything in one archive."""

from __future__ import annotations

from collections.abc import Mapping

from kumo_crt._engine import Blocking, Sleep, Task
from kumo_crt.backup._capture import Capture
from kumo_crt.backup._format import _layout
from kumo_crt.backup._format._key import Key
from kumo_crt.backup._format._results import SnapshotFile, StoredObject
from kumo_crt.backup._packing._archive import Archive, Subject
from kumo_crt.backup._packing._members import Known
from kumo_crt.backup._send._sending import Sender, Sent, send_task
from kumo_crt.backup._store._store import Store
from kumo_crt.s3._body import ProducedSource
from kumo_crt.s3._put import put_task
from kumo_crt.s3._putting import PutOptions, PutResult


def archive_of(capture: Capture, names: Mapping[str, str], key: Key | None) -> Archive:
    """The archive of a captured state; sealed with the key, if the repository is encrypted."""
    subject = Subject(capture.db_id, capture.sequence_number, capture.column_families)
    return Archive(subject, capture.files, names, key)


def files_of(
    archive: Archive,
    names: Mapping[str, str],
    inline: Mapping[str, SnapshotFile],
    stored: StoredObject,
    known: Mapping[str, Known],
) -> list[SnapshotFile]:
    """What the manifest says of the files; what is ``inline`` is in the archive as well."""
    return [
        inline[file.path]
        if file.path in inline
        else SnapshotFile(
            file.path,
            file.kind,
            file.size,
            known[file.path].crc32c,
            key=stored.key,
            offset=archive.offsets[file.path],
            name=names[file.path],
            container=stored,
            sealed=known[file.path].sealed,
        )
        for file in archive.files
    ]


class ArchiveContent:
    """An archive that becomes an object."""

    kind = "sst"
    recorded: int | None = None

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.size = archive.size

    def crc32c(self) -> int:
        """Reads what has not been read."""
        return self._archive.crc32c()

    def put(self, store: Store, key: str, options: PutOptions) -> Task[PutResult]:
        """Sends the archive, while it is made."""
        archive = self._archive
        source = ProducedSource(archive.size, archive.read, archive.sent, archive.preparations)
        return (yield from put_task(store.context, store.bucket, key, source, options))


def send_archive_task(sender: Sender, archive: Archive, name: str) -> Task[Sent]:
    """Stores an archive, and gives up each file once it is stored."""
    store = sender.store
    if archive.size > store.context.settings.multipart_threshold:
        # Where something is in the way, it may have to be sent once more, under another name.
        taken = yield from store.has(_layout.data_key(name))
        archive.releases = not taken
        if taken:
            # It is going to be compared, and that may take longer than a lease holds.
            for read in archive.reads():
                yield Blocking(read)
                yield Sleep(0)
    sent = yield from send_task(sender, name, ArchiveContent(archive))
    archive.release()
    return sent
