"""When a request is tried again, and how fast a client may go on.

A native operation is one attempt. Here is decided what its outcome means: an answer, a passing
failure (tried again after a jittered, exponential pause, within ``max_attempts`` and ``deadline``),
throttling (the whole client slows down), or a wrong clock (corrected from the service's Date).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from kumo_crt._engine import Call, Sleep, Task
from kumo_crt.s3 import _xml
from kumo_crt.s3._answers import EXPIRED, Headers

if TYPE_CHECKING:
    from kumo_crt import _core
    from kumo_crt._config import Settings

# Operations whose 200 may hold an error document: S3 answers before it knows.
ERRORS_INSIDE = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
# Operations that take away what a failure leaves: such as one to have new credentials.
CLEANING = frozenset({"AbortMultipartUpload"})
# Those whose answer is needed for that.
BEGINNING = frozenset({"CreateMultipartUpload"})
_BASE = 0.1  # seconds; doubled with every attempt
_THROTTLED_BASE = 0.5
_MAX_PAUSE = 20.0
# Attempts where their number was left open: a service that says when it is busy is there, and one
# that has answered before will be again. Ten take half a minute, twenty two or three.
_ATTEMPTS_THROTTLED = 20
_ATTEMPTS_OF_KNOWN = 10
_OUTAGES = ("transport", "timeout", "server_error")
# Work that has gone on for hours waits for so many seconds for a service that has gone away as a
# whole, and looks for it every few of them. One that answers, but fails, may do so for ever, as it
# finds rotten what it is asked for.
_OUTAGE = 60.0
_OUTAGE_FAILING = 30.0
_OUTAGE_PAUSE = 4.0
# Signatures are refused from 15 minutes on; less than this is not what was wrong.
_SKEW = 240.0
_YEARS = (2020, 2120)

_THROTTLING = {
    "SlowDown",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
}
_PASSING = {
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "OperationAborted",
    "BadDigest",
}
_EXPIRED_CAUSE = "expired_credentials"
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch", "AccessDenied"}
# Failures that another attempt would only repeat.
_FINAL = (
    "AWS_ERROR_S3_CANCELED",
    "AWS_ERROR_FILE",
    "AWS_ERROR_SHORT_BUFFER",
    "AWS_ERROR_OOM",
    "AWS_ERROR_INVALID_ARGUMENT",
    "AWS_AUTH",
    "AWS_IO_DNS_INVALID_NAME",
    "AWS_ERROR_HTTP_INVALID",
    "AWS_ERROR_HTTP_CONNECTION_MANAGER_SHUTTING_DOWN",
)
_TIMEOUTS = (
    "AWS_IO_SOCKET_TIMEOUT",
    "AWS_ERROR_HTTP_RESPONSE_FIRST_BYTE_TIMEOUT",
    "AWS_ERROR_HTTP_CHANNEL_THROUGHPUT_FAILURE",
    "AWS_IO_TLS_NEGOTIATION_TIMEOUT",
)


class Pace:
    """How fast a client sends: as it likes, until the service asks it to slow down.

    Throttled, it goes on at 0.7 of the rate that was too fast (once a second at most, and never
    slower than `SLOWEST`), then a tenth faster every second, and freely again once it is at twice
    the rate that was refused. Shared by threads.
    """

    SLOWEST = 10.0  # requests a second: less does not relieve a service that is there for thousands

    def __init__(self) -> None:
        self.limited = False
        self._lock = threading.Lock()
        self._rate = 0.0  # requests a second, while limited
        self._refused = 0.0
        self._changed = 0.0
        self._free = 0.0  # when the next request may go
        self._since = time.monotonic()
        self._count = 0

    def sending(self) -> float:
        """Counts a request; returns the seconds it has to wait."""
        self._count += 1  # a lost count of two threads does not matter
        if not self.limited:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._rate *= 1.0 + 0.1 * min(1.0, now - self._changed)
            self._changed = now
            if self._rate >= 2 * self._refused:
                self.limited = False
                return 0.0
            start = max(now, self._free)
            self._free = start + 1.0 / self._rate
            return start - now

    def throttled(self) -> None:
        """Slows down. Refusals of requests that were sent before count once."""
        with self._lock:
            now = time.monotonic()
            if self.limited and now - self._since < 1.0:
                return
            measured = self._count / max(now - self._since, 0.05)
            self._refused = min(measured, self._rate) if self.limited else measured
            self._refused = max(self._refused, self.SLOWEST)
            self._rate = max(0.7 * self._refused, self.SLOWEST)
            self._since, self._count = now, 0
            self._changed = now
            self._free = max(self._free, now)
            self.limited = True


def _error_code(document: bytes) -> str:
    """The code of an error document; empty if it is none."""
    if b"<Error" not in document:
        return ""
    try:
        root = _xml.parse(document)
    except ValueError:
        return ""  # a proxy's page, or an answer that was cut
    return (root.findtext("Code") or "") if root.tag == "Error" else ""


def _is_anothers(call: Call, response: _core.Response) -> bool:
    """Whether a 503 is, say, a load balancer's; S3 names its reason, but in answers to HEAD."""
    return response.status == 503 and call.method != "HEAD" and not _error_code(response.error_body)


