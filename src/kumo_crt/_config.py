"""Where a client connects and how, from arguments, environment and the AWS config file.

Follows the AWS SDKs' conventions: an argument wins over the environment, which wins over the
profile in ``~/.aws/config`` (``AWS_CONFIG_FILE``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kumo_crt import _proxies
from kumo_crt._units import N, parse_size, read_variable

if TYPE_CHECKING:
    import configparser

MIB = 1024 * 1024
MIN_PART_SIZE = 5 * MIB
MAX_PART_SIZE = 5 * 1024 * MIB
MAX_PARTS = 10_000
DEFAULT_PART_SIZE = 8 * MIB
DEFAULT_MEMORY_LIMIT = 64 * MIB
DEFAULT_MAX_CONNECTIONS = 16
DEFAULT_MAX_ATTEMPTS = 5
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_REQUEST_TIMEOUT = 60.0
DEFAULT_DEADLINE = 300.0
DEFAULT_REGION = "us-east-1"
_IGNORE_ENDPOINTS = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
ADDRESSING_STYLES = ("auto", "path", "virtual")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Settings:
    """What a client is made of. Secrets stay out of its repr."""

    region: str
    endpoint_url: str | None
    ca_file: str
    verify: bool
    addressing_style: str
    part_size: int
    multipart_threshold: int
    max_connections: int
    memory_limit: int
    event_loops: int
    max_attempts: int
    connect_timeout: float
    request_timeout: float
    deadline: float
    anonymous: bool
    profile: str | None
    requester_pays: bool = False
    expected_bucket_owner: str | None = None
    own_memory: bool = True  # memory_limit is the client's, not the whole process's
    patient: bool = False  # max_attempts was left open: more of them, where that helps
    checksum_trailers: bool = True
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


def _environment(*names: str) -> str | None:
    for name in names:
        value = os.environ.get(name)
        if value:
            return value
    return None


class _ConfigFile:
    """The AWS config file, read only when something is looked up in it."""

    def __init__(self, profile: str | None) -> None:
        # AWS_PROFILE alone, as for credentials: both are to be of one profile.
        self._profile = profile or _environment("AWS_PROFILE") or "default"
        self._parser: configparser.RawConfigParser | None = None

    def _section(self, name: str) -> dict[str, str]:
        if self._parser is None:
            import configparser

            self._parser = configparser.RawConfigParser(strict=False, default_section="\0none")
            path = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
            try:
                self._parser.read(path, encoding="utf-8")
            except (OSError, UnicodeDecodeError, configparser.Error) as error:
                raise ValueError(
                    f"the AWS config file {path} cannot be read: {error}. "
                    "Mend it, or point AWS_CONFIG_FILE at another one"
                ) from error
        return dict(self._parser[name]) if self._parser.has_section(name) else {}

    def _profile_section(self) -> dict[str, str]:
        if self._profile == "default":
            return self._section("default") or self._section("profile default")
        return self._section(f"profile {self._profile}")

    def get(self, key: str) -> str | None:
        return self._profile_section().get(key) or None

    @staticmethod
    def _nested(text: str) -> dict[str, str]:
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip() for key, _, value in pairs}

    def s3_endpoint(self) -> str | None:
        profile = self._profile_section()
        services = profile.get("services")
        if services:
            s3 = self._nested(self._section(f"services {services}").get("s3", ""))
            if s3.get("endpoint_url"):
                return s3["endpoint_url"]
        s3 = self._nested(profile.get("s3", ""))
        return s3.get("endpoint_url") or profile.get("endpoint_url") or None


def _number(
    name: str,
    value: N | None,
    default: N,
    convert: Callable[[str], N],
    low: float,
    high: float,
    *,
    aws_variable: str | None = None,
) -> N:
    said = name
    if value is None:
        said = f"KUMO_CRT_{name.upper()}"
        if aws_variable is not None and not _environment(said):
            said = aws_variable
        text = _environment(said)
        if text is None:
            return default
        value = read_variable(said, text, convert)
    kinds = int | float if convert is float else int
    if not isinstance(value, kinds):
        expected = "a number" if convert is float else "a whole number"
        raise TypeError(f"{name}: expected {expected}, not {type(value).__name__}")
    if not low <= value <= high:
        # Whole: nobody sees 5 MiB in 5.24288e+06.
        limits = (f"{limit:.0f}" if limit >= 1 else f"{limit:g}" for limit in (low, high))
        unit = " bytes" if convert is parse_size else ""
        raise ValueError(f"{said} is {value}: it must be from {' to '.join(limits)}{unit}")
    return value


def _switch(name: str, value: bool | None, default: bool) -> bool:
    if value is not None:
        _check_kinds(bool, "a bool", **{name: value})
        return value
    variable = f"KUMO_CRT_{name.upper()}"
    text = _environment(variable)
    if text is None:
        return default
    if text not in ("0", "1"):
        raise ValueError(f"{variable}={text!r}: expected 0 or 1")
    return text == "1"


def _check_kinds(kind: type, expected: str, **values: object) -> None:
    """Refuses what would be taken for something else: a ``verify`` of None for False, say.

    Raises:
        TypeError: One is not of the kind.
    """
    for name, value in values.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected {expected}, not {type(value).__name__}")


def _endpoint(argument: str | None, config: _ConfigFile) -> str | None:
    url = argument
    if not url and (_environment(_IGNORE_ENDPOINTS) or "").lower() != "true":
        url = _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or config.s3_endpoint()
    if not url:
        return None
    parts = urlsplit(url)
    try:
        valid = bool(parts.scheme in ("http", "https") and parts.hostname) and (
            parts.port is None or parts.port > 0
        )
    except ValueError:  # a port that is no number
        valid = False
    if not valid or "@" in url or parts.query or parts.path.strip("/"):
        # What stands before an @ may be a password: it is not repeated.
        shown = repr(url) if "@" not in url else "with a user"
        raise ValueError(
            f"endpoint URL {shown}: expected http(s)://host[:port], without a path, query or user"
        )
    return f"{parts.scheme}://{parts.netloc}"


def resolve(
    region: str | None = None,
    endpoint_url: str | None = None,
    *,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    profile: str | None = None,
    anonymous: bool = False,
    ca_file: str | os.PathLike[str] | None = None,
    verify: bool = True,
    addressing_style: str = "auto",
    part_size: int | None = None,
    multipart_threshold: int | None = None,
    max_connections: int | None = None,
    memory_limit: int | None = None,
    event_loops: int | None = None,
    max_attempts: int | None = None,
    connect_timeout: float | None = None,
    request_timeout: float | None = None,
    deadline: float | None = None,
    requester_pays: bool = False,
    expected_bucket_owner: str | None = None,
    checksum_trailers: bool | None = None,
    proxy: str | None = None,
) -> Settings:
    """Fills in what was not given; see `kumo_crt.S3Client` for the meanings.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range, or two contradict each other.
    """
    texts = {
        "region": region,
        "endpoint_url": endpoint_url,
        "access_key_id": access_key_id,
        "secret_access_key": secret_access_key,
        "session_token": session_token,
        "profile": profile,
        "expected_bucket_owner": expected_bucket_owner,
        "proxy": proxy,
    }
    _check_kinds(str, "a text", **{name: text for name, text in texts.items() if text is not None})
    _check_kinds(bool, "a bool", anonymous=anonymous, verify=verify, requester_pays=requester_pays)
    if (access_key_id is None) != (secret_access_key is None):
        raise ValueError("access_key_id and secret_access_key go together: give both or neither")
    if session_token is not None and access_key_id is None:
        raise ValueError("session_token needs access_key_id and secret_access_key")
    if addressing_style not in ADDRESSING_STYLES:
        raise ValueError(
            f"addressing_style {addressing_style!r}: choose one of {', '.join(ADDRESSING_STYLES)}"
        )
    if expected_bucket_owner is not None and not re.fullmatch("[0-9]{12}", expected_bucket_owner):
        raise ValueError(
            f"expected_bucket_owner {expected_bucket_owner!r}: an account id has 12 digits"
        )
    config = _ConfigFile(profile)
    endpoint = _endpoint(endpoint_url, config)
    part = _number(
        "part_size", part_size, DEFAULT_PART_SIZE, parse_size, MIN_PART_SIZE, MAX_PART_SIZE
    )
    ca = os.fspath(ca_file) if ca_file is not None else None
    ca = ca or _environment("AWS_CA_BUNDLE") or config.get("ca_bundle") or ""
    if ca and verify and not Path(ca).is_file():
        raise ValueError(
            f"CA file {ca!r} does not exist: see ca_file, AWS_CA_BUNDLE and ca_bundle in the "
            "AWS config file"
        )
    return Settings(
        region=region
        or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
        or config.get("region")
        or DEFAULT_REGION,
        endpoint_url=endpoint,
        ca_file=ca,
        verify=verify,
        addressing_style=addressing_style,
        part_size=part,
        multipart_threshold=_number(
            "multipart_threshold",
            multipart_threshold,
            max(part, 16 * MIB),
            parse_size,
            0,
            MAX_PART_SIZE,
        ),
        max_connections=_number(
            "max_connections", max_connections, DEFAULT_MAX_CONNECTIONS, int, 1, 10_000
        ),
        memory_limit=_number(
            "memory_limit",
            memory_limit,
            DEFAULT_MEMORY_LIMIT if part <= DEFAULT_MEMORY_LIMIT else 2 * part,
            parse_size,
            part,
            float(1 << 50),
        ),
        event_loops=_number("event_loops", event_loops, 0, int, 0, 1024),
        max_attempts=_number(
            "max_attempts",
            max_attempts,
            DEFAULT_MAX_ATTEMPTS,
            int,
            1,
            100,
            aws_variable="AWS_MAX_ATTEMPTS",
        ),
        connect_timeout=_number(
            "connect_timeout", connect_timeout, DEFAULT_CONNECT_TIMEOUT, float, 0.01, 3600
        ),
        request_timeout=_number(
            "request_timeout", request_timeout, DEFAULT_REQUEST_TIMEOUT, float, 1, 86400
        ),
        deadline=_number("deadline", deadline, DEFAULT_DEADLINE, float, 0, 86400),
        anonymous=anonymous,
        profile=profile,
        requester_pays=requester_pays,
        expected_bucket_owner=expected_bucket_owner,
        own_memory=memory_limit is not None,
        patient=max_attempts is None
        and not _environment("KUMO_CRT_MAX_ATTEMPTS", "AWS_MAX_ATTEMPTS"),
        checksum_trailers=_switch("checksum_trailers", checksum_trailers, True),
        proxy=_proxies.proxy_for(endpoint or "https://s3.amazonaws.com", proxy),
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=session_token,
    )
