"""How a bucket is set up, seen with the eyes of a backup repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kumo_crt._engine import Task
from kumo_crt.backup._coordination import _pins
from kumo_crt.backup._doctor._findings import ERROR, INFO, WARNING, Findings
from kumo_crt.backup._format import _layout
from kumo_crt.backup._store._store import Store
from kumo_crt.s3._answers import text_of
from kumo_crt.s3._bucket import configuration_task

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_PREFIXES = ("Filter/Prefix", "Filter/And/Prefix", "Prefix")
_CONDITIONS = tuple(
    f"Filter/{within}{name}"
    for within in ("", "And/")
    for name in ("Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
)
# What may not expire. Of quarantine/, health/ and what lives for hours only nothing is missed.
_DOCUMENTS = (_layout.CONFIG_KEY, _layout.SNAPSHOTS, _layout.SPARES, _pins.PINS)
_ABORT_RULE = (
    "add a lifecycle rule with AbortIncompleteMultipartUpload, DaysAfterInitiation 7: what "
    "killed uploads leave is paid for and shown nowhere"
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A lifecycle rule that is switched on."""

    name: str
    prefix: str
    everything: bool  # below its prefix, whatever tags and sizes
    abort_days: int | None
    expires: bool
    noncurrent_expires: bool
    transitions: tuple[tuple[str, int | None], ...]

    def covers(self, prefix: str) -> bool:
        """Whether it holds for all that begins so."""
        return self.everything and prefix.startswith(self.prefix)

    def touches(self, prefix: str) -> bool:
        """Whether it may hold for something that begins so."""
        return prefix.startswith(self.prefix) or self.prefix.startswith(prefix)


def bucket_task(store: Store, findings: Findings) -> Task[None]:
    """Looks at versioning, lifecycle, encryption and object lock."""
    versioned: list[bool] = []
    yield from findings.tried(
        "versioning",
        _versioning(store, findings, versioned),
        permission="s3:GetBucketVersioning",
        severity=INFO,
    )
    yield from findings.tried(
        "lifecycle",
        _lifecycle(store, findings, bool(versioned)),
        permission="s3:GetLifecycleConfiguration",
        severity=INFO,
    )
    yield from findings.tried(
        "encryption",
        _encryption(store, findings),
        permission="s3:GetEncryptionConfiguration",
        severity=INFO,
    )
    yield from findings.tried(
        "object lock",
        _object_lock(store, findings),
        permission="s3:GetBucketObjectLockConfiguration",
        severity=INFO,
    )


def _versioning(store: Store, findings: Findings, versioned: list[bool]) -> Task[None]:
    root = yield from configuration_task(
        store.context, store.bucket, "GetBucketVersioning", "versioning"
    )
    status = text_of(root, "Status") if root is not None else ""
    if status == "Enabled":
        versioned.append(True)
        findings.ok("versioning", "enabled: what is deleted can be brought back")
    else:
        findings.add(
            INFO,
            "versioning",
            f"{status.lower() or 'not enabled'}: what is deleted, by whomever, is gone",
            "enable versioning with a lifecycle rule that expires noncurrent versions, or create "
            "the bucket with Object Lock",
        )


def _rules(root: Element | None) -> Iterator[_Rule]:
    for rule in root.iterfind("Rule") if root is not None else ():
        if text_of(rule, "Status") != "Enabled":
            continue
        prefixes = [text_of(rule, path) for path in _PREFIXES]
        yield _Rule(
            name=text_of(rule, "ID") or "without a name",
            prefix=next((prefix for prefix in prefixes if prefix), ""),
            everything=all(rule.find(path) is None for path in _CONDITIONS),
            abort_days=_days(text_of(rule, "AbortIncompleteMultipartUpload/DaysAfterInitiation")),
            expires=bool(text_of(rule, "Expiration/Days") or text_of(rule, "Expiration/Date")),
            noncurrent_expires=rule.find("NoncurrentVersionExpiration") is not None,
            transitions=tuple(
                (text_of(item, "StorageClass"), _days(text_of(item, "Days")))
                for item in rule.iterfind("Transition")
            ),
        )


