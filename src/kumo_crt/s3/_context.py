"""What every request of a client shares: where it goes and how it is built."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from kumo_crt import _core
from kumo_crt._config import Settings
from kumo_crt._engine import Call, Meter, Sleep, Task
from kumo_crt.s3._budget import Budget, size_of
from kumo_crt.s3._retry import BEGINNING, CLEANING, ERRORS_INSIDE, Retries
from kumo_crt.s3._trailers import Trailers

_USER_AGENT = f"kumo_crt/{_core.build_info()['version']}"
Query = Iterable[tuple[str, str]]
_quote_free = re.compile(r"[A-Za-z0-9/_.~-]*").fullmatch
# Buckets whose addresses a client remembers.
_PLACES = 1000


class _Place(NamedTuple):
    endpoint: str
    prefix: str  # of the path
    headers: tuple[tuple[str, str], ...]


def _is_address(host: str) -> bool:
    import ipaddress  # for services other than AWS that want virtual hosts

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _virtual_host_safe(bucket: str, tls: bool) -> bool:
    """Whether a bucket can be part of the host name (dots break wildcard certificates)."""
    plain = bucket.replace("-", "").replace(".", "")
    return (
        plain.isascii()
        and plain.isalnum()
        and bucket == bucket.lower()
        and not (tls and "." in bucket)
    )


@dataclass(frozen=True, eq=False, repr=False)
class Context:
    """A native client with the settings that requests need, and how they queue.

    ``persistent``: requests belong to long work, which waits for a service that has gone away.
    """

    native: _core.Client
    settings: Settings
    retries: Retries
    budget: Budget | None = None
    urgent: bool = False
    persistent: bool = False
    trailers: Trailers = field(init=False, repr=False)
    _places: dict[str, _Place] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trailers", Trailers(self.settings))

    def within(self, budget: Budget) -> Context:
        """The same, for requests that share a budget."""
        return self if budget.is_unlimited else replace(self, budget=budget)

    def _place(self, bucket: str) -> _Place:
        """Where requests for a bucket go (for none: to the service itself)."""
        if len(self._places) >= _PLACES:
            self._places.clear()
        endpoint, prefix = self._address(bucket)
        headers = [("Host", urlsplit(endpoint).netloc), ("User-Agent", _USER_AGENT)]
        if self.settings.requester_pays:
            headers.append(("x-amz-request-payer", "requester"))
        if self.settings.expected_bucket_owner is not None:
            headers.append(("x-amz-expected-bucket-owner", self.settings.expected_bucket_owner))
        place = self._places[bucket] = _Place(endpoint, prefix, tuple(headers))
        return place

    def _address(self, bucket: str) -> tuple[str, str]:
        settings = self.settings
        url = settings.endpoint_url
        if url is None:
            suffix = ".cn" if settings.region.startswith("cn-") else ""
            url = f"https://s3.{settings.region}.amazonaws.com{suffix}"
        parts = urlsplit(url)
        host = parts.hostname or ""
        style = settings.addressing_style
        if style == "auto":
            aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
            fits = _virtual_host_safe(bucket, parts.scheme == "https")
            style = "virtual" if aws and fits else "path"
        if not bucket:
            return url, ""
        if style == "virtual" and not _is_address(host):
            return f"{parts.scheme}://{bucket}.{parts.netloc}", ""
        return url, "/" + quote(bucket, safe="-_.~")

    def request(
        self,
        operation: str,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: object = None,
        send_crc32c: bool = False,
        crc32c_trailing: bool = False,
        sink: object = "document",
        crc32c_of_response: bool = False,
        stop_after: int = 0,
        meter: Meter | None = None,
        expected: int = 0,
    ) -> Task[_core.Response]:
        """Sends one request, again where that helps, and tells what came of it.

        ``expected`` are the bytes that are going to come, where that is known.
        """
        endpoint, target, own = self._places.get(bucket) or self._place(bucket)
        if key or not target:
            target += "/" + (key if _quote_free(key) else quote(key, safe="/-_.~"))
        if query:
            target += "?" + "&".join(
                f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" if value else name
                for name, value in query
            )
        call = Call(
            client=self.native,
            operation=operation,
            method=method,
            endpoint=endpoint,
            target=target,
            headers=[*own, *headers.items()] if headers else list(own),
            body=body,
            send_crc32c=send_crc32c,
            crc32c_trailing=crc32c_trailing,
            sink=sink,
            crc32c_of_response=crc32c_of_response,
            stop_after=stop_after,
            meter=meter,
            urgent=self.urgent,
            any_credentials=operation in CLEANING,
            kept=operation in BEGINNING,
        )
        if self.budget is not None:
            yield from self.budget.before(size_of(body) + expected)
        begun = time.monotonic()
        pause = self.retries.pace.sending()
        if pause > 0:
            yield Sleep(pause)
        response: _core.Response = yield call
        if self.budget is not None:
            self.budget.after(response.received - expected)
        if response.error_code == 0 and response.status < 300 and operation not in ERRORS_INSIDE:
            self.retries.answered = time.monotonic()
            return response
        return (yield from self.retries.again(call, response, begun, self.persistent))

    def endpoint(self, bucket: str) -> str:
        """Where requests for a bucket go, for messages."""
        endpoint = (self._places.get(bucket) or self._place(bucket)).endpoint
        if self.settings.proxy is None:
            return endpoint
        # Without the password that may stand before it.
        proxy = urlsplit(self.settings.proxy).netloc.rpartition("@")[2]
        return f"{endpoint} through the proxy {proxy}"


def check_names(bucket: str, key: str | None = None) -> None:
    """Refuses names that can not be meant.

    Raises:
        TypeError: One is no text.
        ValueError: Empty, too long, or with characters that do not belong there.
    """
    if type(bucket) is not str:  # for each request: much faster than isinstance
        _check_text("bucket", bucket)
    _check_bucket(bucket)
    if key is not None:
        if type(key) is not str:
            _check_text("key", key)
        if not key:
            raise ValueError("the key is empty")
        if len(key) > 256 and len(key.encode("utf-8", "surrogatepass")) > 1024:
            raise ValueError(f"key {key[:40]!r}…: longer than the 1024 bytes that S3 allows")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, not {type(value).__name__}")


@lru_cache
def _check_bucket(bucket: str) -> None:
    if len(bucket) < 3 or len(bucket) > 255 or any(c in bucket for c in "/?#\0 \n\r\t"):
        raise ValueError(f"bucket {bucket!r}: a bucket name has 3 to 63 characters, without '/'")
