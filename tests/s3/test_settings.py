"""Endpoint, region, CA and credentials follow the AWS conventions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import _config, _core
from tests.support.data import content
from tests.support.fake_s3 import Answer, Asked, FakeS3
from tests.support.servers import S3Server

Environment = pytest.MonkeyPatch


LATE = {"tls_at_once": False}


def _asked(fake: FakeS3, client: kumo_crt.S3Client) -> Asked:
    """Returns the request that `fake` gets from the client."""
    with client:
        client.put_object("bucket", "key", b"data")
    return fake.asked[-1]


def _aws_file(home: Path, name: str, text: str) -> Path:
    path = home / ".aws" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def keys_in_environment(monkeypatch: Environment) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")


@pytest.mark.usefixtures("keys_in_environment")
class TestEndpoint:
    """Each source is given a server of its own; the one that is asked shows who won."""

    def test_precedence(self, monkeypatch: Environment, home: Path) -> None:
        sources = ["argument", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "services", "profile"]
        with FakeS3() as a, FakeS3() as b, FakeS3() as c, FakeS3() as d, FakeS3() as e:
            servers = dict(zip(sources, (a, b, c, d, e), strict=True))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", b.endpoint_url)
            monkeypatch.setenv("AWS_ENDPOINT_URL", c.endpoint_url)
            services = f"[services local]\ns3 =\n  endpoint_url = {d.endpoint_url}\n"
            profile = f"[default]\nendpoint_url = {e.endpoint_url}\n"
            _aws_file(home, "config", f"{profile}services = local\n{services}")

            _asked(a, kumo_crt.S3Client("us-east-1", a.endpoint_url))
            _asked(b, kumo_crt.S3Client("us-east-1"))
            monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
            _asked(c, kumo_crt.S3Client("us-east-1"))
            monkeypatch.delenv("AWS_ENDPOINT_URL")
            _asked(d, kumo_crt.S3Client("us-east-1"))
            _aws_file(home, "config", profile)
            _asked(e, kumo_crt.S3Client("us-east-1"))
            assert {name: len(server.asked) for name, server in servers.items()} == dict.fromkeys(
                sources, 1
            )

    def test_configured_endpoints_can_be_ignored(self, monkeypatch: Environment) -> None:
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        with kumo_crt.S3Client("us-east-1") as client:
            assert "AWS" in repr(client)
        with kumo_crt.S3Client("us-east-1", "http://127.0.0.1:9") as client:
            assert "127.0.0.1:9" in repr(client)

    @pytest.mark.parametrize("user", ["name:passw0rd", ":passw0rd", "passw0rd"])
    def test_a_password_in_it_is_not_repeated(self, user: str) -> None:
        with pytest.raises(ValueError, match="expected http") as caught:
            kumo_crt.S3Client("us-east-1", f"http://{user}@host.invalid")
        assert "passw0rd" not in str(caught.value)

    def test_the_endpoint_of_a_profile(
        self, monkeypatch: Environment, home: Path, fake: FakeS3
    ) -> None:
        _aws_file(home, "config", f"[profile work]\nendpoint_url = {fake.endpoint_url}\n")
        monkeypatch.setenv("AWS_DEFAULT_PROFILE", "work")  # credentials would be the default's
        with kumo_crt.S3Client("us-east-1") as client:
            assert "AWS" in repr(client)
        monkeypatch.setenv("AWS_PROFILE", "work")
        assert _asked(fake, kumo_crt.S3Client("us-east-1")).target.startswith("/bucket/key")

    def test_path_style_on_an_endpoint_of_ones_own(self, fake: FakeS3) -> None:
        asked = _asked(fake, kumo_crt.S3Client("us-east-1", fake.endpoint_url))
        assert asked.target.split("?")[0] == "/bucket/key"
        assert asked.headers["host"] == fake.endpoint_url.removeprefix("http://")


@pytest.mark.usefixtures("keys_in_environment")
class TestRegion:
    def test_precedence(self, monkeypatch: Environment, home: Path, fake: FakeS3) -> None:
        def region(argument: str | None = None) -> str:
            return _asked(fake, kumo_crt.S3Client(argument, fake.endpoint_url)).region

        assert region() == "us-east-1"
        _aws_file(home, "config", "[default]\nregion = eu-north-1\n")
        assert region() == "eu-north-1"
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
        assert region() == "eu-west-2"
        monkeypatch.setenv("AWS_REGION", "ap-south-1")
        assert region() == "ap-south-1"
        assert region("sa-east-1") == "sa-east-1"


class TestCredentials:
    def test_precedence(self, monkeypatch: Environment, home: Path, fake: FakeS3) -> None:
        def key(**arguments: Any) -> str:
            client = kumo_crt.S3Client("us-east-1", fake.endpoint_url, **arguments)
            return _asked(fake, client).access_key_id

        _aws_file(
            home,
            "credentials",
            "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = s1\n"
            "[work]\naws_access_key_id = AKWORK\naws_secret_access_key = s2\n",
        )
        assert key() == "AKDEFAULT"
        assert key(profile="work") == "AKWORK"
        monkeypatch.setenv("AWS_PROFILE", "work")
        assert key() == "AKWORK"
        assert key(profile="default") == "AKDEFAULT"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
        assert key() == "AKENV"
        # A profile that is asked for in so many words wins over the environment.
        assert key(profile="work") == "AKWORK"
        assert key(access_key_id="AKARG", secret_access_key="arg-secret") == "AKARG"

    def test_a_shared_credentials_file_elsewhere(
        self, monkeypatch: Environment, tmp_path: Path, fake: FakeS3
    ) -> None:
        path = tmp_path / "my-credentials"
        path.write_text("[work]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
        client = kumo_crt.S3Client("us-east-1", fake.endpoint_url, profile="work")
        assert _asked(fake, client).access_key_id == "AKFILE"

    def test_a_config_file_elsewhere(
        self, monkeypatch: Environment, tmp_path: Path, fake: FakeS3
    ) -> None:
        path = tmp_path / "my-config"
        path.write_text(
            "[profile work]\naws_access_key_id = AKCONFIG\naws_secret_access_key = s\n"
            f"region = eu-west-3\nendpoint_url = {fake.endpoint_url}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
        asked = _asked(fake, kumo_crt.S3Client(profile="work"))
        assert (asked.access_key_id, asked.region) == ("AKCONFIG", "eu-west-3")

    def test_a_missing_profile(self, home: Path, fake: FakeS3) -> None:
        _aws_file(home, "credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n")
        with pytest.raises((kumo_crt.CredentialsError, ValueError), match="no-such-profile"):
            _asked(
                fake, kumo_crt.S3Client("us-east-1", fake.endpoint_url, profile="no-such-profile")
            )
        assert fake.asked == []

    def test_a_session_token(self, monkeypatch: Environment, fake: FakeS3) -> None:
        client = kumo_crt.S3Client(
            "us-east-1",
            fake.endpoint_url,
            access_key_id="AK",
            secret_access_key="secret",
            session_token="argument-token",
        )
        assert _asked(fake, client).headers["x-amz-security-token"] == "argument-token"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
        client = kumo_crt.S3Client("us-east-1", fake.endpoint_url)
        assert _asked(fake, client).headers["x-amz-security-token"] == "env-token"

    def test_anonymous(self, monkeypatch: Environment, fake: FakeS3) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
        fake.default = Answer(200, b"hello", {"ETag": '"1"'})
        client = kumo_crt.S3Client("us-east-1", fake.endpoint_url, anonymous=True)
        asked = _asked(fake, client)
        assert "authorization" not in asked.headers
        assert "x-amz-security-token" not in asked.headers


NUMBERS: dict[str, int | float] = {
    "part_size": 6 << 20,
    "multipart_threshold": 20 << 20,
    "memory_limit": 100 << 20,
    "max_connections": 3,
    "event_loops": 2,
    "max_attempts": 7,
    "connect_timeout": 1.5,
    "request_timeout": 9.5,
    "deadline": 12.5,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(monkeypatch: Environment, name: str) -> None:
    """An argument, else the environment, else a default."""

    def value(**arguments: Any) -> int | float:
        found: int | float = getattr(_config.resolve(**arguments), name)
        return found

    default, told = value(), NUMBERS[name]
    if name == "max_attempts":
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
        assert value() == 9
    monkeypatch.setenv(f"KUMO_CRT_{name.upper()}", str(told))
    assert value() == told != default
    assert value(**{name: told + 1}) == told + 1


def test_memory_for_large_parts(monkeypatch: Environment) -> None:
    assert _config.resolve(part_size=100 << 20).memory_limit == 200 << 20
    monkeypatch.setenv("KUMO_CRT_MEMORY_LIMIT", "500MiB")
    assert _config.resolve(part_size=100 << 20).memory_limit == 500 << 20
    monkeypatch.setenv("KUMO_CRT_MEMORY_LIMIT", "99MiB")
    with pytest.raises(ValueError, match="KUMO_CRT_MEMORY_LIMIT is"):
        _config.resolve(part_size=100 << 20)


def test_where_the_ca_file_is_said(monkeypatch: Environment, home: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("argument", "environment", "config")]
    for file in files:
        file.write_text("")
    _aws_file(home, "config", f"[default]\nca_bundle = {files[2]}\n")
    assert _config.resolve().ca_file == str(files[2])
    monkeypatch.setenv("AWS_CA_BUNDLE", str(files[1]))
    assert _config.resolve().ca_file == str(files[1])
    assert _config.resolve(ca_file=files[0]).ca_file == str(files[0])


@pytest.mark.servers("seaweed-https")
def test_ca_bundle_from_the_environment(
    s3_server: S3Server, bucket: str, monkeypatch: Environment
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with kumo_crt.S3Client() as client:
        client.put_object(bucket, "key", b"data")
        assert content(client.get_object(bucket, "key")) == b"data"


@pytest.mark.servers("seaweed-https")
def test_tls_can_be_made_ready_late(
    s3_server: S3Server, bucket: str, monkeypatch: Environment
) -> None:
    """As a client of plain HTTP does: with its first https endpoint."""
    native = _core.Client
    monkeypatch.setattr(_core, "Client", lambda **options: native(**options | LATE))
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        client.put_object(bucket, "key", b"data")
        assert content(client.get_object(bucket, "key")) == b"data"


def test_limits_tell_their_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUMO_CRT_MEMORY_LIMIT", "1MiB")
    with pytest.raises(ValueError, match=r"KUMO_CRT_MEMORY_LIMIT is .* to \d+ bytes$"):
        _config.resolve()
