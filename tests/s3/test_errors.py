"""Each refusal is a named exception that says what to do."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.support.data import content, payload
from tests.support.fake_s3 import Answer, FakeS3, error_document
from tests.support.servers import S3Server

Call = Callable[[kumo_crt.S3Client, str, str], Any]
CALLS: dict[str, Call] = {
    "get": lambda s3, bucket, key: s3.get_object(bucket, key),
    "get-range": lambda s3, bucket, key: s3.get_object(bucket, key, range=(0, 5)),
    "put": lambda s3, bucket, key: s3.put_object(bucket, key, b"data"),
    "put-parts": lambda s3, bucket, key: s3.put_object(bucket, key, payload(6_000_000)),
    "head": lambda s3, bucket, key: s3.head_object(bucket, key),
    "list": lambda s3, bucket, key: list(s3.list_objects(bucket)),
    "delete": lambda s3, bucket, key: s3.delete_object(bucket, key),
    "delete-many": lambda s3, bucket, key: s3.delete_objects(bucket, [key]),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))


class TestNotFound:
    @pytest.mark.parametrize("name", ["get", "get-range", "head"])
    def test_a_missing_key(self, s3: kumo_crt.S3Client, bucket: str, name: str) -> None:
        with pytest.raises(kumo_crt.NotFoundError) as caught:
            CALLS[name](s3, bucket, "missing-key")
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, kumo_crt.S3Error)
        assert caught.value.status == 404
        # HEAD answers have no body: the message must tell what and name the key all the same.
        assert "missing-key: " in str(caught.value)
        assert re.search("no such (bucket, )?object|listing tells", str(caught.value))
        assert bucket in str(caught.value)

    # A missing bucket on DELETE is no error for moto, and SeaweedFS deletes nothing in silence.
    @pytest.mark.parametrize("name", ["get", "put", "put-parts", "head", "list"])
    def test_a_missing_bucket(self, s3_parts: kumo_crt.S3Client, name: str) -> None:
        with pytest.raises(kumo_crt.NotFoundError) as caught:
            CALLS[name](s3_parts, "no-such-bucket", "key")
        assert "no-such-bucket" in str(caught.value)
        if name != "head":
            assert caught.value.code == "NoSuchBucket"

    @pytest.mark.servers("seaweed-http")
    def test_a_missing_version(self, s3: kumo_crt.S3Client, versioned_bucket: str) -> None:
        bucket = versioned_bucket
        s3.put_object(bucket, "key", b"data")
        with pytest.raises(kumo_crt.S3Error):
            s3.get_object(bucket, "key", version_id="0" * 32)


@pytest.mark.servers("seaweed-http", "seaweed-https")
class TestAccess:
    @each_call
    def test_a_wrong_secret(self, s3_server: S3Server, bucket: str, call: Call) -> None:
        wrong = s3_server.client_arguments(
            secret_access_key="wrong-secret-key", part_size=5 << 20, multipart_threshold=5 << 20
        )
        with (
            kumo_crt.S3Client(**wrong) as client,
            pytest.raises(kumo_crt.AccessDeniedError) as caught,
        ):
            call(client, bucket, "key")
        assert isinstance(caught.value, PermissionError)
        assert caught.value.status == 403
        assert "wrong-secret-key" not in str(caught.value)

    def test_the_code_of_a_wrong_secret(self, s3_server: S3Server, bucket: str) -> None:
        wrong = s3_server.client_arguments(secret_access_key="wrong-secret-key")
        with (
            kumo_crt.S3Client(**wrong) as client,
            pytest.raises(kumo_crt.AccessDeniedError) as caught,
        ):
            client.put_object(bucket, "key", b"data")
        assert caught.value.code == "SignatureDoesNotMatch"

    def test_an_unknown_access_key(self, s3_server: S3Server, bucket: str) -> None:
        wrong = s3_server.client_arguments(access_key_id="AKUNKNOWN")
        with (
            kumo_crt.S3Client(**wrong) as client,
            pytest.raises(kumo_crt.AccessDeniedError) as caught,
        ):
            client.put_object(bucket, "key", b"data")
        assert caught.value.code == "InvalidAccessKeyId"

    def test_anonymous(self, s3_server: S3Server, bucket: str) -> None:
        arguments = s3_server.client_arguments(anonymous=True)
        del arguments["access_key_id"], arguments["secret_access_key"]
        denied = pytest.raises(kumo_crt.AccessDeniedError, match="bucket's policy")
        with kumo_crt.S3Client(**arguments) as client, denied:
            client.put_object(bucket, "key", b"data")

    def test_no_credentials(self, s3_server: S3Server, bucket: str) -> None:
        arguments = s3_server.client_arguments()
        del arguments["access_key_id"], arguments["secret_access_key"]
        before = time.monotonic()
        with (
            pytest.raises(kumo_crt.CredentialsError, match=r"AWS_ACCESS_KEY_ID|profile"),
            kumo_crt.S3Client(**arguments) as client,
        ):
            client.put_object(bucket, "key", b"data")
        assert time.monotonic() - before < 20

    def test_no_such_profile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text("[profile other]\nregion = us-east-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with (
            pytest.raises(
                kumo_crt.CredentialsError, match=r"nope: .*Is there such a profile, with cred"
            ),
            kumo_crt.S3Client(endpoint_url="http://127.0.0.1:9", profile="nope") as client,
        ):
            client.head_object("bucket", "key")


class TestTransport:
    def test_nobody_listens(self) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
            port = reserved.getsockname()[1]
            before = time.monotonic()
            with (
                _client(f"http://127.0.0.1:{port}") as client,
                pytest.raises(kumo_crt.TransportError) as caught,
            ):
                client.get_object("bucket", "key")
            assert time.monotonic() - before < 15
        assert isinstance(caught.value, ConnectionError)
        assert f"127.0.0.1:{port}" in str(caught.value)

    @pytest.mark.servers("seaweed-http", "seaweed-https")
    def test_the_wrong_scheme(self, s3_server: S3Server) -> None:
        scheme, _, place = s3_server.endpoint_url.partition("://")
        other = {"http": "https", "https": "http"}[scheme]
        with (
            _client(f"{other}://{place}") as client,
            # Closed without a word, or a page that is none of S3's.
            pytest.raises((kumo_crt.TransportError, kumo_crt.S3Error)) as caught,
        ):
            client.get_object("bucket", "key")
        assert str(caught.value).endswith(f" the URL begins with {scheme}://")

    def test_a_proxy_that_is_not_there(self) -> None:
        with (
            _client("http://127.0.0.1:1", proxy="http://u:secret@127.0.0.1:1") as client,
            pytest.raises(kumo_crt.TransportError, match="and the proxy right") as caught,
        ):
            client.get_object("bucket", "key")
        assert "secret" not in str(caught.value)

    def test_a_name_that_does_not_resolve(self) -> None:
        before = time.monotonic()
        with (
            _client("http://no-such-host.invalid:9000") as client,
            pytest.raises(kumo_crt.TransportError, match=r"no-such-host\.invalid"),
        ):
            client.put_object("bucket", "key", b"data")
        assert time.monotonic() - before < 30

    def test_a_server_that_accepts_and_says_nothing(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(64)
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            before = time.monotonic()
            with (
                _client(url, request_timeout=1, max_attempts=2) as client,
                pytest.raises(kumo_crt.TransportError),
            ):
                client.get_object("bucket", "key")
            assert time.monotonic() - before < 30

    def test_tls_to_a_plain_http_port(self, fake: FakeS3) -> None:
        url = fake.endpoint_url.replace("http://", "https://")
        with _client(url, max_attempts=2) as client, pytest.raises(kumo_crt.TransportError):
            client.get_object("bucket", "key")


@pytest.mark.servers("seaweed-https")
class TestTls:
    @pytest.mark.parametrize("name", ["get", "put", "put-parts", "list"])
    def test_an_unknown_ca(self, s3_server: S3Server, bucket: str, name: str) -> None:
        arguments = s3_server.client_arguments(max_attempts=1)
        del arguments["ca_file"]
        with (
            kumo_crt.S3Client(**arguments) as client,
            pytest.raises(kumo_crt.TransportError) as caught,
        ):
            CALLS[name](client, bucket, "key")
        assert "ca_file" in str(caught.value)
        assert "AWS_CA_BUNDLE" in str(caught.value)

    def test_an_unknown_ca_is_told_soon(self, s3_server: S3Server, bucket: str) -> None:
        # With the usual number of attempts, which cannot make a certificate known.
        arguments = s3_server.client_arguments()
        del arguments["ca_file"]
        before = time.monotonic()
        with kumo_crt.S3Client(**arguments) as client, pytest.raises(kumo_crt.TransportError):
            client.get_object(bucket, "key")
        assert time.monotonic() - before < 15

    def test_verification_turned_off(self, s3_server: S3Server, bucket: str) -> None:
        arguments = s3_server.client_arguments(verify=False)
        del arguments["ca_file"]
        with kumo_crt.S3Client(**arguments) as client:
            client.put_object(bucket, "key", b"data")

    def test_a_missing_ca_file(self, s3_server: S3Server, tmp_path: Path) -> None:
        arguments = s3_server.client_arguments(ca_file=str(tmp_path / "no-such-ca.pem"))
        with pytest.raises((OSError, ValueError, kumo_crt.KumoError), match=r"no-such-ca\.pem"):
            kumo_crt.S3Client(**arguments).close()

    def test_a_ca_file_that_holds_no_certificate(self, s3_server: S3Server, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong-ca.pem"
        wrong.write_text("no certificate")
        arguments = s3_server.client_arguments(ca_file=str(wrong))
        with pytest.raises(
            (OSError, ValueError, kumo_crt.KumoError), match=r"wrong-ca\.pem: .* as PEM"
        ):
            kumo_crt.S3Client(**arguments).close()


class TestAnswers:
    """Answers that a real server does not give on demand."""

    @each_call
    def test_slow_down_for_ever(self, fake: FakeS3, s3_fake: kumo_crt.S3Client, call: Call) -> None:
        fake.default = Answer(503, error_document("SlowDown"))
        with pytest.raises(kumo_crt.ThrottledError) as caught:
            call(s3_fake, "bucket", "key")
        assert len(fake.asked) >= 2, "throttling is worth a second attempt"
        if fake.asked[0].method != "HEAD":
            assert caught.value.code == "SlowDown"

    def test_one_server_error_is_retried(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.script.append(Answer(500, error_document("InternalError")))
        fake.default = Answer(200, b"hello", {"ETag": '"1"'})
        assert content(s3_fake.get_object("bucket", "key")) == b"hello"

    def test_server_errors_for_ever(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        # With its last retry aws-c-s3 drops the document: the headers are what is left.
        headers = {"x-amz-request-id": "REQ123"}
        fake.default = Answer(500, error_document("InternalError", "it broke"), headers)
        with pytest.raises(kumo_crt.S3Error) as caught:
            s3_fake.get_object("bucket", "key")
        assert caught.value.code == "InternalError"
        assert caught.value.status == 500
        assert caught.value.request_id == "REQ123"

    def test_an_error_that_is_no_xml(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.default = Answer(400, b"<html><body>Bad gateway<br></html>")
        with pytest.raises(kumo_crt.S3Error) as caught:
            s3_fake.get_object("bucket", "key")
        assert caught.value.status == 400

    def test_an_error_inside_a_successful_deletion(
        self, fake: FakeS3, s3_fake: kumo_crt.S3Client
    ) -> None:
        fake.default = Answer(
            200,
            b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>locked-key</Key>"
            b"<Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>",
        )
        with pytest.raises(kumo_crt.AccessDeniedError, match="locked-key"):
            s3_fake.delete_objects("bucket", ["a", "locked-key"])

    def test_an_error_inside_a_successful_completion(
        self, fake: FakeS3, s3_fake: kumo_crt.S3Client
    ) -> None:
        fake.script.extend(
            [
                Answer(
                    200,
                    b"<InitiateMultipartUploadResult><UploadId>U1</UploadId>"
                    b"</InitiateMultipartUploadResult>",
                ),
            ]
        )
        fake.default = Answer(200, error_document("InternalError"), {"ETag": '"1"'})
        with (
            kumo_crt.S3Client(
                "us-east-1",
                fake.endpoint_url,
                access_key_id="AK",
                secret_access_key="secret",
                part_size=5 << 20,
                multipart_threshold=5 << 20,
                max_attempts=2,
            ) as client,
            pytest.raises(kumo_crt.S3Error),
        ):
            client.put_object("bucket", "key", payload(6_000_000))

    def test_a_listing_that_is_no_xml(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.default = Answer(200, b"not a listing")
        with pytest.raises(kumo_crt.KumoError):
            list(s3_fake.list_objects("bucket"))

    def test_a_listing_that_never_ends(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        # The same continuation token again and again must not be an endless loop.
        fake.default = Answer(
            200,
            b"<ListBucketResult><IsTruncated>true</IsTruncated>"
            b"<NextContinuationToken>same</NextContinuationToken></ListBucketResult>",
        )
        with pytest.raises(kumo_crt.KumoError):
            list(s3_fake.list_objects("bucket"))

    def test_a_bucket_of_another_region(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.default = Answer(
            301, error_document("PermanentRedirect"), {"x-amz-bucket-region": "eu-central-1"}
        )
        with pytest.raises(kumo_crt.S3Error, match="eu-central-1"):
            s3_fake.get_object("bucket", "key")


class TestArguments:
    def test_half_a_key_pair(self) -> None:
        with pytest.raises(ValueError, match="secret_access_key"):
            kumo_crt.S3Client("us-east-1", access_key_id="AK").close()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"endpoint_url": "127.0.0.1:9000"},
            {"endpoint_url": "ftp://127.0.0.1"},
            {"endpoint_url": "http://"},
            {"addressing_style": "sideways"},
            {"part_size": 0},
            {"part_size": -1},
            {"max_attempts": 0},
            {"request_timeout": -1},
        ],
        ids=str,
    )
    def test_what_makes_no_sense(self, wrong: dict[str, Any]) -> None:
        arguments = {"endpoint_url": "http://127.0.0.1:9", **wrong}
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            kumo_crt.S3Client(
                "us-east-1", access_key_id="AK", secret_access_key="secret", **arguments
            ).close()

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("KUMO_CRT_PART_SIZE", "1"),
            ("KUMO_CRT_PART_SIZE", "16 megabytes"),
            ("KUMO_CRT_MAX_ATTEMPTS", "many"),
            ("AWS_MAX_ATTEMPTS", "many"),
            ("AWS_MAX_ATTEMPTS", "0"),
        ],
    )
    def test_the_variable_that_makes_no_sense_is_named(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        with pytest.raises(ValueError, match=f"^{variable}\\b") as caught:
            kumo_crt.S3Client("us-east-1")
        assert "e+" not in str(caught.value)

    def test_a_closed_client(self, s3_fake: kumo_crt.S3Client) -> None:
        s3_fake.close()
        s3_fake.close()
        with pytest.raises((RuntimeError, ValueError, kumo_crt.KumoError), match="closed"):
            s3_fake.get_object("bucket", "key")


def _client(url: str, **options: Any) -> kumo_crt.S3Client:
    return kumo_crt.S3Client(
        "us-east-1", url, access_key_id="AKEXAMPLE", secret_access_key="secret", **options
    )
