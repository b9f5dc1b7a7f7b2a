"""What goes with objects and requests: headers as S3 wants them, and real servers' answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import kumo_crt
from kumo_crt.exceptions import AccessDeniedError
from tests.s3.conftest import PART
from tests.support.data import content
from tests.support.fake_s3 import Answer, FakeS3
from tests.support.servers import S3Server

UNTIL = datetime(2031, 5, 6, 7, 8, 9, 123000, tzinfo=timezone(timedelta(hours=2)))
EVERYTHING: dict[str, Any] = {
    "metadata": {"Some-Name": "value"},
    "content_type": "text/x-test",
    "cache_control": "max-age=5",
    "content_disposition": 'attachment; filename="x"',
    "content_encoding": "gzip",
    "content_language": "de",
    "storage_class": "STANDARD_IA",
    "tags": {"a b": "ü&="},
    "sse": "aws:kms",
    "kms_key_id": "arn:aws:kms:us-east-1:111122223333:key/x",
    "lock_mode": "GOVERNANCE",
    "retain_until": UNTIL,
    "legal_hold": True,
}
AS_HEADERS = {
    "x-amz-meta-some-name": "value",
    "content-type": "text/x-test",
    "cache-control": "max-age=5",
    "content-disposition": 'attachment; filename="x"',
    "content-encoding": "gzip",
    "content-language": "de",
    "x-amz-storage-class": "STANDARD_IA",
    "x-amz-tagging": "a%20b=%C3%BC%26%3D",
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:us-east-1:111122223333:key/x",
    "x-amz-object-lock-mode": "GOVERNANCE",
    "x-amz-object-lock-retain-until-date": "2031-05-06T05:08:09.123000Z",
    "x-amz-object-lock-legal-hold": "ON",
}


def test_headers_of_a_put(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    fake.default = Answer(
        headers={
            "ETag": '"e"',
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "arn:x",
        }
    )
    result = s3_fake.put_object("bucket", "key", b"x", **EVERYTHING)
    (asked,) = fake.asked
    assert AS_HEADERS.items() <= asked.headers.items()
    signed = re.search("SignedHeaders=([^,]*)", asked.headers["authorization"])
    assert signed is not None
    assert {name for name in AS_HEADERS if name.startswith("x-amz-")} <= set(signed[1].split(";"))
    assert (result.sse, result.kms_key_id) == ("aws:kms", "arn:x")


def test_headers_of_a_multipart_upload(fake: FakeS3) -> None:
    upload = (
        b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    )
    done = b'<CompleteMultipartUploadResult><ETag>"x-2"</ETag></CompleteMultipartUploadResult>'
    part = Answer(headers={"ETag": '"p"'})
    fake.script.extend([Answer(body=upload), part, part, Answer(body=done)])
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        anonymous=True,
        part_size=PART,
        multipart_threshold=PART,
        checksum_trailers=False,
    ) as s3:
        s3.put_object("bucket", "key", bytes(PART + 1), **EVERYTHING)
    create, *parts, complete = fake.asked
    assert AS_HEADERS.items() <= create.headers.items()
    for asked in (*parts, complete):
        assert not {name for name in AS_HEADERS if name.startswith("x-amz-")} & set(asked.headers)


def test_headers_of_a_copy(fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
    fake.script.append(Answer(headers={"ETag": '"e"', "x-amz-meta-other": "y"}))
    fake.script.append(Answer(body=b'<CopyObjectResult><ETag>"n"</ETag></CopyObjectResult>'))
    s3_fake.copy_object("src-bucket", "src", "bucket", "key", **EVERYTHING)
    asked = fake.asked[-1]
    assert AS_HEADERS.items() <= asked.headers.items()
    assert asked.headers["x-amz-metadata-directive"] == "REPLACE"
    assert asked.headers["x-amz-tagging-directive"] == "REPLACE"
    assert "x-amz-meta-other" not in asked.headers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lock_mode": "GOVERNANCE"}, "go together"),
        ({"retain_until": UNTIL}, "go together"),
        ({"lock_mode": "GOVERNANCE", "retain_until": datetime(2031, 1, 1)}, "time zone"),
        ({"storage_class": "A\r\nB: C"}, "printable"),
    ],
)
def test_what_cannot_be_meant(
    fake: FakeS3, s3_fake: kumo_crt.S3Client, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        s3_fake.put_object("bucket", "key", b"x", **arguments)
    assert fake.asked == []


def test_headers_of_every_request(fake: FakeS3) -> None:
    fake.default = Answer(
        headers={"ETag": '"e"'}, body=b"<CopyObjectResult><ETag>n</ETag></CopyObjectResult>"
    )
    with kumo_crt.S3Client(
        "us-east-1",
        fake.endpoint_url,
        anonymous=True,
        requester_pays=True,
        expected_bucket_owner="111122223333",
    ) as s3:
        s3.put_object("bucket", "key", b"x")
        s3.get_object("bucket", "key")
        s3.head_object("bucket", "key")
        s3.delete_object("bucket", "key")
        s3.copy_object("bucket", "key", "bucket", "copy")
    for asked in fake.asked:
        assert asked.headers["x-amz-request-payer"] == "requester"
        assert asked.headers["x-amz-expected-bucket-owner"] == "111122223333"
    assert fake.asked[-1].headers["x-amz-source-expected-bucket-owner"] == "111122223333"
    with pytest.raises(ValueError, match="12 digits"):
        kumo_crt.S3Client(expected_bucket_owner="me")


def test_properties_of_a_stored_object(s3: kumo_crt.S3Client, bucket: str) -> None:
    s3.put_object(
        bucket,
        "key",
        b"x",
        cache_control="max-age=5",
        content_disposition="inline",
        content_encoding="gzip",
        content_language="de",
    )
    head = s3.head_object(bucket, "key")
    assert head.cache_control == "max-age=5"
    assert head.content_disposition == "inline"
    assert head.content_encoding == "gzip"
    assert head.content_language == "de"
    got = s3.get_object(bucket, "key")
    assert got.content_encoding == "gzip"
    assert content(got) == b"x"


@pytest.fixture(scope="module")
def locked_bucket(s3_server: S3Server) -> Iterator[str]:
    with kumo_crt.S3Client(**s3_server.client_arguments()) as s3:
        name = f"lock-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(name, object_lock=True)
        yield name
        for item in s3.list_object_versions(name):
            s3.delete_object(name, item.key, version_id=item.version_id, bypass_governance=True)
        s3.delete_bucket(name)


@pytest.mark.servers("seaweed-http", "moto")
def test_retention(s3: kumo_crt.S3Client, locked_bucket: str, s3_server: S3Server) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    put = s3.put_object(locked_bucket, "kept", b"x", lock_mode="GOVERNANCE", retain_until=until)
    head = s3.head_object(locked_bucket, "kept")
    assert (head.lock_mode, head.retain_until) == ("GOVERNANCE", until)
    with pytest.raises(AccessDeniedError):
        s3.delete_object(locked_bucket, "kept", version_id=put.version_id)
    if s3_server.is_strict:
        (refused,) = s3.delete_objects(locked_bucket, [("kept", put.version_id)], check=False)
        assert refused.error is not None
        assert refused.error.code == "AccessDenied"
    s3.delete_object(locked_bucket, "kept", version_id=put.version_id, bypass_governance=True)
    assert list(s3.list_object_versions(locked_bucket, "kept")) == []


@pytest.mark.servers("seaweed-http", "moto")
def test_a_legal_hold(s3: kumo_crt.S3Client, boto: Any, locked_bucket: str) -> None:
    put = s3.put_object(locked_bucket, "held", b"x", legal_hold=True)
    assert s3.head_object(locked_bucket, "held").legal_hold
    with pytest.raises(AccessDeniedError):
        s3.delete_object(locked_bucket, "held", version_id=put.version_id, bypass_governance=True)
    boto.put_object_legal_hold(Bucket=locked_bucket, Key="held", LegalHold={"Status": "OFF"})
    s3.delete_object(locked_bucket, "held", version_id=put.version_id)


@pytest.mark.servers("moto")
def test_encryption(s3: kumo_crt.S3Client, bucket: str) -> None:
    put = s3.put_object(bucket, "key", b"x", sse="AES256")
    assert put.sse == "AES256"
    assert s3.head_object(bucket, "key").sse == "AES256"
    assert s3.get_object(bucket, "key").sse == "AES256"


class TestBuckets:
    @pytest.mark.servers("seaweed-http")
    def test_versioning(self, s3: kumo_crt.S3Client) -> None:
        name = f"versioning-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(name)
        assert s3.get_bucket_versioning(name) is None
        s3.put_bucket_versioning(name, "Enabled")
        assert s3.get_bucket_versioning(name) == "Enabled"
        first = s3.put_object(name, "key", b"first")
        second = s3.put_object(name, "key", b"second")
        gone = s3.delete_object(name, "key")
        assert gone.delete_marker
        found = list(s3.list_object_versions(name))
        assert [(item.version_id, item.is_delete_marker, item.is_latest) for item in found] == [
            (gone.version_id, True, True),
            (second.version_id, False, False),
            (first.version_id, False, False),
        ]
        assert content(s3.get_object(name, "key", version_id=first.version_id)) == b"first"
        s3.put_bucket_versioning(name, "Suspended")
        assert s3.get_bucket_versioning(name) == "Suspended"
        results = s3.delete_objects(name, [(item.key, item.version_id) for item in found])
        assert [item.version_id for item in results] == [item.version_id for item in found]
        s3.delete_bucket(name)
        with pytest.raises(kumo_crt.NotFoundError):
            s3.get_bucket_versioning(name)
        with pytest.raises(ValueError, match="'Enabled' or 'Suspended'"):
            s3.put_bucket_versioning(name, "On")

    # SeaweedFS deletes it with what is in it.
    @pytest.mark.servers("moto")
    def test_one_that_is_not_empty(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        s3.put_object(bucket, "key", b"x")
        with pytest.raises(kumo_crt.S3Error) as caught:
            s3.delete_bucket(bucket)
        assert caught.value.code == "BucketNotEmpty"

    @pytest.mark.servers("seaweed-http", "moto")
    def test_uploads(self, s3: kumo_crt.S3Client, boto: Any, bucket: str) -> None:
        ids = [
            boto.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in ("a", "b")
        ]
        found = list(s3.list_multipart_uploads(bucket))
        assert [(item.key, item.upload_id) for item in found] == list(zip("ab", ids, strict=True))
        assert [item.key for item in s3.list_multipart_uploads(bucket, "b")] == ["b"]
        for item in found:
            s3.abort_multipart_upload(bucket, item.key, item.upload_id)
        s3.abort_multipart_upload(bucket, "a", ids[0])
        assert list(s3.list_multipart_uploads(bucket)) == []


class TestManyDeletions:
    def test_keys_that_xml_cannot_hold(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        odd = ["bell\a", "line\nfeed", "cr\r", "\ufffe", "esc\x1b[0m"]
        deleted = b"<DeleteResult><Deleted><Key>plain &lt;&amp;&gt;</Key></Deleted></DeleteResult>"
        fake.default = Answer(204)
        fake.script.append(Answer(body=deleted))
        results = s3_fake.delete_objects("bucket", [odd[0], "plain <&>", *odd[1:]])
        assert [item.key for item in results] == [odd[0], "plain <&>", *odd[1:]]
        assert all(item.error is None for item in results)
        many, *single = fake.asked
        assert (many.method, many.target) == ("POST", "/bucket?delete")
        assert many.body.count(b"<Key>") == 1
        assert {(asked.method, asked.target) for asked in single} == {
            ("DELETE", "/bucket/" + name)
            for name in ("bell%07", "line%0Afeed", "cr%0D", "%EF%BF%BE", "esc%1B%5B0m")
        }

    @pytest.mark.servers("moto")
    def test_such_keys_on_a_server(self, s3: kumo_crt.S3Client, bucket: str, boto: Any) -> None:
        names = ["a\x01b", "plain", "tab\tbed"]
        for name in names:
            s3.put_object(bucket, name, b"x")
        assert {item.key for item in s3.list_objects(bucket)} == set(names)
        s3.delete_objects(bucket, names)
        assert list(s3.list_objects(bucket)) == []

    def test_what_became_of_each(self, fake: FakeS3, s3_fake: kumo_crt.S3Client) -> None:
        fake.default = Answer(
            body=b"<DeleteResult><Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker>"
            b"<DeleteMarkerVersionId>m</DeleteMarkerVersionId></Deleted>"
            b"<Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
            b"<Deleted><Key>c</Key><VersionId>v</VersionId></Deleted></DeleteResult>"
        )
        keys: list[str | tuple[str, str | None]] = ["a", "b", ("c", "v"), "d"]
        results = s3_fake.delete_objects("bucket", keys, check=False)
        assert [(item.key, item.version_id, item.delete_marker) for item in results] == [
            ("a", "m", True),
            ("b", None, False),
            ("c", "v", False),
            ("d", None, False),
        ]
        errors = [item.error.code if item.error else None for item in results]
        assert errors == [None, "AccessDenied", None, None]
        with pytest.raises(AccessDeniedError, match=r"1 of 4 keys were not deleted; .* 'b': no"):
            s3_fake.delete_objects("bucket", keys)
        with pytest.raises(TypeError, match="delete_object"):
            s3_fake.delete_objects("bucket", "abc")
