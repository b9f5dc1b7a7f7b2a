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
from kumo_crt.backup._doctor import _bucket, _contents, _probe
from kumo_crt.backup._doctor._findings import ERROR, INFO, OK, WARNING, Findings
from kumo_crt.backup._reports import DoctorReport, Finding
from kumo_crt.backup._store._store import Store
from kumo_crt.exceptions import (
    AccessDeniedError,
    EncryptionKeyError,
    FormatError,
    KumoError,
    NotFoundError,
)

T = TypeVar("T")
_ENCRYPTION = "client-side encryption"
_SKEW_WARNING = 60.0
# Of seconds: what is signed with a clock that is further off is refused, by AWS and by most.
_SKEW_LIMIT = 900.0
_CERTIFICATE_WARNING = timedelta(days=21)


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
        plan.run(_bucket.bucket_task(store, findings))
        if not plan.write:
            findings.add(INFO, "permissions", "not tried: told to write nothing")
        elif not matches:
            findings.add(INFO, "permissions", "not tried: this is another environment's repository")
        else:
            plan.run(_probe.probe_task(store, findings, plan.throughput_bytes))
        if now is not None:
            plan.run(_contents.contents_task(store, findings, now))
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
            "name the CA's file (ca_file, --ca-file, AWS_CA_BUNDLE): do not turn the check off",
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
            "use a newer kumo_crt, or bring kumo-repository.json back from a version or a copy; if "
            "there is none, kumo-crt repair-config writes it anew, once what is damaged is deleted",
        )
        return False, None
    except KumoError as error:
        fix = "mend that first: nothing else could be looked at"
        if isinstance(error, AccessDeniedError) and error.code == "AccessDenied":
            fix = "allow s3:GetObject and s3:ListBucket to these credentials: " + fix
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
            ERROR if abs(skew) > _SKEW_LIMIT else WARNING,
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
