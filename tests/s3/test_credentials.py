"""Credentials that expire: fetched again in time, in the middle of uploads, and when that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import content, payload
from tests.support.servers import S3Server
from tests.support.token_gateway import Issuer, TokenGateway

pytestmark = pytest.mark.servers("seaweed-http")

MakeIssuer = Callable[..., Issuer]
FIRST, SECOND = "AKTEMPORARY1", "AKTEMPORARY2"


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeIssuer:
    """Makes the process that the profile ``temporary`` names."""

    def make(life: float, **behaviour: Any) -> Issuer:
        directory = tmp_path / "issuer"
        directory.mkdir()
        made = Issuer(directory, life, **behaviour)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        return made

    return make


def settings(gateway: TokenGateway, **others: Any) -> dict[str, Any]:
    """A client's, with the profile."""
    return {
        "region": "us-east-1",
        "endpoint_url": gateway.endpoint_url,
        "profile": "temporary",
        "part_size": PART,
        "multipart_threshold": PART,
        "max_connections": 2,
        **others,
    }


def test_they_are_fetched_again_in_the_middle_of_an_upload(
    s3_server: S3Server, bucket: str, stored: Callable[[str], bytes], issuer: MakeIssuer
) -> None:
    process = issuer(life=3)
    data = payload(12 * PART)
    with (
        TokenGateway(s3_server, process, pause=0.5) as gateway,
        kumo_crt.S3Client(**settings(gateway)) as client,
    ):
        result = client.put_object(bucket, "key", data)
        assert client.metrics()["retries"] == {}
        assert gateway.refused() == []
        used = gateway.keys("PUT", "uploadId=")
    assert len(used) == 12
    assert len(set(used)) > 1
    assert used[0] == FIRST
    assert process.runs < 6  # not one for every request
    assert result.checksum_crc32c == kumo_crt.crc32c(data)
    assert stored("key") == data


def test_a_fetch_that_fails_is_none_that_matters_while_there_are_good_ones(
    s3_server: S3Server, bucket: str, issuer: MakeIssuer
) -> None:
    process = issuer(life=4, failing="2")
    with (
        TokenGateway(s3_server, process, pause=0.1) as gateway,
        kumo_crt.S3Client(**settings(gateway)) as client,
    ):
        begun = time.monotonic()
        while process.runs < 3:
            client.put_object(bucket, "key", b"data")
            assert time.monotonic() - begun < 20
        assert gateway.refused() == []
        assert set(gateway.keys("PUT")) <= {FIRST, "AKTEMPORARY3"}


def test_an_upload_whose_credentials_cannot_be_had_again_leaves_nothing(
    s3_server: S3Server,
    bucket: str,
    uploads: Callable[[], list[str]],
    keys: Callable[[], list[str]],
    issuer: MakeIssuer,
) -> None:
    process = issuer(life=3, failing="all-others")
    with (
        TokenGateway(s3_server, process, pause=0.5, grace=10) as gateway,
        kumo_crt.S3Client(**settings(gateway)) as client,
    ):
        with pytest.raises(kumo_crt.CredentialsError) as caught:
            client.put_object(bucket, "key", payload(24 * PART))
        assert len(gateway.keys("PUT", "uploadId=")) > 2
        assert gateway.keys("DELETE", "uploadId=") == [FIRST]
    message = str(caught.value)
    assert f"putting s3://{bucket}/key" in message
    assert "process" in message
    assert "expire at 20" in message
    assert "secret-1" not in message
    assert uploads() == []
    assert keys() == []


class TestExpiredToken:
    def test_is_answered_with_fresh_ones_fetched_once(
        self, s3_server: S3Server, bucket: str, issuer: MakeIssuer
    ) -> None:
        process = issuer(life=3600)
        with (
            TokenGateway(s3_server, process) as gateway,
            kumo_crt.S3Client(**settings(gateway, max_connections=8)) as client,
        ):
            client.put_object(bucket, "key", b"data")
            gateway.revoked.add(FIRST)
            with ThreadPoolExecutor(8) as pool:
                gets = [pool.submit(client.get_object, bucket, "key") for _ in range(8)]
                assert all(content(get.result()) == b"data" for get in gets)
            assert set(gateway.keys("GET", "/key")) == {SECOND}
            refused = len(gateway.refused())
            assert 1 <= refused <= 8
            assert client.metrics()["retries"] == {"expired_credentials": refused}
        assert process.runs == 2

    def test_in_an_upload(
        self,
        s3_server: S3Server,
        bucket: str,
        stored: Callable[[str], bytes],
        issuer: MakeIssuer,
    ) -> None:
        process = issuer(life=3600)
        data = payload(4 * PART)
        with (
            TokenGateway(s3_server, process, pause=0.1) as gateway,
            kumo_crt.S3Client(**settings(gateway)) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            put = pool.submit(client.put_object, bucket, "key", data)
            while not gateway.keys("PUT", "uploadId="):
                time.sleep(0.01)
            gateway.revoked.add(FIRST)
            put.result()
            assert SECOND in gateway.keys("PUT", "uploadId=")
        assert stored("key") == data
        assert process.runs == 2

    def test_without_a_document(self, s3_server: S3Server, bucket: str, issuer: MakeIssuer) -> None:
        with (
            TokenGateway(s3_server, issuer(life=3600)) as gateway,
            kumo_crt.S3Client(**settings(gateway)) as client,
        ):
            client.put_object(bucket, "key", b"data")
            gateway.revoked.add(FIRST)
            assert client.head_object(bucket, "key").size == 4

    def test_again_is_final(self, s3_server: S3Server, bucket: str, issuer: MakeIssuer) -> None:
        process = issuer(life=3600)
        with (
            TokenGateway(s3_server, process) as gateway,
            kumo_crt.S3Client(**settings(gateway)) as client,
        ):
            gateway.revoked.update({FIRST, SECOND})
            with pytest.raises(kumo_crt.CredentialsError, match="ExpiredToken"):
                client.put_object(bucket, "key", b"data")
            assert [one.access_key_id for one in gateway.refused()] == [FIRST, SECOND]


def test_a_slow_process_does_not_stop_the_loop(
    s3_server: S3Server, bucket: str, issuer: MakeIssuer
) -> None:
    process = issuer(life=3600, wait=1)
    with TokenGateway(s3_server, process) as gateway:

        async def scenario() -> float:
            async with kumo_crt.AsyncS3Client(**settings(gateway)) as client:
                calls = [client.put_object(bucket, f"k{i}", b"data") for i in range(20)]
                puts = asyncio.gather(*calls)
                longest, last = 0.0, time.monotonic()
                while not puts.done():
                    await asyncio.sleep(0.01)
                    longest, last = max(longest, time.monotonic() - last), time.monotonic()
                await puts
                return longest

        assert asyncio.run(scenario()) < 0.6
    assert process.runs == 1


def test_a_call_that_waits_for_them_can_be_cancelled(
    s3_server: S3Server, bucket: str, issuer: MakeIssuer
) -> None:
    with TokenGateway(s3_server, issuer(life=3600, wait=2)) as gateway:

        async def scenario() -> None:
            async with kumo_crt.AsyncS3Client(**settings(gateway)) as client:
                begun = time.monotonic()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.put_object(bucket, "key", b"data")
                assert time.monotonic() - begun < 1
                await client.put_object(bucket, "key", b"data")

        asyncio.run(scenario())
        assert gateway.keys("PUT") == [FIRST]
