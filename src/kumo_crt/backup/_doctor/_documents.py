"""Reads the small documents of a repository: who cannot read one stops, or does without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from kumo_crt._engine import Gather, Task
from kumo_crt.backup._coordination import _census, _inflight, _ledger, _notices, _pins
from kumo_crt.backup._coordination._inflight import LeaseState, Part
from kumo_crt.backup._doctor._findings import ERROR, INFO, WARNING, Findings
from kumo_crt.backup._format import _layout, _manifest
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import ChecksumMismatchError, FormatError, NotFoundError

_READ = "s3:ListBucket and s3:GetObject"
_AT_ONCE = 8
# Documents of a kind that are read, and objects that are named one by one.
_MOST = 200
_NAMED = 5
# What a lease that cannot be read stops.
_STOPPED = {
    _inflight.BACKUP: "prune is",
    _inflight.PRUNE: "prune is",
    _inflight.SWEEP: "backups and pins are",
    _inflight.SPARE: "removing snapshots is",
}
_Decode = Callable[[memoryview, str], object]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Documents in a folder of their own, which work goes on without.

    Attributes:
        check: What their findings are called.
        folder: Where they are.
        decode: Reads one.
        consequence: What it means that one cannot be read.
        fix: What to do then; with the place of its URL.
    """

    check: str
    folder: str
    decode: _Decode
    consequence: str
    fix: str


_LEDGERS = _Kind(
    "ledgers",
    _ledger.HEALTH,
    _ledger.decode,
    "it is ignored: what it told of counts as unread",
    "delete {}, and verify anew (kumo-crt verify --level full)",
)
_MARKS = _Kind(
    "marks",
    _census.MARKS,
    _census.decode_mark,
    "it is ignored: what it marked is marked anew, and deleted later",
    "run kumo-crt prune: it deletes {}",
)
_PINS = _Kind(
    "pins",
    _pins.PINS,
    _pins.decode_pin,
    "its snapshot stays pinned, by the name of the pin; when and by whom is not known",
    "pin that snapshot anew, after it was unpinned, or delete {}",
)
_NOTICES = _Kind(
    "damage notices",
    _inflight.INFLIGHT,
    _notices.decode,
    "it is ignored: backups rely on what it told of",
    "verify anew (kumo-crt verify --snapshot all), and delete {}",
)


def documents_task(store: Store, findings: Findings, now: datetime) -> Task[None]:
    """Looks at leases and notices, ledgers, marks and pins."""
    yield from findings.tried("leases", _inflight_task(store, findings, now), permission=_READ)
    for kind in (_LEDGERS, _MARKS, _PINS):
        yield from findings.tried(kind.check, _folder(store, findings, kind), permission=_READ)
    yield from findings.tried("spare pins", _halves(store, findings), permission=_READ)
    yield from findings.tried(
        "spare manifests", _spare_manifests(store, findings), permission=_READ
    )


def _inflight_task(store: Store, findings: Findings, now: datetime) -> Task[None]:
    listed = yield from _inflight.look(store)
    yield from _leases(store, findings, listed.leases.values(), now)
    yield from _readable(store, findings, _NOTICES, listed.notices)
    _strangers(store, findings, "inflight", listed.strangers)


def _leases(
    store: Store, findings: Findings, leases: Iterable[LeaseState], now: datetime
) -> Task[None]:
    leases = list(leases)
    lapsed = [lease for lease in leases if lease.has_lapsed(now)]
    parts: dict[str, Part] = {
        part.key: part
        for lease in leases
        for part in lease.parts
        # A prune removes what has lapsed unread; until then backups and pins read what it deletes.
        if lease not in lapsed or part.kind == _inflight.SWEEP
    }
    bad = yield from _unreadable(store, findings, "leases", parts, _inflight.decode_lease)
    for key, problem in _first(findings, ERROR, "leases", bad):
        kind = parts[key].kind
        findings.add(
            ERROR,
            "leases",
            f"{problem}: {_STOPPED[kind]} refused",
            _inflight.remedy(kind, store.url(key)),
        )
    if lapsed:
        findings.add(
            WARNING,
            "leases",
            f"{len(lapsed)} backups or prunes were killed and have left their leases",
            "run kumo-crt prune: it removes them",
        )
    elif not bad:
        findings.ok("leases", f"{len(leases)} at work, none has lapsed")


