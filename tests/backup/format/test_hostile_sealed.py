"""Manifests and configurations of encrypted repositories that are malformed, or somebody else's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

import kumo_crt
from kumo_crt import FormatError
from kumo_crt.backup._format import _configuration, _manifest, _sealing
from tests.backup.format.test_hostile_manifests import ID, WHERE, valid
from tests.backup.helpers import KEY, closed, flipped

CURRENT = 2
Edit = Callable[[dict[str, Any]], object]


def sealed() -> dict[str, Any]:
    """A valid manifest, without its seal."""
    plain = _manifest.decode_snapshot(closed(valid()), WHERE, ID)
    files = []
    for file in plain.files:
        content = file.inline if file.inline is not None else bytes(file.size)
        _, found, crc = _sealing.seal_memory(KEY, content)
        files.append(
            kumo_crt.SnapshotFile(
                file.path, file.kind, file.size, crc, file.key, file.inline, sealed=found
            )
        )
    snapshot = kumo_crt.Snapshot(
        id=ID,
        created_at=plain.created_at,
        db_id=plain.db_id,
        files=tuple(files),
        total_bytes=plain.total_bytes,
        uploaded_bytes=0,
        reused_bytes=0,
        sequence_number=plain.sequence_number,
        column_families=plain.column_families,
        tags=plain.tags,
    )
    text = _manifest.encode_snapshot(snapshot, "an id", "a test", KEY)
    assert _manifest.decode_snapshot(text, WHERE, ID, KEY) == snapshot
    document: dict[str, Any] = json.loads(text)
    del document["seal"], document["crc32c"]
    return document


def _set(index: int, **changes: object) -> Edit:
    return lambda document: document["files"][index].update(changes)


def _drop(name: str) -> Edit:
    return lambda document: document["files"][0].pop(name)


def _inline(change: Callable[[bytes], bytes], *, crc: bool = False) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        file = document["files"][CURRENT]
        content = change(base64.b64decode(file["inline"]))
        file["inline"] = base64.b64encode(content).decode()
        if crc:
            file["sealed_crc32c"] = f"{kumo_crt.crc32c(content):08x}"

    return edit


def _another_content(document: dict[str, Any]) -> None:
    content, found, _ = _sealing.seal_memory(KEY, b"MANIFEST-000006\n")
    document["files"][CURRENT] |= {
        "inline": base64.b64encode(content).decode(),
        "sealed_crc32c": f"{found.crc32c:08x}",
        "salt": found.salt.hex(),
    }


CASES: list[tuple[str, Edit, str]] = [
    ("no salt", _drop("salt"), "files[0].salt"),
    ("salt too short", _set(0, salt="00" * 15), "files[0].salt"),
    ("salt in capitals", _set(0, salt="AB" * 16), "files[0].salt"),
    ("salt is no text", _set(0, salt=7), "files[0].salt"),
    ("no sealed_crc32c", _drop("sealed_crc32c"), "files[0].sealed_crc32c"),
    ("sealed_crc32c too long", _set(0, sealed_crc32c="0" * 9), "files[0].sealed_crc32c"),
    ("sealed_crc32c is no text", _set(0, sealed_crc32c=[]), "files[0].sealed_crc32c"),
    ("size beyond all", _set(0, size=1 << 62), "files[0].size"),
    ("inline cut", _inline(lambda c: c[:-1], crc=True), "files[2].inline"),
    ("inline damaged", _inline(flipped), "files[2].inline"),
    ("inline tampered with", _inline(flipped, crc=True), "files[2].inline"),
    ("inline of another key", _inline(lambda c: flipped(c, 9), crc=True), "files[2].inline"),
    ("inline with another salt", _inline(lambda c: flipped(c, 20), crc=True), "files[2].inline"),
    ("inline of another version", _inline(lambda c: flipped(c, 7), crc=True), "files[2].inline"),
    ("inline with another CRC32C", _set(CURRENT, crc32c="00000000"), "files[2].inline"),
    ("inline is plaintext", _set(CURRENT, inline="TUFOSUZFU1QtMDAwMDA1Cg=="), "files[2].inline"),
    ("CURRENT of another", _another_content, "files[2].inline"),
    ("inline is huge", _set(CURRENT, inline="A" * 1_000_000), "files[2].inline"),
    ("nothing is sealed", lambda d: d.update(features=[]), "files[2].inline"),
    ("features unknown", lambda d: d.update(features=["sealed", "new"]), "features"),
]


@pytest.mark.parametrize(("edit", "field"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_malformed(edit: Edit, field: str) -> None:
    document = sealed()
    edit(document)
    text = json.dumps(document).encode()
    with pytest.raises(FormatError) as caught:
        _manifest.decode_snapshot(_manifest.close_document(text, KEY), WHERE, ID, KEY)
    assert str(caught.value).startswith(f"{WHERE}, field {field}: ")
    # Without its seal it is not even looked at.
    with pytest.raises(FormatError, match=r"field (seal|features): "):
        _manifest.decode_snapshot(text, WHERE, ID, KEY)


def test_every_bit_of_a_manifest_is_sealed() -> None:
    text = _manifest.close_document(json.dumps(sealed()).encode(), KEY)
    for place in range(0, len(text), 7):
        with pytest.raises(FormatError):
            _manifest.decode_snapshot(flipped(text, place), WHERE, ID, KEY)
    document: dict[str, Any] = json.loads(text)
    for other in (text + b" ", text[:-1], text.replace(b',"seal"', b', "seal"'), closed(document)):
        with pytest.raises(FormatError):
            _manifest.decode_snapshot(other, WHERE, ID, KEY)


@pytest.mark.parametrize(
    ("encryption", "field"),
    [
        (None, "encryption"),
        ([], "encryption"),
        ({"key_check": "00" * 16}, "encryption.algorithm"),
        ({"algorithm": "ROT13", "key_check": "00" * 16}, "encryption.algorithm"),
        ({"algorithm": _sealing.ALGORITHM}, "encryption.key_check"),
        ({"algorithm": _sealing.ALGORITHM, "key_check": "zz" * 16}, "encryption.key_check"),
        ({"algorithm": _sealing.ALGORITHM, "key_check": 7}, "encryption.key_check"),
    ],
)
def test_malformed_configurations(encryption: object, field: str) -> None:
    config = _configuration.new_config("prod", None, None, None, KEY)
    text = _configuration.encode_config(config)
    assert _configuration.decode_config(text, WHERE) == config
    document = json.loads(text)
    document["encryption"] = encryption
    with pytest.raises(FormatError) as caught:
        _configuration.decode_config(json.dumps(document).encode(), WHERE)
    assert str(caught.value).startswith(f"{WHERE}, field {field}: ")
