"""Damage that tests do to a repository, and what is then known of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kumo_crt
from kumo_crt.backup._repair import _rebuild
from tests.backup.helpers import delete, flipped, get, key_of, keys, put, stored_files

# What verifications call it; "empty" is a kind of "size".
HOWS = ("checksum", "missing", "size", "empty")


def damage(boto: Any, bucket: str, key: str, how: str, position: int | None = None) -> bytes:
    """Does it to one object, with one bit at `position` where it is "checksum".

    Returns what is there now.
    """
    if how == "missing":
        delete(boto, bucket, key)
        return b""
    content = get(boto, bucket, key)
    bad = {"checksum": flipped(content, position), "size": content[:-1], "empty": b""}[how]
    put(boto, bucket, key, bad)
    return bad


def forged(content: bytes, start: int, stop: int) -> bytes:
    """Another content with the same CRC32C: what no checksum can tell."""
    whole = bytearray(content)
    part = memoryview(whole)[start:stop]
    wanted = kumo_crt.crc32c(part)
    middle = len(part) // 2
    part[middle] ^= 1
    part[middle + 10 : middle + 14] = _rebuild._filler(bytearray(part), middle + 14, wanted)
    assert kumo_crt.crc32c(part) == wanted
    assert kumo_crt.crc32c(whole) == kumo_crt.crc32c(content)
    return bytes(whole)


def largest_table(
    repository: kumo_crt.Repository, boto: Any, bucket: str, path: Path
) -> tuple[kumo_crt.Snapshot, kumo_crt.SnapshotFile, bytes]:
    """Backs up; returns the snapshot, its largest table, and the object that holds it."""
    snapshot = repository.backup(path)
    file = stored_files(snapshot, "sst")[0]
    return snapshot, file, get(boto, bucket, key_of(file))


def contents(boto: Any, bucket: str) -> dict[str, bytes]:
    """All data objects."""
    return {key: get(boto, bucket, key) for key in keys(boto, bucket, "data/")}


def noticed(boto: Any, bucket: str) -> dict[str, str]:
    """What notices say, as docs/format.md has it: kinds by keys."""
    documents = [json.loads(get(boto, bucket, k)) for k in keys(boto, bucket, "inflight/damage-")]
    assert all(d["format"] == "kumo-damage" and d["version"] == 1 for d in documents)
    return {item["key"]: item["kind"] for d in documents for item in d["damaged"]}


def known_damage(repository: kumo_crt.Repository) -> set[str]:
    """What `snapshots` and `doctor` tell."""
    told = {key for item in repository.health() for key in item.damaged}
    doctor = repository.doctor(write=False, throughput_bytes=0)
    assert any(finding.check == "damage" for finding in doctor.findings) is bool(told)
    return told


def check_good(repository: kumo_crt.Repository, boto: Any, bucket: str) -> None:
    """Nothing is damaged, nor thought to be."""
    assert repository.verify("all", level="full", record=False).ok
    assert noticed(boto, bucket) == {}
    assert known_damage(repository) == set()
