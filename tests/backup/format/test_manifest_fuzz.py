"""Whatever a manifest holds, reading it gives a snapshot or a FormatError."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kumo_crt
from kumo_crt.backup._format import _layout, _manifest
from tests.backup.format.test_hostile_manifests import ID, WHERE, valid
from tests.backup.helpers import closed

_SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["sst", "data/1f/x", "000012.sst", "e3069283", "", "..", ID])
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


def _read(document: bytes) -> kumo_crt.Snapshot | None:
    refusal = ""
    snapshot = None
    try:
        snapshot = _manifest.decode_snapshot(document, WHERE, ID)
    except kumo_crt.FormatError as error:
        refusal = str(error)
    if snapshot is None:
        assert refusal.startswith(WHERE)
    else:
        _check(snapshot)
    return snapshot


def _check(snapshot: kumo_crt.Snapshot) -> None:
    """What a restore relies on."""
    assert snapshot.id == ID
    assert len({file.path for file in snapshot.files}) == len(snapshot.files)
    for file in snapshot.files:
        assert file.path.isascii()
        assert file.path.isprintable()
        assert not set(file.path) & set("/\\")
        assert file.path not in ("", ".", "..")
        assert type(file.size) is int
        assert 0 <= file.size <= _layout.MAX_FILE_SIZE
        assert 0 <= file.crc32c < 1 << 32
        assert (file.key is None) != (file.inline is None)
        if file.key is not None:
            assert file.key.startswith("data/")
            assert ".." not in file.key.split("/")
        else:
            assert file.inline is not None
            assert len(file.inline) == file.size <= 4096
    assert snapshot.total_bytes == sum(file.size for file in snapshot.files)


def _places(value: object) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its indexes or names."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items: Any = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return found
    for name, member in items:
        found.append((value, name))
        found.extend(_places(member))
    return found


@_SETTINGS
@given(st.data())
def test_members_replaced_and_removed(data: st.DataObject) -> None:
    document = valid()
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(document)
        container, name = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        if data.draw(st.booleans()):
            container[name] = data.draw(_JSON)
        elif isinstance(container, dict):
            del container[name]
        else:
            container.append(container[name])
    _read(closed(document))


@_SETTINGS
@given(st.data())
def test_bytes_replaced(data: st.DataObject) -> None:
    document = bytearray(closed(valid()))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(document) - 1))
        document[position] = data.draw(st.integers(0, 255))
    _read(bytes(document))


@_SETTINGS
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_anything(document: bytes) -> None:
    assert _read(document) is None


@_SETTINGS
@given(st.data())
def test_what_is_written_is_what_is_read(data: st.DataObject) -> None:
    snapshot = _read(closed(valid()))
    assert snapshot is not None
    changed = kumo_crt.Snapshot(
        id=snapshot.id,
        created_at=snapshot.created_at,
        db_id=data.draw(st.from_regex(r"[A-Za-z0-9_-]{0,64}", fullmatch=True)),
        files=snapshot.files,
        total_bytes=snapshot.total_bytes,
        uploaded_bytes=data.draw(st.integers(0, 1 << 62)),
        reused_bytes=data.draw(st.integers(0, 1 << 62)),
        sequence_number=data.draw(st.integers(0, (1 << 56) - 1)),
        column_families=tuple(data.draw(st.lists(st.text(max_size=20), max_size=3))),
        tags=data.draw(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3)),
    )
    assert _read(_manifest.encode_snapshot(changed, "an id", "a test")) == changed


def test_every_bit_counts() -> None:
    """JSON with a bit changed may still mean something: the name of another file."""
    document = closed(valid())
    for place in range(8 * len(document)):
        changed = bytearray(document)
        changed[place // 8] ^= 1 << place % 8
        assert _read(bytes(changed)) is None, place
