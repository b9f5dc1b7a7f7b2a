"""HTTP proxies: which one the environment names, and requests through one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

import kumo_crt
from kumo_crt._proxies import is_exempt, proxy_for
from tests.support.data import content, payload
from tests.support.fake_s3 import Answer, FakeS3
from tests.support.forward_proxy import ForwardProxy
from tests.support.servers import S3Server

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("environment", "endpoint", "expected"),
    [
        ({}, "https://s3.test", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://s3.test", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://s3.test", None),
        ({"HTTPS_PROXY": "p:1"}, "https://s3.test", "http://p:1"),
        ({"ALL_PROXY": "http://p:1/"}, "https://s3.test", "http://p:1"),
        ({"ALL_PROXY": "http://a:1", "HTTP_PROXY": "http://p:1"}, "http://s3.test", "http://p:1"),
        ({"HTTP_PROXY": "http://a:1", "http_proxy": "http://p:1"}, "http://s3.test", "http://p:1"),
        ({"HTTP_PROXY": "http://u:s@p:1"}, "http://s3.test", "http://u:s@p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "s3.test"}, "http://s3.test:80", None),
        ({"HTTP_PROXY": "http://[::1]:1"}, "http://s3.test", "http://[::1]:1"),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": "other"}, "http://s3.test", "http://p:1"),
    ],
)
def test_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    endpoint: str,
    expected: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(endpoint, None) == expected
    assert proxy_for(endpoint, "") is None
    assert proxy_for(endpoint, "http://mine:2") == "http://mine:2"


@pytest.mark.parametrize(
    "value", ["socks5://p:1", "https://p:1", "http://", "http://p:x", "http://user:secret@p:0"]
)
def test_what_is_no_proxy_of_ours(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ValueError, match=r"HTTPS_PROXY: expected http://") as caught:
        proxy_for("https://s3.test", None)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="proxy: expected"):
        kumo_crt.S3Client(proxy=value)


@pytest.mark.parametrize(
    ("host", "exceptions", "expected"),
    [
        ("s3.test", "*", True),
        ("s3.test", "a, s3.test ,b", True),
        ("S3.TEST.", "s3.Test", True),
        ("s3.test", "test", True),
        ("s3.test", ".test", True),
        ("s3.test", "3.test", False),
        ("s3.test", "s3.test:443", True),
        ("s3.test", "s3.test:80", False),
        ("s3.test", "", False),
        ("s3.test", ",,", False),
        ("s3.test", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "2.3", False),
        ("11.1.2.3", "10.0.0.0/8,nonsense/9", False),
        ("::1", "::1", True),
        ("::1", "[::1]:443", True),
        ("::1", "[::1]:80", False),
        ("::1", "0:0::1", True),
        ("fd00::7", "fd00::/8", True),
    ],
)
def test_exceptions(host: str, exceptions: str, expected: bool) -> None:
    assert is_exempt(host, 443, exceptions) is expected


def _target(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@pytest.mark.servers("seaweed-http", "seaweed-https")
@pytest.mark.parametrize("credentials", [None, "user:pass%word"])
def test_objects_through_a_proxy(
    s3_server: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    credentials: str | None,
) -> None:
    data = payload(200_000)
    with ForwardProxy(_target(s3_server.endpoint_url), credentials) as proxy:
        login = "" if credentials is None else "user:pass%25word@"
        monkeypatch.setenv("ALL_PROXY", f"http://{login}{proxy.address}")
        with kumo_crt.S3Client(**s3_server.client_arguments()) as s3:
            s3.put_object(bucket, "key", data)
            assert content(s3.get_object(bucket, "key")) == data
            assert "pass" not in repr(s3._settings)
    assert proxy.requests[0].startswith(_first_line(s3_server))


def _first_line(server: S3Server) -> str:
    """What a proxy is asked first when something is put through it: to tunnel TLS, or to put."""
    return "CONNECT " if server.ca_file is not None else f"PUT {server.endpoint_url}"


@pytest.mark.servers("seaweed-http", "seaweed-https")
def test_objects_of_coroutines_through_a_proxy(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = payload(200_000)

    async def put() -> None:
        async with kumo_crt.AsyncS3Client(**s3_server.client_arguments()) as s3:
            await s3.put_object(bucket, "key", data)

    async def get() -> None:
        async with kumo_crt.AsyncS3Client(**s3_server.client_arguments()) as s3:
            assert content(await s3.get_object(bucket, "key")) == data

    with ForwardProxy(_target(s3_server.endpoint_url)) as proxy:
        scheme = urlsplit(s3_server.endpoint_url).scheme
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{proxy.address}")
        asyncio.run(put())
        asyncio.run(get())
        assert proxy.requests[0].startswith(_first_line(s3_server))
        asked = len(proxy.requests)
        monkeypatch.setenv("no_proxy", urlsplit(s3_server.endpoint_url).hostname or "")
        asyncio.run(get())
        assert len(proxy.requests) == asked > 1


def test_a_proxy_that_refuses(fake: FakeS3) -> None:
    with (
        ForwardProxy(_target(fake.endpoint_url), "user:right") as proxy,
        kumo_crt.S3Client(
            "us-east-1",
            "http://s3.invalid",
            anonymous=True,
            max_attempts=1,
            proxy=f"http://user:wrong@{proxy.address}",
        ) as s3,
        pytest.raises(kumo_crt.KumoError, match="look at the user and password") as caught,
    ):
        s3.get_object("bucket", "key")
    assert "wrong" not in str(caught.value)
    assert fake.asked == []


def test_a_proxy_that_is_not_there_is_named() -> None:
    with (
        kumo_crt.S3Client(
            "us-east-1",
            "http://s3.invalid",
            anonymous=True,
            max_attempts=1,
            proxy="http://user:passw0rd@127.0.0.1:9",
        ) as s3,
        pytest.raises(
            kumo_crt.TransportError, match=r"s3.invalid through .* 127.0.0.1:9"
        ) as caught,
    ):
        s3.get_object("bucket", "key")
    assert "passw0rd" not in str(caught.value)


@pytest.fixture
def by_name(fake: FakeS3) -> Iterator[kumo_crt.S3Client]:
    """A client of the scripted server under names that only the proxy knows."""
    with (
        ForwardProxy(_target(fake.endpoint_url)) as proxy,
        kumo_crt.S3Client(
            "us-east-1",
            "http://s3.example.test",
            access_key_id="AKEXAMPLE",
            secret_access_key="example-secret",
            addressing_style="virtual",
            proxy=f"http://{proxy.address}",
        ) as s3,
    ):
        yield s3


def test_buckets_as_hosts(fake: FakeS3, by_name: kumo_crt.S3Client) -> None:
    by_name.put_object("bucket", "some key", b"x")
    by_name.head_object("other", "key")
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    fake.script.append(Answer(body=listing))
    assert list(by_name.list_objects("bucket")) == []
    assert [(asked.headers["host"], asked.target.partition("?")[0]) for asked in fake.asked] == [
        ("bucket.s3.example.test", "/some%20key"),
        ("other.s3.example.test", "/key"),
        ("bucket.s3.example.test", "/"),
    ]


def test_an_ipv6_endpoint() -> None:
    with (
        FakeS3(address="::1") as fake,
        kumo_crt.S3Client(
            "us-east-1",
            fake.endpoint_url,
            access_key_id="AKEXAMPLE",
            secret_access_key="example-secret",
            addressing_style="virtual",
        ) as s3,
    ):
        assert fake.endpoint_url.startswith("http://[::1]:")
        s3.put_object("bucket", "key", b"x")
        (asked,) = fake.asked
        # An address has no names below it: the bucket is in the path whatever was asked for.
        assert asked.target == "/bucket/key"
        assert f"http://{asked.headers['host']}" == fake.endpoint_url