def _folder(store: Store, findings: Findings, kind: _Kind) -> Task[None]:
    start = len(store.location.prefix)
    keys = [item.key[start:] for item in (yield from store.list_all(kind.folder))]
    known = [key for key in keys if _is_known(kind, key)]
    yield from _readable(store, findings, kind, known)
    _strangers(store, findings, kind.check, sorted(set(keys).difference(known)))


def _halves(store: Store, findings: Findings) -> Task[None]:
    lost = yield from _pins.list_halves(store)
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        findings.add(
            WARNING,
            "spare pins",
            f"{store.url(lost[0])}{more}: one of the two objects of a pin is missing; the snapshot "
            "is pinned all the same",
            "pin that snapshot again (kumo-crt pin), or unpin it",
        )


def _spare_manifests(store: Store, findings: Findings) -> Task[None]:
    """Whether spares can be read; contents tell those that are missing."""
    ours = store.terms.repository_id if store.terms is not None else None

    def decode(document: memoryview, where: str) -> object:
        snapshot_id = where.rpartition("/")[2].removesuffix(".json")
        return _manifest.decode_snapshot(document, where, snapshot_id, store.key, ours)

    kind = _Kind(
        "spare manifests",
        _layout.SPARES,
        decode,
        "it is of no use if its manifest is lost",
        "run kumo-crt repair: from the manifest, it writes {} anew",
    )
    start = len(store.location.prefix)
    listed = [item.key[start:] for item in (yield from store.list_all(kind.folder))]
    keys = [key for key in listed if not key.startswith(_pins.SPARE_PINS)]
    known = [key for key in keys if _is_known(kind, key)]
    yield from _readable(store, findings, kind, known)
    _strangers(store, findings, kind.check, sorted(set(keys).difference(known)))


def _is_known(kind: _Kind, key: str) -> bool:
    name = key.removeprefix(kind.folder)
    return name.endswith(".json") and _layout.is_snapshot_id(name.removesuffix(".json"))


def _readable(store: Store, findings: Findings, kind: _Kind, keys: Iterable[str]) -> Task[None]:
    """Whether the documents of a kind can be read."""
    keys = list(keys)
    bad = yield from _unreadable(store, findings, kind.check, keys, kind.decode)
    for key, problem in _first(findings, WARNING, kind.check, bad):
        fix = kind.fix.format(store.url(key))
        findings.add(WARNING, kind.check, f"{problem}: {kind.consequence}", fix)
    if not bad:
        findings.ok(kind.check, f"{len(keys)}, nothing is wrong with them" if keys else "none")


def _unreadable(
    store: Store, findings: Findings, check: str, keys: Iterable[str], decode: _Decode
) -> Task[dict[str, str]]:
    """What is wrong with documents, by their keys; of very many, only some are read."""
    keys = list(keys)
    if len(keys) > _MOST:
        findings.add(INFO, check, f"{len(keys)}, of which {_MOST} were read")
        keys = keys[:_MOST]

    def look(key: str) -> Task[str | None]:
        try:
            document, _ = yield from store.read(key)
            decode(document, store.url(key))
        except NotFoundError:
            return None  # deleted since it was listed
        except FormatError as error:
            return str(error)
        except ChecksumMismatchError as error:
            return f"{store.url(key)}: {error}"
        return None

    found: list[str | None] = yield Gather(map(look, keys), _AT_ONCE)
    return {key: bad for key, bad in zip(keys, found, strict=True) if bad is not None}


def _first(
    findings: Findings, severity: str, check: str, bad: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    """Those that are named one by one; the others are counted."""
    if len(bad) > _NAMED:
        findings.add(
            severity, check, f"{len(bad) - _NAMED} more cannot be read", "run this once more then"
        )
    return list(bad.items())[:_NAMED]


def _strangers(store: Store, findings: Findings, check: str, keys: list[str]) -> None:
    """Objects that nobody heeds."""
    if not keys:
        return
    more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
    findings.add(
        WARNING,
        check,
        f"{store.url(keys[0])}{more}: not known to this kumo_crt, which does not heed it",
        "use a newer kumo_crt on every machine, or delete what does not belong there",
    )
