"""What the tests of exports ask of buckets."""

from __future__ import annotations

from typing import Any

PLACE = "exports/one/"


def url(bucket: str) -> str:
    """Where the export of a test goes."""
    return f"s3://{bucket}/{PLACE}"


def keys(boto: Any, bucket: str) -> list[str]:
    """Keys of the export, relative to it, as boto3 lists them."""
    found = boto.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [item["Key"].removeprefix(PLACE) for item in found]
