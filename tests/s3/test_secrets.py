"""Secrets show neither in logs, nor in errors, nor in a repr."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

import kumo_crt
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.servers import S3Server

SECRET = "SeCrEtKeY0123456789abcdefghijklmnopqrstuv"
TOKEN = "SeSsIoNtOkEn-9876543210-zyxwvutsrqponmlk"


@pytest.fixture(params=[logging.DEBUG, 1], ids=["debug", "everything"])
def logged(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[pytest.LogCaptureFixture]:
    """Captures the CRT's log lines, which come only when they are asked for by name."""
    with caplog.at_level(request.param, logger="kumo_crt.crt"):
        yield caplog


def _wait_for_lines(logged: pytest.LogCaptureFixture) -> str:
    """Returns the log once lines of the CRT's are in it, and no more arrive."""
    deadline = time.monotonic() + 10
    before = -1
    while time.monotonic() < deadline and not 0 < before == len(logged.records):
        before = len(logged.records)
        time.sleep(0.3)
    assert any(record.name.startswith("kumo_crt.crt.") for record in logged.records)
    return logged.text


@pytest.mark.servers("seaweed-http")
def test_a_real_transfer(
    s3_server: S3Server, bucket: str, logged: pytest.LogCaptureFixture
) -> None:
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        client.put_object(bucket, "key", b"data")
        client.get_object(bucket, "key")
        with pytest.raises(kumo_crt.NotFoundError) as caught:
            client.get_object(bucket, "missing")
        described = repr(client)
    log = _wait_for_lines(logged)
    for place in (log, described, str(caught.value), repr(caught.value)):
        assert s3_server.secret_access_key not in place


def test_a_session_token(fake: FakeS3, logged: pytest.LogCaptureFixture) -> None:
    fake.default = Answer(403, error_document("AccessDenied"))
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        access_key_id="AKEXAMPLE",
        secret_access_key=SECRET,
        session_token=TOKEN,
    ) as client:
        with pytest.raises(kumo_crt.AccessDeniedError) as caught:
            client.put_object("bucket", "key", b"data")
        described = repr(client)
    assert fake.asked[0].headers["x-amz-security-token"] == TOKEN
    signature = fake.asked[0].headers["authorization"].split("Signature=")[1]
    log = _wait_for_lines(logged)
    for place in (log, described, str(caught.value), repr(caught.value)):
        for secret in (SECRET, TOKEN, signature):
            assert secret not in place


def test_a_secret_from_the_environment(
    fake: FakeS3, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    with kumo_crt.S3Client("us-east-1", fake.endpoint_url) as client:
        client.put_object("bucket", "key", b"data")
        described = repr(client)
    log = _wait_for_lines(logged)
    for place in (log, described):
        assert SECRET not in place
        assert TOKEN not in place


def test_silent_by_default(fake: FakeS3, caplog: pytest.LogCaptureFixture) -> None:
    with kumo_crt.S3Client(
        "us-east-1", fake.endpoint_url, access_key_id="AK", secret_access_key="s"
    ) as client:
        client.put_object("bucket", "key", b"data")
    assert [record for record in caplog.records if record.name.startswith("kumo_crt")] == []
