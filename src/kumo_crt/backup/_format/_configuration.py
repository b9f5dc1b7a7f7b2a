"""Writes and reads the document that makes a prefix a repository."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kumo_crt.backup._format import _sealing
from kumo_crt.backup._format._documents import VERSION, Reader, close, opened, time_text
from kumo_crt.backup._format._key import Key
from kumo_crt.exceptions import ChecksumMismatchError, FormatError

ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
# What somebody has chosen when the repository was created. Manifests say it once more.
TERMS = ("environment", "storage_class", "sse", "kms_key_id")
# Features of configurations.
_ENCRYPTED = "encrypted"
_STORAGE_CLASS = re.compile(r"[A-Z][A-Z_]{0,39}")
_32_DIGITS = re.compile(r"[0-9a-f]{32}")


class Config(NamedTuple):
    """A repository's configuration.

    Attributes:
        repository_id: Tells it from every other one.
        environment: Whose it is, if anybody's.
        created_at: Time of its creation.
        storage_class: Of data objects; None leaves it to the service.
        sse: Encryption to ask for; None leaves it to the bucket.
        kms_key_id: Key of it.
        key_check: Tells the key that everything is sealed with; None: nothing is.
    """

    repository_id: str
    environment: str | None
    created_at: datetime
    storage_class: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None
    key_check: str | None = None


def new_config(
    environment: str | None,
    storage_class: str | None,
    sse: str | None,
    kms_key_id: str | None,
    key: Key | None = None,
) -> Config:
    """The configuration of a new repository.

    Raises:
        ValueError: A setting is none that S3 has.
    """
    import uuid  # rarely needed, and slow to load

    from kumo_crt.s3._body import header_value

    if storage_class is not None and not _STORAGE_CLASS.fullmatch(storage_class):
        raise ValueError(
            f"storage class {storage_class!r} (storage_class, --storage-class): expected a name "
            "such as STANDARD_IA"
        )
    if sse is not None and sse not in ENCRYPTIONS:
        raise ValueError(f"encryption {sse!r} (sse, --sse): choose one of {', '.join(ENCRYPTIONS)}")
    if kms_key_id is not None and sse not in ("aws:kms", "aws:kms:dsse"):
        raise ValueError("a KMS key (kms_key_id, --kms-key-id) needs aws:kms (sse, --sse)")
    if kms_key_id is not None:
        header_value("kms_key_id", kms_key_id)
    now = datetime.now(UTC).replace(microsecond=0)
    repository_id = str(uuid.uuid4())
    check = None if key is None else _sealing.key_check(key, repository_id)
    return Config(repository_id, environment, now, storage_class, sse, kms_key_id, check)


def encode_config(config: Config) -> bytes:
    """The configuration as a document."""
    document: dict[str, Any] = {
        "format": "kumo-repository",
        "version": VERSION,
        "repository_id": config.repository_id,
        "created_at": time_text(config.created_at),
        **terms_of(config),
    }
    if config.key_check is not None:
        document["features"] = [_ENCRYPTED]
        document["encryption"] = {"algorithm": _sealing.ALGORITHM, "key_check": config.key_check}
    return close(json.dumps(document).encode().removesuffix(b"}"))


def terms_of(config: Config) -> dict[str, str | None]:
    """A configuration's terms, as members of a document; the environment is always there."""
    terms = {name: getattr(config, name) for name in TERMS}
    return {name: term for name, term in terms.items() if term or name == "environment"}


def read_terms(reader: Reader) -> dict[str, str | None]:
    """The terms in a document.

    Raises:
        FormatError: They are none.
    """
    environment = reader.value("environment")
    if environment is not None and not isinstance(environment, str):
        raise reader.error("environment", "expected a name or null")
    storage_class = reader.optional_text("storage_class")
    if storage_class is not None and not _STORAGE_CLASS.fullmatch(storage_class):
        raise reader.error("storage_class", "expected a name such as STANDARD_IA")
    sse = reader.optional_text("sse")
    if sse is not None and sse not in ENCRYPTIONS:
        raise reader.error("sse", f"expected one of {', '.join(ENCRYPTIONS)}")
    kms_key_id = reader.optional_text("kms_key_id")
    return dict(zip(TERMS, (environment, storage_class, sse, kms_key_id), strict=True))


def told_config(reader: Reader) -> Config:
    """What a manifest tells of its repository's configuration.

    Raises:
        FormatError: It does not say everything.
    """
    if not reader.has("environment"):
        raise reader.error("environment", "is missing: it would tell whose the repository is")
    now = datetime.now(UTC).replace(microsecond=0)
    return Config(reader.text("repository_id"), created_at=now, **read_terms(reader))


def decode_config(document: bytes | memoryview, where: str) -> Config:
    """Reads a configuration.

    Raises:
        FormatError: It is not one that this version knows.
    """
    reader = Reader(document, where, "kumo-repository", (_ENCRYPTED,))
    config = Config(
        reader.text("repository_id"),
        created_at=reader.time("created_at"),
        key_check=_key_check(reader) if _ENCRYPTED in reader.features else None,
        **read_terms(reader),
    )
    if not opened(document)[1]:
        raise reader.changed()
    return config


def unreadable(error: ChecksumMismatchError | FormatError) -> FormatError:
    """What to raise of a configuration that cannot be read."""
    if isinstance(error, FormatError) and "use a newer kumo_crt" in str(error):
        return error
    return FormatError(
        f"{error}: the repository's configuration is damaged. Bring it back from a version or a "
        "copy; if there is none, delete it, and have it written anew from what the manifests tell "
        "(kumo-crt repair-config, Repository.recover_config)"
    )


def _key_check(reader: Reader) -> str:
    found = reader.value("encryption")
    if not isinstance(found, dict):
        raise reader.error("encryption", "expected an object")
    if found.get("algorithm") != _sealing.ALGORITHM:
        raise reader.error(
            "encryption.algorithm",
            f"{found.get('algorithm')!r}"[:80] + f" is not {_sealing.ALGORITHM}, the one that this "
            "kumo_crt knows: use a newer kumo_crt",
        )
    check = found.get("key_check")
    if not isinstance(check, str) or not _32_DIGITS.fullmatch(check):
        raise reader.error("encryption.key_check", "expected 32 hexadecimal digits")
    return check
