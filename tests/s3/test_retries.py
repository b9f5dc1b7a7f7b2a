"""When requests are tried again, how a client slows down, and what it tells of that."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest

import kumo_crt
from kumo_crt.s3 import _retry
from kumo_crt.s3._retry import Pace
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import S3Server

ALWAYS = 1_000_000


def answer(status: str, code: str, headers: str = "") -> bytes:
    """An error as the service would send it."""
    body = error_document(code)
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@pytest.fixture
def client(s3_server: S3Server, proxy: FaultProxy) -> Iterator[kumo_crt.S3Client]:
    """A client behind the proxy, with small parts and patience."""
    arguments = s3_server.client_arguments(
        endpoint_url=proxy.endpoint_url,
        part_size=PART,
        multipart_threshold=PART,
        max_attempts=12,
    )
    with kumo_crt.S3Client(**arguments) as running:
        yield running


@pytest.mark.servers("seaweed-http")
class TestStorms:
    @pytest.mark.parametrize("percent", [5, 10, 50])
    def test_a_storm_of_slow_down_loses_nothing(
        self, client: kumo_crt.S3Client, proxy: FaultProxy, bucket: str, percent: int
    ) -> None:
        large = payload(2 * PART + 7)
        count = 24 if percent < 50 else 6
        proxy.add(
            Fault(
                "answer",
                "request",
                times=ALWAYS,
                chance=percent / 100,
                answer=answer("503 Slow Down", "SlowDown"),
            )
        )
        with ThreadPoolExecutor(8) as pool:
            puts = [
                pool.submit(client.put_object, bucket, f"k{i}", payload(i)) for i in range(count)
            ]
            client.put_object(bucket, "large", large)
            for put in puts:
                put.result()
            gets = [pool.submit(client.get_object, bucket, f"k{i}") for i in range(count)]
            assert [len(content(get.result())) for get in gets] == list(range(count))
        assert content(client.get_object(bucket, "large")) == large
        if percent == 50:
            assert client.metrics()["retries"]["throttled"] > 5

    def test_too_many_requests_is_throttling_too(
        self, client: kumo_crt.S3Client, proxy: FaultProxy, bucket: str
    ) -> None:
        too_many = answer("429 Too Many Requests", "TooManyRequests")
        proxy.add(Fault("answer", "request", method="PUT", times=2, answer=too_many))
        client.put_object(bucket, "key", b"content")
        metrics = client.metrics()
        assert metrics["retries"] == {"throttled": 2}
        assert metrics["throttled"] is True


@pytest.mark.servers("seaweed-http")
class TestClock:
    @pytest.mark.parametrize("minutes", [-40, 40])
    def test_a_wrong_clock_is_corrected_by_the_services(
        self, s3: kumo_crt.S3Client, bucket: str, minutes: int
    ) -> None:
        # This machine's clock cannot be set in a test: the offset stands for its being wrong.
        native = s3._open().native
        native.set_clock_offset(minutes * 60_000)
        s3.put_object(bucket, "key", b"content")
        assert abs(native.clock_offset) < 60_000
        assert s3.metrics()["retries"] == {"clock_skew": 1}

    def test_a_refusal_at_the_right_time_stays_one(self, fake: FakeS3) -> None:
        denied = Answer(
            403, error_document("AccessDenied"), {"Date": formatdate(time.time(), usegmt=True)}
        )
        fake.default = denied
        with _client(fake) as client, pytest.raises(kumo_crt.AccessDeniedError):
            client.put_object("bucket", "key", b"content")
        assert len(fake.asked) == 1


def _client(fake: FakeS3, **settings: object) -> kumo_crt.S3Client:
    arguments: dict[str, object] = {
        "access_key_id": "AKEXAMPLE",
        "secret_access_key": "example-secret",
    }
    return kumo_crt.S3Client("us-east-1", fake.endpoint_url, **{**arguments, **settings})  # type: ignore[arg-type]


class TestLimits:
    def test_no_attempt_after_the_deadline(self, fake: FakeS3) -> None:
        fake.default = Answer(500, error_document("InternalError"))
        begun = time.monotonic()
        with (
            _client(fake, max_attempts=100, deadline=1) as client,
            pytest.raises(kumo_crt.S3Error, match="InternalError"),
        ):
            client.get_object("bucket", "key")
        assert time.monotonic() - begun < 5
        assert 2 < len(fake.asked) < 100

    def test_attempts_are_counted_from_the_first(self, fake: FakeS3) -> None:
        fake.default = Answer(500, error_document("InternalError"))
        with _client(fake, max_attempts=3) as client, pytest.raises(kumo_crt.S3Error):
            client.get_object("bucket", "key")
        assert len(fake.asked) == 3

    def test_the_last_error_document_is_told(self, fake: FakeS3) -> None:
        fake.default = Answer(500, error_document("InternalError", "the disk is on fire"))
        with (
            _client(fake, max_attempts=2) as client,
            pytest.raises(kumo_crt.S3Error, match="the disk is on fire"),
        ):
            client.get_object("bucket", "key")

    def test_retry_after_is_heeded(self, fake: FakeS3) -> None:
        fake.script.append(Answer(503, error_document("SlowDown"), {"Retry-After": "1"}))
        begun = time.monotonic()
        with _client(fake) as client:
            client.put_object("bucket", "key", b"content")
        assert time.monotonic() - begun >= 1

    def test_expired_fixed_credentials_are_final(self, fake: FakeS3) -> None:
        fake.default = Answer(400, error_document("ExpiredToken"))
        with (
            _client(fake, session_token="old") as client,
            pytest.raises(kumo_crt.CredentialsError, match="Get new credentials") as caught,
        ):
            client.put_object("bucket", "key", b"content")
        assert isinstance(caught.value, kumo_crt.AccessDeniedError)
        assert caught.value.code == "ExpiredToken"
        assert len(fake.asked) == 1


class TestPatience:
    """How often it is tried where nobody has said how often."""

    @pytest.fixture(autouse=True)
    def _without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_retry, "_BASE", 0.0)
        monkeypatch.setattr(_retry, "_THROTTLED_BASE", 0.0)
        monkeypatch.setattr(Pace, "SLOWEST", 10_000.0)

    @pytest.mark.parametrize(
        ("status", "code", "attempts"),
        [(503, "SlowDown", 20), (500, "InternalError", 5), (503, "ServiceUnavailable", 5)],
    )
    def test_of_a_service_that_has_not_answered_yet(
        self, fake: FakeS3, status: int, code: str, attempts: int
    ) -> None:
        fake.default = Answer(status, error_document(code))
        with _client(fake) as client, pytest.raises(kumo_crt.S3Error, match=code):
            client.get_object("bucket", "key")
        assert len(fake.asked) == attempts

    @pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (502, "BadGateway")])
    def test_longer_of_one_that_has(self, fake: FakeS3, status: int, code: str) -> None:
        with _client(fake) as client:
            client.put_object("bucket", "key", b"content")
            fake.default = Answer(status, error_document(code))
            with pytest.raises(kumo_crt.S3Error, match=code):
                client.get_object("bucket", "key")
            assert client.metrics()["retries"] == {"server_error": 9}

    @pytest.mark.parametrize("variable", [None, "AWS_MAX_ATTEMPTS", "KUMO_CRT_MAX_ATTEMPTS"])
    def test_what_was_said_holds_for_all(
        self, fake: FakeS3, monkeypatch: pytest.MonkeyPatch, variable: str | None
    ) -> None:
        said: dict[str, object] = {"max_attempts": 3}
        if variable is not None:
            monkeypatch.setenv(variable, "3")
            said = {}
        fake.default = Answer(503, error_document("SlowDown"))
        with _client(fake, **said) as client, pytest.raises(kumo_crt.ThrottledError):
            client.get_object("bucket", "key")
        assert len(fake.asked) == 3


class TestRepositories:
    """Work that may have gone on for hours waits for a service that is started again."""

    @pytest.fixture
    def client(self, fake: FakeS3) -> Iterator[kumo_crt.S3Client]:
        with kumo_crt.S3Client("us-east-1", fake.endpoint_url, anonymous=True) as running:
            yield running

    def test_a_service_that_has_just_been_started(
        self, client: kumo_crt.S3Client, fake: FakeS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It answers 500 for a while, more often than a single call bears."""
        monkeypatch.setattr(_retry, "_OUTAGE_PAUSE", 0.05)
        broken = Answer(500, error_document("InternalError"))
        fake.default = Answer(404, error_document("NoSuchKey"))
        fake.script.extend([broken] * 5)
        with pytest.raises(kumo_crt.S3Error) as single:
            client.get_object("bucket", "key")
        assert (single.value.status, len(fake.asked)) == (500, 5)
        empty = Answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
        fake.script.extend([*([broken] * 40), fake.default, empty, empty, empty])
        with pytest.raises(kumo_crt.SnapshotNotFoundError):
            kumo_crt.Repository.open("s3://bucket/prefix", client=client)
        assert len(fake.asked) == 49

    def test_it_does_not_wait_for_ever(
        self, client: kumo_crt.S3Client, fake: FakeS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_retry, "_OUTAGE_FAILING", 1.5)
        fake.default = Answer(503, error_document("ServiceUnavailable"))
        begun = time.monotonic()
        with pytest.raises(kumo_crt.S3Error):
            kumo_crt.Repository.open("s3://bucket/prefix", client=client)
        assert time.monotonic() - begun < 3

    def test_where_there_has_never_been_anybody(self) -> None:
        """A wrong endpoint is told at once."""
        begun = time.monotonic()
        with (
            kumo_crt.S3Client("us-east-1", "http://127.0.0.1:9", anonymous=True) as nobody,
            pytest.raises(kumo_crt.TransportError),
        ):
            kumo_crt.Repository.open("s3://bucket/prefix", client=nobody)
        assert time.monotonic() - begun < 3

    def test_what_has_been_said_holds(self, fake: FakeS3) -> None:
        fake.default = Answer(500, error_document("InternalError"))
        url = fake.endpoint_url
        with (
            kumo_crt.S3Client("us-east-1", url, anonymous=True, max_attempts=3) as client,
            pytest.raises(kumo_crt.S3Error),
        ):
            kumo_crt.Repository.open("s3://bucket/prefix", client=client)
        assert len(fake.asked) == 3

    def test_one_failure_is_no_outage_where_others_succeed(
        self, client: kumo_crt.S3Client, fake: FakeS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as an object that a service cannot read: as often as before, and no longer."""
        monkeypatch.setattr(_retry, "_OUTAGE_PAUSE", 0.01)
        fake.default = Answer(500, error_document("InternalError"))
        original = _retry.Retries.cause

        def cause(self: _retry.Retries, *arguments: Any) -> str | None:
            self.answered = time.monotonic()  # another request is
            return original(self, *arguments)

        monkeypatch.setattr(_retry.Retries, "cause", cause)
        with pytest.raises(kumo_crt.S3Error):
            kumo_crt.Repository.open("s3://bucket/prefix", client=client)
        assert len(fake.asked) == 10


class TestPace:
    def test_free_until_throttled_then_slow_then_free_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        pace = Pace()
        for _ in range(100):
            assert pace.sending() == 0.0
            now[0] += 0.01  # a hundred a second
        pace.throttled()
        sent = 0
        begun = now[0]
        while now[0] < begun + 1:
            now[0] += max(pace.sending(), 1e-6)
            sent += 1
        assert 60 <= sent <= 85
        while pace.limited:
            now[0] += 0.5
            pace.sending()
            assert now[0] < begun + 60
        assert pace.sending() == 0.0

    def test_refusals_of_one_burst_count_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        pace = Pace()
        for _ in range(100):
            pace.sending()
            now[0] += 0.01
        for _ in range(50):
            pace.throttled()
        assert pace._rate > 50


@pytest.mark.servers("seaweed-http")
class TestMetrics:
    def test_they_count_what_was_done(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        s3.put_object(bucket, "key", b"x" * 1000)
        for _ in range(3):
            s3.get_object(bucket, "key")
        with pytest.raises(kumo_crt.NotFoundError):
            s3.get_object(bucket, "no such key")
        metrics = json.loads(json.dumps(s3.metrics()))
        put, get = metrics["operations"]["PutObject"], metrics["operations"]["GetObject"]
        assert (put["succeeded"], put["failed"], put["bytes_sent"]) == (1, 0, 1000)
        assert (get["succeeded"], get["failed"], get["bytes_received"]) == (3, 1, 3000)
        latency = get["latency_ms"]
        assert latency["count"] == 4
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
        assert 0 < get["first_byte_ms"]["p50"] <= latency["max"]
        assert metrics["connections"]["leased"] == 0
        assert metrics["connections"]["idle"] >= 1
        assert metrics["retries"] == {}

    def test_the_asynchronous_client_has_them_too(self, s3_server: S3Server, bucket: str) -> None:
        async def work() -> int:
            async with kumo_crt.AsyncS3Client(**s3_server.client_arguments()) as client:
                await client.put_object(bucket, "key", b"content")
                found: int = (await client.metrics())["operations"]["PutObject"]["succeeded"]
                return found

        assert asyncio.run(work()) == 1
