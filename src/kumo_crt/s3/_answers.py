"""Reads what the service answers: headers, XML, errors."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from kumo_crt import _core
from kumo_crt.exceptions import (
    AccessDeniedError,
    ArchivedError,
    CredentialsError,
    ExpiredCredentialsError,
    KumoError,
    NotFoundError,
    PreconditionFailedError,
    S3Error,
    ThrottledError,
    TransportError,
)
from kumo_crt.s3 import _xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ALGORITHMS = ("crc32c", "crc32", "crc64nvme", "sha1", "sha256")
ATTEMPT = "kumo-attempt"
SSE = "x-amz-server-side-encryption"
SSE_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CODES_BY_STATUS = {
    301: "PermanentRedirect",
    304: "NotModified",
    400: "BadRequest",
    403: "AccessDenied",
    404: "NotFound",
    407: "ProxyAuthenticationRequired",
    409: "Conflict",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}
_THROTTLED = {
    "SlowDown",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
# Errors of signing that have other causes than the credentials.
_NO_CREDENTIALS_MATTER = (
    "AWS_AUTH_SIGNING_UNSUPPORTED",
    "AWS_AUTH_SIGNING_ILLEGAL",
    "AWS_AUTH_SIGNING_MIS",
    "AWS_AUTH_SIGNING_INVALID_CONF",
    "AWS_AUTH_CANONICAL",
)
# What comes of TLS where none is spoken, and of none where it is.
_CLOSED = ("AWS_IO_SOCKET_CLOSED", "AWS_ERROR_HTTP_CONNECTION_CLOSED")
_OTHER_SCHEME = "If it speaks {}, the URL begins with {}://"
_PROXIED = " through the proxy "
_SET_REGION = "set region"
_HINTS = {
    "ProxyAuthenticationRequired": "look at the user and password in the proxy's URL",
    "AccessDenied": "neither these credentials nor the bucket's policy allow it",
    "SignatureDoesNotMatch": "the secret access key is not the one of this access key id: look at "
    "where the credentials come from",
    "InvalidAccessKeyId": "the service does not know this access key id: look at where the "
    "credentials come from, and at the endpoint",
    "RequestTimeTooSkewed": "this machine's clock is off: set it right",
    "NotFound": "there is no such bucket, object or version",
    "NoSuchKey": "look at the key: a listing tells those that there are",
    "NoSuchBucket": "create the bucket, or look at its name and at the endpoint",
    "PermanentRedirect": f"the bucket is in another region: {_SET_REGION}",
    "AuthorizationHeaderMalformed": f"the bucket may be in another region: {_SET_REGION}",
    "ExpiredToken": "get new credentials, and try again",
    "InvalidObjectState": "the object is archived: ask for it to be thawed, and wait for that",
    "EntityTooLarge": "raise part_size or lower multipart_threshold",
}


class Headers:
    """Response headers, looked up in lower case."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values = {name.lower(): value for name, value in pairs}

    def get(self, name: str) -> str | None:
        """The header's value; None if absent."""
        return self._values.get(name)

    @property
    def etag(self) -> str:
        """ETag without its quotes."""
        return self._values.get("etag", "").strip('"')

    @property
    def content_encoding(self) -> str | None:
        """Content-Encoding, without how the object was sent, which some services keep."""
        codings = self._values.get("content-encoding")
        if codings is None:
            return None
        kept = [coding for coding in map(str.strip, codings.split(",")) if coding != "aws-chunked"]
        return ",".join(kept) or None

    @property
    def metadata(self) -> dict[str, str]:
        """User metadata, without what kumo_crt put there for itself."""
        return {
            name[11:]: value
            for name, value in self._values.items()
            if name[:11] == "x-amz-meta-" and name[11:] != ATTEMPT
        }

    @property
    def attempt(self) -> str | None:
        """The id left by a conditional upload."""
        return self._values.get("x-amz-meta-" + ATTEMPT)

    @property
    def checksums(self) -> dict[str, str]:
        """Stored checksums by algorithm, as base64 text."""
        found = {}
        for name in ALGORITHMS:
            value = self._values.get("x-amz-checksum-" + name)
            if value:
                found[name] = value
        return found

    @property
    def checksum_type(self) -> str | None:
        """FULL_OBJECT or COMPOSITE; inferred from the ``-parts`` suffix where not said."""
        said = self._values.get("x-amz-checksum-type")
        if said or not self.checksums:
            return said
        composite = any("-" in value for value in self.checksums.values())
        return "COMPOSITE" if composite else "FULL_OBJECT"

    def time(self, name: str) -> datetime | None:
        """A header that holds an HTTP date."""
        return http_time(self._values.get(name, ""))

    def number(self, name: str) -> int | None:
        """A header that holds a number not below zero."""
        value = self._values.get(name, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def decode_crc32c(text: str | None) -> int | None:
    """A full-object CRC32C from its S3 form (base64, big-endian); None if it is not one."""
    try:
        raw = binascii.a2b_base64(text or "", strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None


def check_origin(answer: Headers, status: int, what: str) -> None:
    """Refuses a success that is none of S3's: a login page, say, has no ETag, each object has one.

    Raises:
        S3Error: It has none.
    """
    if not answer.etag:
        raise S3Error(
            "MalformedResponse",
            status,
            f"{what}: the answer has no ETag, so it is none of S3's: look at the endpoint, and at "
            "what is between here and there",
        )


def quoted(etag: str) -> str:
    """An ETag as conditions have it, in quotes whether it came with them or not.

    Raises:
        TypeError: It is no text.
        ValueError: It cannot be part of a header.
    """
    if not isinstance(etag, str):
        raise TypeError(f"ETag: expected a text, not {type(etag).__name__}")
    if not etag.isascii() or not etag.isprintable():
        raise ValueError(f"ETag {etag!r}: is not printable ASCII, as S3 headers need")
    return f'"{etag.strip(chr(34))}"'


def encode_crc32c(value: int) -> str:
    """The S3 form of a CRC32C."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def parse_xml(body: bytes | memoryview, what: str, expected: str | None = None) -> Element:
    """Parses an answer, dropping XML namespaces.

    Args:
        body: The answer.
        what: What was done; begins the message.
        expected: Name of its root: where something may be absent, any document would do.

    Raises:
        S3Error: It is not XML, another document, or an error inside a successful answer.
    """
    try:
        root = _xml.parse(bytes(body))
    except ValueError as error:
        raise S3Error("MalformedResponse", 200, f"{what}: the answer is no XML: {error}") from None
    if root.tag == "Error":
        raise _error_from(root, 200, what, "")
    if expected not in (None, root.tag):
        raise S3Error(
            "MalformedResponse", 200, f"{what}: the answer is a {root.tag}, no {expected}"
        )
    return root


def text_of(element: Element, path: str) -> str:
    """Text of a child element; empty if absent."""
    return element.findtext(path) or ""


@lru_cache  # a busy client reads the same second's again and again
def http_time(text: str) -> datetime | None:
    """A time as headers give it, such as ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    try:
        _, day, month, year, clock, zone = text.split(" ")
        hour, minute, second = clock.split(":")
        numbers = int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)
        return datetime(*numbers, tzinfo=UTC) if zone == "GMT" else None
    except ValueError:
        return None


def iso_time(text: str) -> datetime | None:
    """A time as listings give it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def error_class(code: str, status: int) -> type[S3Error]:
    """The exception for an error code and HTTP status."""
    if code in _THROTTLED or status == 429 or (status == 503 and code != "ServiceUnavailable"):
        return ThrottledError
    if code in EXPIRED:
        return ExpiredCredentialsError
    if code == "InvalidObjectState":
        return ArchivedError
    if status == 404 or code.startswith("NoSuch"):
        return NotFoundError
    if status in (401, 403):
        return AccessDeniedError
    if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return PreconditionFailedError
    return S3Error


def _error_from(
    root: Element | None,
    status: int,
    what: str,
    request_id: str,
    region: str = "",
    otherwise: str = "",
) -> S3Error:
    code = text_of(root, "Code") if root is not None else ""
    code = code or _CODES_BY_STATUS.get(status, str(status))
    message = text_of(root, "Message") if root is not None else ""
    hint = _HINTS.get(code, otherwise)
    region = region or (text_of(root, "Region") if root is not None else "")
    if region and hint.endswith(_SET_REGION):
        hint += f" to {region}"
    # Answers to HEAD say nothing.
    parts = [f"{what}: {message or hint or code}"]
    if message:
        parts.append(f"{hint[:1].upper()}{hint[1:]}")
    request_id = request_id or (text_of(root, "RequestId") if root is not None else "")
    kind = error_class(code, status)
    return kind(code, status, ". ".join(part.rstrip(".") for part in parts if part), request_id)


def _s3_error(response: _core.Response, what: str, endpoint: str) -> S3Error:
    headers = Headers(response.headers)
    root: Element | None = None
    if response.error_body:
        # What is no XML is a proxy's page, or an answer that was cut.
        with contextlib.suppress(ValueError):
            root = _xml.parse(response.error_body)
    # What servers that speak TLS answer to who does not; S3 says what was wrong, but to HEAD.
    plain = root is None and response.status == 400 and endpoint.startswith("http:")
    return _error_from(
        root,
        response.status,
        what,
        headers.get("x-amz-request-id") or "",
        headers.get("x-amz-bucket-region") or "",
        f"{endpoint} did not understand it. {_OTHER_SCHEME.format('TLS', 'https')}"
        if plain
        else "",
    )


def raise_for(response: _core.Response, what: str, endpoint: str) -> None:
    """Raises the exception for a response that is an error.

    Args:
        response: The response.
        what: What was done, to which object; begins the message.
        endpoint: Where; named in errors of the transport.
    """
    if response.error_code != 0:
        raise _without_answer(response.error_name, response.error_text, what, endpoint)
    if response.status >= 300:
        raise _s3_error(response, what, endpoint)


def _without_answer(name: str, text: str, what: str, endpoint: str) -> KumoError:
    if name.startswith("AWS_AUTH") and not name.startswith(_NO_CREDENTIALS_MATTER):
        return CredentialsError(
            f"{what}: no credentials could be had: {text} ({name}). Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, choose a profile (profile=, --profile, AWS_PROFILE), or pass "
            "access_key_id and secret_access_key (anonymous=True, --anonymous for public data)"
        )
    if "TLS" in name or name.startswith("AWS_ERROR_PKI"):
        return TransportError(
            f"{what}: no secure connection to {endpoint}: {text} ({name}). If its certificate is "
            "signed by your own CA, name the CA's file (ca_file, --ca-file, AWS_CA_BUNDLE)"
        )
    # With all addresses of a host known to be dead, the resolver has none to give.
    if name.startswith("AWS_IO_DNS") and not _is_address(endpoint):
        return TransportError(
            f"{what}: {endpoint} has no address: {text} ({name}). Look at the endpoint URL and at "
            "the name server"
        )
    if name.startswith(("AWS_IO_SOCKET", "AWS_IO_DNS", "AWS_ERROR_HTTP")):
        asked = "Is the endpoint URL right, and the service up?"
        if _PROXIED in endpoint:
            asked = "Are the endpoint URL and the proxy right, and both up?"
        elif name in _CLOSED:
            secure = endpoint.startswith("https:")
            other = ("no TLS", "http") if secure else ("TLS", "https")
            asked += f" {_OTHER_SCHEME.format(*other)}"
        return TransportError(f"{what}: no answer from {endpoint}: {text} ({name}). {asked}")
    if name.startswith(("AWS_ERROR_FILE", "AWS_ERROR_SHORT_BUFFER", "AWS_ERROR_OOM")):
        failure = KumoError(f"{what}: {text}")
        failure.__cause__ = _system_error(text)
        return failure
    if name == "AWS_ERROR_S3_CANCELED":
        # Nothing else does that below a caller who still wants to know.
        return KumoError(f"{what}: cancelled, as the interpreter is exiting")
    return TransportError(f"{what}: {text} ({name}), endpoint {endpoint}")


def _is_address(endpoint: str) -> bool:
    """Whether an endpoint is named by its address, which needs no name server."""
    import ipaddress  # rarely needed
    from urllib.parse import urlsplit

    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


def _system_error(text: str) -> OSError | None:
    """The operating system's error that a text ends with."""
    import errno  # rarely needed
    import os

    said = text.rpartition(": ")[2]
    for number in errno.errorcode:
        if os.strerror(number) == said:
            return OSError(number, said)
    return None


def public_checksums(headers: Headers) -> Mapping[str, str]:
    """Stored checksums under the names S3 uses for the algorithms."""
    return {name.upper(): value for name, value in headers.checksums.items()}