class _Outage:
    """How a request fares that waits for a service to come back.

    A service that has answered others meanwhile is there: then only so many failures are borne.

    Args:
        now: When it failed first.
    """

    def __init__(self, now: float) -> None:
        self._since = self._failed = now
        self._failing = False
        self._failures = 0

    def is_over(self, cause: str, answered: float | None, pause: float) -> bool:
        """Whether a request that has failed now has to end, instead of going on after a pause."""
        now = time.monotonic()
        failing = cause == "server_error"
        if self._failures == 0 or (answered is not None and answered > self._failed):
            self._failures += 1
            self._since = now
        elif failing and not self._failing:
            self._since = now  # it has come back, and is not ready yet
        self._failed, self._failing = now, failing
        longest = _OUTAGE_FAILING if failing else _OUTAGE
        return self._failures >= _ATTEMPTS_OF_KNOWN or now + pause - self._since > longest


class Retries:
    """Decides for one client, and counts.

    Args:
        settings: The client's.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_attempts = settings.max_attempts
        self._patient = settings.patient
        # When there was a success, whatever it was for.
        self.answered: float | None = None
        self._deadline = settings.deadline
        self._fixed_credentials = settings.anonymous or settings.access_key_id is not None
        self.pace = Pace()
        self.causes: Counter[str] = Counter()
        self._behind = 0  # times that somebody before the service said that it is away

    @property
    def outages(self) -> int:
        """How often a request was sent again because the service was away, or failed."""
        return self._behind + sum(self.causes[cause] for cause in _OUTAGES)

    def cause(self, call: Call, response: _core.Response) -> str | None:
        """Why a request should be tried again; None if it should not."""
        name = response.error_name
        if response.error_code != 0:
            if name.startswith(_FINAL):
                return None
            if ("TLS" in name or "PKI" in name) and not call.client.tls_established:
                return None  # a wrong CA stays wrong
            return "timeout" if name in _TIMEOUTS else "transport"
        status = response.status
        if status < 300:
            inside = bytes(response.body) if call.operation in ERRORS_INSIDE else b""
            code = _error_code(inside)
            if not code:
                return None
        else:
            code = _error_code(response.error_body)
        if code in _THROTTLING or status == 429 or (status == 503 and code not in _PASSING):
            return "throttled"
        # An answer to HEAD has no document that would say so.
        if code in EXPIRED or (status == 400 and not code and call.method == "HEAD"):
            return None if self._fixed_credentials else _EXPIRED_CAUSE
        if status == 403 and (code in _CLOCK or not code) and self._correct_clock(call, response):
            return "clock_skew"
        if code in _PASSING or (status >= 500 and status != 501) or status == 408:
            return "server_error"
        return None

    def _correct_clock(self, call: Call, response: _core.Response) -> bool:
        """Sets the client's clock by the service's, if they differ by enough to matter."""
        said = Headers(response.headers).time("date")
        # A service knows its century: with a year out of that nothing could be signed any more.
        if said is None or not _YEARS[0] <= said.year < _YEARS[1]:
            return False
        offset = said.timestamp() - time.time()
        if abs(offset - call.client.clock_offset / 1000) < _SKEW:
            return False
        call.client.set_clock_offset(round(offset * 1000))
        return True

    def again(
        self, call: Call, response: _core.Response, begun: float, persistent: bool
    ) -> Task[_core.Response]:
        """Goes on after a first attempt that was no plain success, until there is an answer.

        Args:
            call: The request.
            response: What came of the first attempt.
            begun: When that began.
            persistent: It belongs to work that waits for a service that is started again.
        """
        attempt, renewed = 1, False
        outage = _Outage(time.monotonic()) if persistent and self._patient else None
        while True:
            cause = self.cause(call, response)
            if cause is None:
                return response
            if cause == _EXPIRED_CAUSE:
                if renewed:  # and refused all the same
                    return response
                renewed = True
                call.client.credentials_expired(response.signed_with)
            if cause == "throttled":
                self.pace.throttled()
            pause = self._pause(cause, attempt, response)
            if outage is not None and self._comes_back(cause):
                pause = min(pause, _OUTAGE_PAUSE)
                if outage.is_over(cause, self.answered, pause):
                    return response
            elif attempt >= self._attempts(cause):
                return response
            if time.monotonic() + pause - begun > self._deadline:
                return response
            self.causes[cause] += 1
            if cause == "throttled" and _is_anothers(call, response):
                self._behind += 1
            attempt += 1
            pause = max(pause, self.pace.sending())
            if pause > 0:
                yield Sleep(pause)
            response = yield call

    def _attempts(self, cause: str) -> int:
        """How many a request has, the first included."""
        most = self._max_attempts
        if self._patient and cause == "throttled":
            return max(most, _ATTEMPTS_THROTTLED)
        if self._patient and self.answered is not None and cause in _OUTAGES:
            return max(most, _ATTEMPTS_OF_KNOWN)
        return most

    def _comes_back(self, cause: str) -> bool:
        """Whether there is a service, or has been, that may be away for a while."""
        return cause in _OUTAGES and (self.answered is not None or cause == "server_error")

    @staticmethod
    def _pause(cause: str, attempt: int, response: _core.Response) -> float:
        if cause in ("clock_skew", _EXPIRED_CAUSE):
            return 0.0
        base = _THROTTLED_BASE if cause == "throttled" else _BASE
        asked = Headers(response.headers).number("retry-after") or 0
        longest = min(_MAX_PAUSE, base * 2.0 ** (attempt - 1))
        import random  # where all goes well it need not be loaded

        # Full jitter, but for what the service asked for.
        pause: float = random.random() * longest  # noqa: S311 - no secret
        return max(pause, min(float(asked), _MAX_PAUSE))
