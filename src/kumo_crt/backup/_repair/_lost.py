"""A repository whose configuration is lost: how that is told, and what the manifests know of it."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime
from typing import NamedTuple, NoReturn

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _spares
from kumo_crt.backup._format import _configuration, _documents, _layout, _manifest, _sealing
from kumo_crt.backup._format._configuration import Config
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    ChecksumMismatchError,
    EncryptionKeyError,
    FormatError,
    NotFoundError,
    SnapshotNotFoundError,
)

_MANIFESTS_AT_ONCE = 4
# Scratch objects below data/ that a creation or a doctor could not remove.
_SCRATCH = "kumo-"
_log = logging.getLogger("kumo_crt.backup")


def look_task(store: Store) -> Task[tuple[Config, datetime] | None]:
    """Looks for a repository where no configuration was found, before it is said to be none.

    Returns:
        What `Store.config` tells of one that was created in the meantime; None: there is nothing.

    Raises:
        FormatError: There is one, and its configuration is lost.
    """
    snapshots = yield from _ids(store)
    page, _ = yield from store.list_page(_layout.DATA)
    keys = (item.key.removeprefix(store.location.prefix) for item in page)
    has_data = any(
        _layout.is_data_key(key) and not key.rpartition("/")[2].startswith(_SCRATCH) for key in keys
    )
    if not snapshots and not has_data:
        return None
    found = yield from store.config()
    if found is not None:
        return found
    _raise_lost(store, len(snapshots))


def _raise_lost(store: Store, snapshots: int) -> NoReturn:
    where = store.url(_layout.CONFIG_KEY)
    if not snapshots:
        raise FormatError(
            f"{where}: the repository's configuration is lost, and every manifest with it: there "
            "is data of a repository, but no snapshot. Nothing was written. Bring the "
            "configuration and the manifests (snapshots/) back from versions or a copy; for a new "
            "repository choose another URL, or delete first what is left here"
        )
    there = "1 snapshot is" if snapshots == 1 else f"{snapshots} snapshots are"
    raise FormatError(
        f"{where}: the repository's configuration is lost; {there} there. Nothing was written. "
        "Bring it back from a version or a copy, or have it written anew from what the manifests "
        "tell (kumo-crt repair-config, Repository.recover_config); for a new repository "
        "choose another URL"
    )


def _ids(store: Store) -> Task[list[str]]:
    """Ids of all snapshots that have a manifest or a spare."""
    spares = _spares.by_id(store, (yield from store.list_all(_layout.SPARES)))
    return sorted({*spares, *(yield from store.snapshot_ids())})


class _Told(NamedTuple):
    """What a manifest tells of its repository's configuration."""

    snapshot_id: str
    config: Config
    sealed: bool
    ours: bool


def recovered_task(store: Store) -> Task[Config]:
    """The configuration that the manifests tell.

    Raises:
        EncryptionKeyError: The snapshots are encrypted and there is no key, or it opens none of
            them, or they are not encrypted.
        SnapshotNotFoundError: There is no snapshot.
        FormatError: No manifest can be read, or sealed ones are of several repositories.
    """
    ids = yield from _ids(store)
    found: list[_Told | FormatError | None] = yield Gather(
        (_tell(store, snapshot_id) for snapshot_id in ids), _MANIFESTS_AT_ONCE
    )
    told = [item for item in found if isinstance(item, _Told)]
    for error in (item for item in found if isinstance(item, FormatError)):
        _log.warning("it tells nothing of its repository: %s", error)
        if not told:
            raise FormatError(f"no manifest can be read, which would tell: {error}") from error
    if not told:
        raise SnapshotNotFoundError(
            f"{store.location}: there is no snapshot, whose manifest would tell of the "
            "configuration: look at the URL, or create a repository (Repository.create, "
            "kumo-crt backup --create)"
        )
    sealed = [item for item in told if item.sealed]
    if store.key is None:
        if sealed:
            raise EncryptionKeyError(
                f"{store.location}: its snapshots are encrypted ({len(sealed)} of {len(told)}), "
                "and their key is needed to write the configuration anew: give it "
                "(encryption_key; --key-file, --key-command; KUMO_CRT_KEY_FILE, KUMO_CRT_KEY, "
                "KUMO_CRT_KEY_COMMAND)"
            )
        # Nobody compares the id: that of the newest is as good as any.
        return told[-1].config
    ours = [item for item in told if item.ours]
    if not ours:
        raise EncryptionKeyError(
            f"{store.location}: "
            + (
                f"none of its {len(sealed)} encrypted snapshots was made with key {store.key.id}: "
                "give the one that the repository was created with"
                if sealed
                else "its snapshots are not encrypted, and a key was given: leave it out"
            )
        )
    repositories = sorted({item.config.repository_id for item in ours})
    if len(repositories) > 1:
        raise FormatError(
            f"{store.location}: with this key there are snapshots of {len(repositories)} "
            f"repositories ({', '.join(repositories)})"[:400]
            + ": the members repository_id in "
            "snapshots/ tell which is whose. Move those of all but one elsewhere first"
        )
    for item in told:
        if not item.ours:
            _log.warning(
                "snapshot %s was not made with key %s, and will be refused",
                item.snapshot_id,
                store.key.id,
            )
    check = _sealing.key_check(store.key, repositories[0])
    return ours[-1].config._replace(key_check=check)


def _tell(store: Store, snapshot_id: str) -> Task[_Told | FormatError | None]:
    found: _Told | FormatError | None = None
    for key in (_layout.snapshot_key(snapshot_id), _layout.spare_key(snapshot_id)):
        told = yield from _tell_from(store, snapshot_id, key)
        if isinstance(told, _Told):
            return told
        found = found or told
    return found


def _tell_from(store: Store, snapshot_id: str, key: str) -> Task[_Told | FormatError | None]:
    where = store.url(key)
    try:
        document, _ = yield from store.read(key)
        # Whatever else is to be known of it is checked here.
        _manifest.decode_snapshot(document, where, snapshot_id)
        reader = _documents.Reader(document, where, "kumo-snapshot", _manifest.FEATURES)
        config = _configuration.told_config(reader)
    except NotFoundError:
        return None  # deleted since it was listed
    except ChecksumMismatchError as error:
        return FormatError(f"{where}: the manifest is damaged: {error}")
    except FormatError as error:
        return error
    sealed = _manifest.SEALED in reader.features
    ours = False
    if sealed and store.key is not None:
        with contextlib.suppress(FormatError):
            _manifest.decode_snapshot(document, where, snapshot_id, store.key)
            ours = True
    return _Told(snapshot_id, config, sealed, ours)
