"""Arguments of a wrong type are refused by their names, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kumo_crt
from kumo_crt import _config

pytestmark = pytest.mark.servers("seaweed-http")

TEXTS = ("region", "endpoint_url", "profile", "expected_bucket_owner", "proxy")
WHOLE = ("part_size", "multipart_threshold", "max_connections", "event_loops", "max_attempts")
SWITCHES = ("verify", "anonymous", "requester_pays")


@pytest.mark.parametrize("name", TEXTS)
def test_settings_that_are_texts(name: str) -> None:
    for wrong in (5, b"x", ["x"]):
        with pytest.raises(TypeError, match=f"{name}: expected a text"):
            _config.resolve(**{name: wrong})  # type: ignore[arg-type]


def test_credentials_are_not_repeated() -> None:
    with pytest.raises(TypeError, match="secret_access_key: expected a text, not bytes") as caught:
        _config.resolve(access_key_id="id", secret_access_key=b"hidden")  # type: ignore[arg-type]
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", [*WHOLE, "memory_limit", "connect_timeout", "deadline"])
def test_settings_that_are_numbers(name: str) -> None:
    for wrong in ("8MiB", b"x", [], *([8e6] if name in WHOLE else [])):
        with pytest.raises(TypeError, match=f"{name}: expected a (whole )?number, not"):
            _config.resolve(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SWITCHES)
def test_nothing_turns_verification_off_but_false(name: str) -> None:
    """None was taken for False: any certificate was good then."""
    for wrong in (None, 0, 1, "", "false"):
        with pytest.raises(TypeError, match=f"{name}: expected a bool"):
            _config.resolve(**{name: wrong})  # type: ignore[arg-type]


Call = Callable[[kumo_crt.S3Client, str, Any], object]
CALLS: dict[str, Call] = {
    "bucket": lambda s3, _, wrong: s3.head_object(wrong, "key"),
    "key": lambda s3, bucket, wrong: s3.head_object(bucket, wrong),
    "Content-Type": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", content_type=wrong),
    "metadata": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", metadata=wrong),
    "metadata ": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", metadata={"n": wrong}),
    "tags": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", tags=wrong),
    "tags ": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", tags={"n": wrong}),
    "ETag": lambda s3, bucket, wrong: s3.put_object(bucket, "k", b"", if_match=wrong),
    "ETag ": lambda s3, bucket, wrong: s3.get_object(bucket, "k", if_match=wrong),
    "ETag  ": lambda s3, bucket, wrong: s3.delete_object(bucket, "k", if_match=wrong),
    "keys": lambda s3, bucket, wrong: s3.delete_objects(bucket, ["a", wrong]),
    "keys ": lambda s3, bucket, wrong: s3.delete_objects(bucket, [("a", wrong)]),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls(s3: kumo_crt.S3Client, bucket: str, what: str) -> None:
    for wrong in (5, b"xyz", ["a"]):
        with pytest.raises(TypeError, match=f"^{what.strip()}: expected"):
            CALLS[what](s3, bucket, wrong)


def test_etags_that_no_header_has(s3: kumo_crt.S3Client, bucket: str) -> None:
    for wrong in ("\ud800", "a\nb", "é"):
        with pytest.raises(ValueError, match="ETag"):
            s3.get_object(bucket, "key", if_match=wrong)


def test_an_empty_key_among_many(s3: kumo_crt.S3Client, bucket: str) -> None:
    with pytest.raises(ValueError, match="the key is empty"):
        s3.delete_objects(bucket, [""])
