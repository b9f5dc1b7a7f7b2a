"""Looks a repository over, from the network up: what may go wrong, and what to do about it."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from kumo_crt._config import Settings
from kumo_crt._engine import Task
from kumo_crt.backup import _census, _doctor_bucket, _doctor_probe, _inflight, _ledger
from kumo_crt.backup._findings import ERROR, INFO, OK, WARNING, Findings
from kumo_crt.backup._reports import DoctorReport, Finding
from kumo_crt.backup._results import Snapshot
from kumo_crt.backup._store import Store
from kumo_crt.exceptions import EncryptionKeyError, FormatError, KumoError, NotFoundError
from kumo_crt.s3._listings import list_uploads_task

T = TypeVar("T")
_ENCRYPTION = "client-side encryption"
_SKEW_WARNING = 60.0
_CERTIFICATE_WARNING = timedelta(days=21)
_UPLOAD_AGE = timedelta(days=1)
_VERIFIED_WARNING = timedelta(days=92)
_MANY_FAMILIES = 200
_MANY_FILES = 10_000
_SMALL_FILE = 1 << 20


class _Run(Protocol):
    def __call__(self, task: Task[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class DoctorPlan:
    """What a doctor is to look at; see `Repository.doctor`.

    ``store`` makes a view of the repository: a new one once its configuration is known.
    """

    run: _Run
    store: Callable[[], Store]
    load: Callable[[], datetime | None]
    settings: Settings
    environment: str | None
    write: bool
    throughput_bytes: int


def examine(plan: DoctorPlan) -> DoctorReport:
    """Makes every check that can be made."""
    started = time.monotonic()
    findings = Findings()
    _endpoint(plan, findings)
    reached, now = _repository(plan, findings)
    if reached:
        store = plan.store()
        matches = now is None or _environment(plan, store, findings)
        _encryption(store, findings)
        plan.run(_doctor_bucket.bucket_task(store, findings))
        if not plan.write:
            findings.add(INFO, "permissions", "not tried: told to write nothing")
        elif not matches:
            findings.add(INFO, "permissions", "not tried: this is another environment's repository")
        else:
            plan.run(_doctor_probe.probe_task(store, findings, plan.throughput_bytes))
        if now is not None:
            plan.run(_contents(store, findings, now))
    return DoctorReport(
        ok=all(finding.severity != ERROR for finding in findings.all),
        findings=tuple(_ordered(findings.all)),
        seconds=time.monotonic() - started,
    )


def _ordered(found: Iterable[Finding]) -> list[Finding]:
    """The worst first."""
    ranks = {ERROR: 0, WARNING: 1, INFO: 2, OK: 3}
    return sorted(found, key=lambda finding: ranks[finding.severity])


def _endpoint(plan: DoctorPlan, findings: Findings) -> None:
    url = plan.settings.endpoint_url
    if url is None:
        findings.ok("endpoint", f"AWS, region {plan.settings.region}, TLS")
        return
    parts = urlsplit(url)
    if parts.scheme == "http":
        local = _is_loopback(parts.hostname or "")
        findings.add(
            OK if local else WARNING,
            "endpoint",
            f"{url}: not encrypted"
            + (
                ", on this machine"
                if local
                else "; whoever is on the way "
                "can read the backups, and the requests that a signature allows"
            ),
            "" if local else "use an https endpoint",
        )
        return
    if not plan.settings.verify:
        findings.add(
            WARNING,
            "endpoint",
            f"{url}: its certificate is not looked at",
            "name the CA's file (ca_file, AWS_CA_BUNDLE) instead of turning the check off",
        )
        return
    until = _certificate_until(plan.settings, parts.hostname or "", parts.port or 443)
    left = until - datetime.now(UTC) if until is not None else None
    if until is None or left is None:
        findings.add(INFO, "endpoint", f"{url}: how long its certificate lasts is not known")
    elif left < _CERTIFICATE_WARNING:
        findings.add(
            WARNING,
            "endpoint",
            f"{url}: its certificate ends on {until:%F}",
            "renew it: afterwards there are no backups",
        )
    else:
        findings.ok("endpoint", f"{url}: TLS, certificate until {until:%F}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _certificate_until(settings: Settings, host: str, port: int) -> datetime | None:
    """When the endpoint's certificate ends; None if Python's own TLS cannot tell."""
    import socket
    import ssl

    with contextlib.suppress(OSError, ValueError):
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        with (
            socket.create_connection((host, port), settings.connect_timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert() or {}
            end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            return datetime.fromtimestamp(end, UTC)
    return None


def _repository(plan: DoctorPlan, findings: Findings) -> tuple[bool, datetime | None]:
    """Opens the repository.

    Returns:
        Whether the bucket can be looked at, and the service's time, if there is a repository in it.
    """
    before = datetime.now(UTC)
    begun = time.monotonic()
    try:
        now = plan.load()
    except NotFoundError as error:
        findings.add(ERROR, "bucket", str(error), "create the bucket, or look at the URL")
        return False, None
    except EncryptionKeyError as error:
        findings.add(
            ERROR,
            _ENCRYPTION,
            str(error),
            "give the right key, or none: then everything is looked at that needs none",
        )
        return False, None
    except FormatError as error:
        findings.add(
            ERROR,
            "repository",
            str(error),
            "use a newer kumo_crt, or bring kumo-repository.json back from a version or a copy",
        )
        return False, None
    except KumoError as error:
        fix = "mend that first: nothing else could be looked at"
        findings.add(ERROR, "connection", str(error), fix)
        return False, None
    if now is None:
        findings.add(
            ERROR,
            "repository",
            "there is no repository here",
            "look at the URL, or create it (kumo-crt backup --create)",
        )
        findings.ok("connection", "the service answers, and accepts these credentials")
        return True, None
    findings.ok("connection", "the service answers, and accepts these credentials")
    middle = before + timedelta(seconds=(time.monotonic() - begun) / 2)
    skew = (now - middle).total_seconds()
    if abs(skew) > _SKEW_WARNING:
        findings.add(
            WARNING,
            "clock",
            f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead'}",
            "synchronise it (NTP): beyond 15 minutes services refuse requests",
        )
    else:
        findings.ok("clock", "as the service's, to a minute")
    return True, now


def _encryption(store: Store, findings: Findings) -> None:
    if store.key is not None:
        findings.ok(_ENCRYPTION, f"AES-256-GCM; key {store.key.id} is the repository's")
    elif store.terms is not None and store.terms.key_check is not None:
        findings.add(
            INFO,
            _ENCRYPTION,
            "AES-256-GCM; no key was given: whether there still is one was not looked at",
            "run this with the key now and then: without it there is no restore",
        )


def _environment(plan: DoctorPlan, store: Store, findings: Findings) -> bool:
    theirs = store.terms.environment if store.terms is not None else None
    ours = plan.environment
    if theirs is None:
        findings.add(
            INFO,
            "environment",
            "this repository belongs to no environment: any client may write to it",
            "name one when you create a repository (environment=, --environment)",
        )
    elif ours is None:
        findings.add(
            WARNING,
            "environment",
            f"this repository belongs to {theirs!r}, this client to none: it would not be refused",
            "set KUMO_ENVIRONMENT on every machine",
        )
    elif ours != theirs:
        findings.add(
            ERROR,
            "environment",
            f"this repository belongs to {theirs!r}, this client to {ours!r}",
            "look at the URL, and at KUMO_ENVIRONMENT",
        )
        return False
    else:
        findings.ok("environment", f"{theirs}, as this client")
    return True


def _contents(store: Store, findings: Findings, now: datetime) -> Task[None]:
    yield from findings.tried("snapshots", _snapshots(store, findings, now))
    yield from findings.tried("uploads", _uploads(store, findings, now), severity=INFO)
    yield from findings.tried("leases", _leases(store, findings, now), severity=INFO)


def _snapshots(store: Store, findings: Findings, now: datetime) -> Task[None]:
    strangers = yield from _census.list_strangers(store)
    if strangers:
        more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        findings.add(
            ERROR,
            "snapshots",
            f"s3://{store.bucket}/{strangers[0]}{more}: no manifest that this kumo_crt knows",
            "use a newer kumo_crt, or move elsewhere what does not belong there: prune deletes "
            "nothing before that",
        )
    ids = yield from store.snapshot_ids()
    if not ids:
        findings.add(WARNING, "snapshots", "there are none", "make a backup")
        return
    snapshots: list[Snapshot] = []
    for snapshot_id in ids:
        try:
            snapshot = yield from store.listed_snapshot(snapshot_id)
        except FormatError as error:
            findings.add(
                ERROR,
                "snapshots",
                str(error),
                "bring the manifest back from a version or a copy; prune deletes nothing before "
                "that, or before it is deleted",
            )
            continue
        if snapshot is not None:
            snapshots.append(snapshot)
    if not snapshots:
        return
    newest = snapshots[-1]
    age = now - newest.created_at
    findings.ok(
        "snapshots",
        f"{len(snapshots)}, the newest {age.total_seconds() / 3600:.1f} h old with "
        f"{len(newest.files)} files, {newest.total_bytes / 1e6:.0f} MB, "
        f"{len(newest.column_families)} column families",
    )
    _shape(newest, findings)
    ledger = yield from _ledger.read_task(store)
    damage = ledger.known_damage()
    keys = {file.key for snapshot in snapshots for file in snapshot.files if file.key is not None}
    damaged = sorted(keys & set(damage))
    if damaged:
        findings.add(
            ERROR,
            "damage",
            f"{len(damaged)} object{'s were' if len(damaged) > 1 else ' was'} found damaged and "
            "not read since; the first is "
            f"{damaged[0]} ({damage[damaged[0]].kind})",
            "back up the database: it sends again what it still has; then kumo-crt repair, from "
            "copies that have the rest",
        )
    oldest = ledger.oldest_read(file.key for file in newest.files if file.key is not None)
    if oldest is None or now - oldest > _VERIFIED_WARNING:
        since = f"since {oldest:%F}" if oldest is not None else "yet"
        findings.add(
            WARNING,
            "verified",
            f"not every byte of the newest snapshot has been read {since}",
            "run kumo-crt verify --snapshot all --level full --subset oldest/7 every night, or "
            "kumo-crt drill",
        )
    else:
        findings.ok("verified", f"every byte of the newest snapshot since {oldest:%F}")


def _shape(newest: Snapshot, findings: Findings) -> None:
    """What makes backups slow and dear."""
    if len(newest.column_families) > _MANY_FAMILIES:
        findings.add(
            WARNING,
            "column families",
            f"{len(newest.column_families)}: each has files of its own, that every backup looks at",
            "keep tenants apart by key prefixes instead of column families, where that is possible",
        )
    tables = [file for file in newest.files if file.kind == "sst"]
    size = sum(file.size for file in tables)
    if len(tables) > _MANY_FILES and size / len(tables) < _SMALL_FILE:
        findings.add(
            WARNING,
            "files",
            f"{len(tables)} table files of {size / len(tables) / 1e3:.0f} kB on average: requests "
            "cost more than bytes",
            "compact before backups, or raise target_file_size_base",
        )


def _uploads(store: Store, findings: Findings, now: datetime) -> Task[None]:
    found = yield from list_uploads_task(store.context, store.bucket, store.location.key(""))
    old = [
        item for item in found if item.initiated is not None and now - item.initiated > _UPLOAD_AGE
    ]
    if old:
        findings.add(
            WARNING,
            "uploads",
            f"{len(old)} uploads were begun more than a day ago and never finished",
            "run kumo-crt prune, and have a lifecycle rule for it",
        )
    else:
        findings.ok("uploads", f"{len(found)} unfinished, none older than a day")


def _leases(store: Store, findings: Findings, now: datetime) -> Task[None]:
    leases = yield from _inflight.list_leases(store)
    lapsed = [lease for lease in leases.values() if lease.has_lapsed(now)]
    if lapsed:
        findings.add(
            WARNING,
            "leases",
            f"{len(lapsed)} backups or prunes were killed and have left their leases",
            "run kumo-crt prune: it removes them",
        )
    else:
        findings.ok("leases", f"{len(leases)} at work, none has lapsed")
