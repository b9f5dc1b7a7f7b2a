"""What the tests of exports ask of buckets and databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rocksdict import Rdict

from tests.support import databases

Pairs = list[tuple[bytes, bytes]]
PLACE = "exports/one/"


def url(bucket: str) -> str:
    """Where the export of a test goes."""
    return f"s3://{bucket}/{PLACE}"


def keys(boto: Any, bucket: str) -> list[str]:
    """Keys of the export, relative to it, as boto3 lists them."""
    found = boto.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [item["Key"].removeprefix(PLACE) for item in found]


def pairs_in(db: Rdict, family: str = "default") -> Pairs:
    """What is in a column family of an open database."""
    return list(databases.pairs(db.get_column_family(family)))


def found_in(path: Path, family: str = "default") -> Pairs:
    """The same of a closed one."""
    return [(key, value) for name, key, value in databases.read_all(path) if name == family]