def _days(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _lifecycle(store: Store, findings: Findings, versioned: bool) -> Task[None]:
    root = yield from configuration_task(
        store.context, store.bucket, "GetBucketLifecycleConfiguration", "lifecycle"
    )
    here = store.location.key("")
    kept = [store.location.key(below) for below in (_layout.DATA, *_DOCUMENTS)]
    rules = list(_rules(root))
    aborting = [rule for rule in rules if rule.abort_days is not None and rule.covers(here)]
    if not aborting:
        findings.add(WARNING, "lifecycle", "no rule removes unfinished uploads", _ABORT_RULE)
    else:
        days = min(rule.abort_days or 0 for rule in aborting)
        findings.ok("lifecycle", f"unfinished uploads are removed after {days} days")
    for rule in rules:
        if rule.expires and any(map(rule.touches, kept)):
            findings.add(
                ERROR,
                "lifecycle",
                f"rule {rule.name!r} deletes objects of this repository by their age: data that "
                "new snapshots still use is among them",
                "take the repository's prefix out of the rule; prune deletes what is not needed",
            )
        for storage_class, days_until in rule.transitions:
            _transition(store, findings, rule, storage_class, days_until)
    if versioned and not any(rule.noncurrent_expires and rule.covers(here) for rule in rules):
        findings.add(
            WARNING,
            "lifecycle",
            "the bucket keeps versions and no rule expires them: what prune deletes is paid for "
            "for ever",
            "add a lifecycle rule with NoncurrentVersionExpiration, such as NoncurrentDays 30",
        )


def _transition(
    store: Store, findings: Findings, rule: _Rule, storage_class: str, days: int | None
) -> None:
    if storage_class not in _ARCHIVES:
        return
    when = f"after {days} days" if days is not None else "at a date"
    if any(rule.touches(store.location.key(below)) for below in _DOCUMENTS):
        findings.add(
            ERROR,
            "lifecycle",
            f"rule {rule.name!r} archives this repository's manifests ({storage_class}, {when}): "
            "then nothing can be listed or restored before they are thawed",
            f"let the rule hold for {store.location.key(_layout.DATA)} alone",
        )
    elif rule.touches(store.location.key(_layout.DATA)):
        findings.add(
            WARNING,
            "lifecycle",
            f"rule {rule.name!r} archives data ({storage_class}, {when}): a restore has to wait "
            "for it to be thawed (--request-thaw)",
            "transition to GLACIER_IR or STANDARD_IA instead, if recovery must be quick",
        )


def _encryption(store: Store, findings: Findings) -> Task[None]:
    root = yield from configuration_task(
        store.context, store.bucket, "GetBucketEncryption", "encryption"
    )
    path = "Rule/ApplyServerSideEncryptionByDefault/SSEAlgorithm"
    found = text_of(root, path) if root is not None else ""
    wanted = store.terms.sse if store.terms is not None else None
    if wanted is not None:
        findings.ok("encryption", f"this repository asks for {wanted} with every object")
    elif found:
        findings.ok("encryption", f"the bucket encrypts with {found}")
    elif store.terms is not None and store.terms.key_check is not None:
        findings.ok("encryption", "files are encrypted before they are sent, if not by the service")
    else:
        findings.add(
            WARNING,
            "encryption",
            "neither the bucket nor this repository asks for encryption at rest",
            "set the bucket's default encryption, or create repositories with sse= (--sse), or "
            "with a key of your own (kumo-crt keygen)",
        )


def _object_lock(store: Store, findings: Findings) -> Task[None]:
    root = yield from configuration_task(
        store.context, store.bucket, "GetObjectLockConfiguration", "object-lock"
    )
    if root is None or text_of(root, "ObjectLockEnabled") != "Enabled":
        findings.add(
            INFO,
            "object lock",
            "not enabled: whoever has these credentials, or better ones, can delete the backups",
            "use a bucket with Object Lock where that must not be possible",
        )
        return
    mode = text_of(root, "Rule/DefaultRetention/Mode")
    days = text_of(root, "Rule/DefaultRetention/Days")
    years = text_of(root, "Rule/DefaultRetention/Years")
    if mode:
        period = f"{days} days" if days else f"{years} years"
        findings.ok("object lock", f"{mode.lower()}, {period}: nothing is lost before that")
    else:
        findings.add(
            INFO,
            "object lock",
            "possible, but new objects are not locked",
            "set a default retention for the bucket",
        )
