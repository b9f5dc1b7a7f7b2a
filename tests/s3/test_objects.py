"""Head, metadata, keys, listings, deletions, buckets."""

from __future__ import annotations

import concurrent.futures
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import kumo_crt
from tests.support.data import content, payload
from tests.support.servers import S3Server

Listed = Callable[[], list[str]]

KEYS = [
    "with space",
    "  leading and trailing  ",
    "a+b",
    "100%",
    "%41%2F",
    "til~de",
    "dots..and...more",
    "ünïcödé/文字/🦀",
    "e\u0301 is not \u00e9",
    "amp&equals=semi;",
    "quote'\"quote",
    "(paren)[bracket]{brace}",
    "star*exclamation!",
    "hash#question?",
    "comma,at@colon:dollar$",
    "^caret`tick|pipe<less>greater",
    "deep/er/and/deeper/still",
    "x" * 200,
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_every_kind(
    s3: kumo_crt.S3Client, bucket: str, boto: Any, keys: Listed, key: str
) -> None:
    s3.put_object(bucket, key, key.encode())
    assert keys() == [key]
    assert boto.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert content(s3.get_object(bucket, key)) == key.encode()
    assert s3.head_object(bucket, key).size == len(key.encode())
    assert [item.key for item in s3.list_objects(bucket)] == [key]
    assert [item.key for item in s3.list_objects(bucket, key)] == [key]
    s3.delete_object(bucket, key)
    assert keys() == []


# SeaweedFS makes a slash of it.
@pytest.mark.servers("moto")
def test_a_backslash(s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
    s3.put_object(bucket, "back\\slash", b"x")
    assert keys() == ["back\\slash"]
    assert content(s3.get_object(bucket, "back\\slash")) == b"x"


@pytest.mark.servers("seaweed-http")
def test_odd_keys_in_one_deletion(s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
    for key in KEYS:
        s3.put_object(bucket, key, b"x")
    assert sorted(keys()) == sorted(KEYS)
    s3.delete_objects(bucket, KEYS)
    assert keys() == []


class TestHead:
    def test_what_is_known(self, s3: kumo_crt.S3Client, bucket: str, s3_server: S3Server) -> None:
        data = payload(1000)
        put = s3.put_object(bucket, "key", data)
        head = s3.head_object(bucket, "key")
        assert head.size == 1000
        assert head.etag == put.etag
        assert head.last_modified is not None
        assert head.last_modified.tzinfo is not None
        if s3_server.is_strict:
            assert head.checksum_crc32c == kumo_crt.crc32c(data)

    def test_metadata_and_type(self, s3: kumo_crt.S3Client, bucket: str, boto: Any) -> None:
        metadata = {"plain": "value", "with-space": "a b  c", "colon": "a:b=c,d"}
        s3.put_object(
            bucket, "key", b"data", metadata=metadata, content_type="application/x-kumo; v=1"
        )
        seen = boto.head_object(Bucket=bucket, Key="key")
        assert seen["ContentType"] == "application/x-kumo; v=1"
        for name in ("plain", "colon"):
            assert seen["Metadata"][name] == metadata[name]
        head = s3.head_object(bucket, "key")
        assert head.content_type == "application/x-kumo; v=1"
        assert head.metadata["plain"] == "value"
        result = s3.get_object(bucket, "key")
        assert result.metadata["plain"] == "value"
        assert result.content_type == "application/x-kumo; v=1"

    def test_metadata_of_a_multipart_upload(
        self, s3_parts: kumo_crt.S3Client, bucket: str, boto: Any
    ) -> None:
        s3_parts.put_object(
            bucket,
            "key",
            payload(6_000_000),
            metadata={"name": "value"},
            content_type="text/plain",
            tags={"tag": "of many parts"},
        )
        seen = boto.head_object(Bucket=bucket, Key="key")
        assert seen["Metadata"]["name"] == "value"
        assert seen["ContentType"] == "text/plain"
        tags = boto.get_object_tagging(Bucket=bucket, Key="key")["TagSet"]
        assert tags == [{"Key": "tag", "Value": "of many parts"}]

    def test_tags(self, s3: kumo_crt.S3Client, bucket: str, boto: Any) -> None:
        s3.put_object(bucket, "key", b"data", tags={"a": "1", "b c": "x+y=z/é"})
        tags = boto.get_object_tagging(Bucket=bucket, Key="key")["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b c": "x+y=z/é"}

    def test_storage_class(self, s3: kumo_crt.S3Client, bucket: str, boto: Any) -> None:
        s3.put_object(bucket, "key", b"data", storage_class="STANDARD_IA")
        assert boto.head_object(Bucket=bucket, Key="key")["StorageClass"] == "STANDARD_IA"
        assert s3.head_object(bucket, "key").storage_class == "STANDARD_IA"

    @pytest.mark.servers("seaweed-http")
    @pytest.mark.parametrize(
        "metadata", [{"name": "line\r\nx-injected: 1"}, {"bad name": "v"}, {"na:me": "v"}]
    )
    def test_metadata_that_is_no_header_is_refused(
        self, s3: kumo_crt.S3Client, bucket: str, keys: Listed, metadata: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError, match="meta"):
            s3.put_object(bucket, "key", b"data", metadata=metadata)
        assert keys() == []


class TestList:
    @pytest.mark.servers("seaweed-http", "moto")
    def test_more_than_a_page_then_all_deleted(
        self, s3: kumo_crt.S3Client, bucket: str, boto: Any, keys: Listed
    ) -> None:
        names = [f"n/{number:05}" for number in range(1005)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: boto.put_object(Bucket=bucket, Key=key, Body=b"x"), names))
        assert [item.key for item in s3.list_objects(bucket)] == names
        assert [item.key for item in s3.list_objects(bucket, "n/0000")] == names[:10]
        after = s3.list_objects(bucket, start_after="n/00999")
        assert [item.key for item in after] == names[1000:]
        # A listing is lazy: its first key is there without the other pages.
        first = next(iter(s3.list_objects(bucket)))
        assert first.key == names[0]
        s3.delete_objects(bucket, names)
        assert keys() == []

    def test_what_is_listed(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        put = s3.put_object(bucket, "key", b"12345")
        (item,) = s3.list_objects(bucket)
        assert isinstance(item, kumo_crt.ObjectInfo)
        assert (item.key, item.size, item.etag) == ("key", 5, put.etag)
        assert item.last_modified is not None
        assert item.last_modified.tzinfo is not None

    def test_an_empty_bucket(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        assert list(s3.list_objects(bucket)) == []
        assert list(s3.list_objects(bucket, "prefix/")) == []

    def test_a_delimiter(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        # Below a prefix of its own: SeaweedFS goes on listing emptied directories.
        for key in ("a", "dir/b", "dir/c", "dir/sub/d", "other/e & f"):
            s3.put_object(bucket, f"top/{key}", b"x")
        top = list(s3.list_objects(bucket, "top/", delimiter="/"))
        assert [(item.key, item.is_prefix) for item in sorted(top, key=lambda item: item.key)] == [
            ("top/a", False),
            ("top/dir/", True),
            ("top/other/", True),
        ]
        inside = list(s3.list_objects(bucket, "top/dir/", delimiter="/"))
        assert {item.key for item in inside if not item.is_prefix} == {"top/dir/b", "top/dir/c"}
        assert {item.key for item in inside if item.is_prefix} == {"top/dir/sub/"}


class TestDelete:
    def test_one(self, s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
        s3.put_object(bucket, "gone", b"x")
        s3.put_object(bucket, "kept", b"x")
        s3.delete_object(bucket, "gone")
        assert keys() == ["kept"]

    def test_a_missing_key_is_no_error(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        s3.delete_object(bucket, "missing")
        s3.delete_objects(bucket, ["missing", "missing too"])

    def test_none(self, s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
        s3.put_object(bucket, "kept", b"x")
        s3.delete_objects(bucket, [])
        assert keys() == ["kept"]

    @pytest.mark.servers("seaweed-http")
    def test_any_iterable_of_keys(self, s3: kumo_crt.S3Client, bucket: str, keys: Listed) -> None:
        for number in range(3):
            s3.put_object(bucket, f"key-{number}", b"x")
        s3.delete_objects(bucket, (f"key-{number}" for number in range(3)))
        assert keys() == []


class TestBuckets:
    def test_create(self, s3: kumo_crt.S3Client, boto: Any) -> None:
        name = f"made-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(name)
        assert name in [item["Name"] for item in boto.list_buckets()["Buckets"]]
        s3.put_object(name, "key", b"data")
        assert content(s3.get_object(name, "key")) == b"data"
        s3.delete_object(name, "key")
        boto.delete_bucket(Bucket=name)

    @pytest.mark.servers("moto")
    def test_create_in_another_region(self, s3_server: S3Server, boto: Any) -> None:
        name = f"made-{uuid.uuid4().hex[:16]}"
        with kumo_crt.S3Client(**s3_server.client_arguments(region="eu-west-1")) as client:
            client.create_bucket(name)
        assert boto.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
