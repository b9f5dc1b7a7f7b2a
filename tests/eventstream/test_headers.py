"""Every type of header and its limits, both ways, against botocore and an encoder of our own."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from botocore.eventstream import EventStreamBuffer

import kumo_crt
from kumo_crt import event_stream
from kumo_crt.event_stream import Byte, Decoder, Int16, Int32, Int64, encode
from tests.eventstream import frames

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID = UUID("00010203-0405-0607-0809-0a0b0c0d0e0f")

# Value given, type and bytes sent, value read.
_CASES: list[tuple[Any, int, bytes, Any]] = [
    (True, frames.TRUE, b"", True),
    (False, frames.FALSE, b"", False),
    (Byte(-128), frames.BYTE, b"\x80", -128),
    (Byte(127), frames.BYTE, b"\x7f", 127),
    (Int16(-(2**15)), frames.INT16, b"\x80\x00", -(2**15)),
    (Int16(2**15 - 1), frames.INT16, b"\x7f\xff", 2**15 - 1),
    (Int32(5), frames.INT32, b"\0\0\0\5", 5),
    (Int64(5), frames.INT64, b"\0\0\0\0\0\0\0\5", 5),
    (0, frames.INT32, b"\0\0\0\0", 0),
    (-1, frames.INT32, b"\xff\xff\xff\xff", -1),
    (2**31 - 1, frames.INT32, b"\x7f\xff\xff\xff", 2**31 - 1),
    (-(2**31), frames.INT32, b"\x80\0\0\0", -(2**31)),
    (2**31, frames.INT64, b"\0\0\0\0\x80\0\0\0", 2**31),
    (-(2**31) - 1, frames.INT64, b"\xff\xff\xff\xff\x7f\xff\xff\xff", -(2**31) - 1),
    (2**63 - 1, frames.INT64, b"\x7f" + b"\xff" * 7, 2**63 - 1),
    (-(2**63), frames.INT64, b"\x80" + b"\0" * 7, -(2**63)),
    (b"", frames.BYTES, b"", b""),
    (b"\0\xff", frames.BYTES, b"\0\xff", b"\0\xff"),
    (bytearray(b"ab"), frames.BYTES, b"ab", b"ab"),
    (memoryview(b"abcd")[::2], frames.BYTES, b"ac", b"ac"),
    (b"v" * 32767, frames.BYTES, b"v" * 32767, b"v" * 32767),
    ("", frames.STRING, b"", ""),
    ("wört\0", frames.STRING, "wört\0".encode(), "wört\0"),
    ("s" * 32767, frames.STRING, b"s" * 32767, "s" * 32767),
    (_EPOCH, frames.TIMESTAMP, b"\0" * 8, _EPOCH),
    (
        datetime(2023, 11, 14, 23, 13, 20, 123999, timezone(timedelta(hours=1))),
        frames.TIMESTAMP,
        struct.pack(">q", 1_700_000_000_123),
        datetime(2023, 11, 14, 22, 13, 20, 123000, UTC),
    ),
    (
        datetime(1969, 12, 31, 23, 59, 59, 999500, UTC),
        frames.TIMESTAMP,
        b"\xff" * 8,
        datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
    ),
    (
        datetime(1, 1, 1, tzinfo=UTC),
        frames.TIMESTAMP,
        struct.pack(">q", -62_135_596_800_000),
        datetime(1, 1, 1, tzinfo=UTC),
    ),
    (
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
        frames.TIMESTAMP,
        struct.pack(">q", 253_402_300_799_999),
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
    ),
    (_ID, frames.UUID, bytes(range(16)), _ID),
]


def _botocore(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


def _as_botocore(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(milliseconds=1)
    return value.bytes if isinstance(value, UUID) else value


def _name(given: object, kind: object) -> str:
    """Without addresses: tests in several processes have to be named alike."""
    return f"{kind}-" + ("view" if isinstance(given, memoryview) else f"{given!r:.20}")


@pytest.mark.parametrize(
    ("given", "kind", "sent", "read"), _CASES, ids=[_name(c[0], c[1]) for c in _CASES]
)
def test_each_type(given: Any, kind: int, sent: bytes, read: Any) -> None:
    expected = frames.frame(frames.header(b"name", kind, sent), b"payload")
    assert encode({"name": given}, b"payload") == expected
    [message] = Decoder().feed(expected)
    assert message.headers == {"name": read}
    assert message.payload == b"payload"
    assert type(message.headers["name"]) is type(read)
    assert _botocore(expected) == [({"name": _as_botocore(read)}, b"payload")]


def test_a_message_of_all_types() -> None:
    [message] = Decoder().feed(frames.SAMPLE)
    assert message.payload == b'{"a": 1}'
    assert message.headers == {
        ":event-type": "Records",
        "yes": True,
        "no": False,
        "byte": -128,
        "short": 32767,
        "int": -2,
        "long": 0x0102030405060708,
        "blob": b"\x00\xff",
        "näme": "wört",
        "time": datetime(2023, 11, 14, 22, 13, 20, 123000, UTC),
        "id": _ID,
    }
    sized = {"byte": Byte(-128), "short": Int16(32767), "int": Int32(-2)}
    assert encode({**message.headers, **sized}, message.payload) == frames.SAMPLE
    [(headers, payload)] = _botocore(frames.SAMPLE)
    assert headers == {name: _as_botocore(value) for name, value in message.headers.items()}
    assert payload == message.payload


@pytest.mark.parametrize("payload", [b"", b"\0", bytearray(b"abc"), memoryview(b"abcd")[1:3]])
def test_payloads(payload: Any) -> None:
    message = encode({}, payload)
    assert message == frames.frame(b"", bytes(payload))
    assert Decoder().feed(message) == [({}, bytes(payload))]
    assert _botocore(message) == [({}, bytes(payload))]


def test_the_payload_may_be_left_out() -> None:
    assert encode({"a": 1}) == encode({"a": 1}, b"")


@pytest.mark.parametrize("length", [1, 126, 127, 128, 200, 254, 255])
def test_names(length: int) -> None:
    """Before 0.6.0, names of more than 127 bytes overflow aws-c-event-stream's decoder."""
    name = "n" * length
    message = frames.frame(frames.header(name.encode(), frames.INT32, b"\0\0\0\1"))
    if length <= event_stream.MAX_NAME:
        assert encode({name: 1}) == message
        assert Decoder().feed(message) == [({name: 1}, b"")]
    else:
        with pytest.raises(event_stream.DecodeError, match=f"name has {length} bytes"):
            Decoder().feed(message)


@pytest.mark.filterwarnings("ignore:aws-c-event-stream:RuntimeWarning")
def test_the_limit_of_names_is_the_librarys() -> None:
    limit = 255 if kumo_crt.build_info()["features"]["event_stream_checks_lengths"] else 127
    assert limit == event_stream.MAX_NAME


def test_names_are_measured_in_utf8() -> None:
    name = "ü" * (event_stream.MAX_NAME // 2)
    assert Decoder().feed(encode({name: True})) == [({name: True}, b"")]
    with pytest.raises(ValueError, match="a header's name of"):
        encode({name + "ü": True})


def _fill_headers(size: int) -> dict[str, bytes]:
    """Headers that are `size` bytes when they are sent."""
    headers: dict[str, bytes] = {}
    while size > 0:
        value = min(size - 6, event_stream.MAX_VALUE)
        if 0 < size - 6 - value < 6:
            value -= 6
        headers[f"{len(headers):02}"] = b"h" * value
        size -= value + 6
    return headers


def test_the_largest_headers() -> None:
    headers = _fill_headers(event_stream.MAX_HEADERS)
    message = encode(headers, b"p")
    assert int.from_bytes(message[4:8], "big") == event_stream.MAX_HEADERS
    assert Decoder().feed(message) == [(headers, b"p")]
    assert _botocore(message) == [(headers, b"p")]
    with pytest.raises(ValueError, match="headers of 131073 bytes: the limit is 131072"):
        encode(_fill_headers(event_stream.MAX_HEADERS + 1))


def test_many_headers() -> None:
    headers: dict[str, Any] = {f"{number:04x}": True for number in range(20_000)}
    assert Decoder().feed(encode(headers)) == [(headers, b"")]


def test_the_largest_message() -> None:
    payload = b"p" * (event_stream.MAX_MESSAGE - 16)
    message = encode({}, payload)
    assert len(message) == event_stream.MAX_MESSAGE
    [(headers, back)] = Decoder().feed(message)
    assert (headers, len(back)) == ({}, len(payload))
    assert back == payload
    with pytest.raises(ValueError, match="a message of 25165825 bytes: the limit is 25165824"):
        encode({}, payload + b"p")


@pytest.mark.parametrize(
    ("headers", "payload", "error", "text"),
    [
        ({"": 1}, b"", ValueError, "needs a name"),
        ({"n" * 256: 1}, b"", ValueError, "a header's name of 256 bytes"),
        ({1: 1}, b"", TypeError, "name is int: it must be str"),
        (5, b"", TypeError, "headers: expected names and values, not int"),
        ([("a", 1)], b"", TypeError, "headers: expected names and values, not list"),
        ({"a": None}, b"", TypeError, "header 'a' is NoneType"),
        ({"a": 1.5}, b"", TypeError, "header 'a' is float"),
        ({"a": 2**63}, b"", ValueError, "header 'a': 9223372036854775808 does not fit"),
        ({"a": -(2**63) - 1}, b"", ValueError, "does not fit in 64 bits"),
        ({"a": "x" * 32768}, b"", ValueError, "header 'a': a value of 32768 bytes"),
        ({"a": "ü" * 16384}, b"", ValueError, "header 'a': a value of 32768 bytes"),
        ({"a": b"x" * 70000}, b"", ValueError, "header 'a': a value of 70000 bytes"),
        ({"a": "\ud800"}, b"", ValueError, "surrogates not allowed"),
        ({"a": datetime(2026, 1, 1)}, b"", ValueError, "has no time zone"),
        ({}, "text", TypeError, "bytes-like"),
        ({}, memoryview(b"abcd")[::2], BufferError, "contiguous"),
    ],
    ids=lambda value: None if isinstance(value, memoryview) else str(value)[:30],
)
def test_what_cannot_be_sent(headers: Any, payload: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        encode(headers, payload)


@pytest.mark.parametrize(("kind", "bits"), [(Byte, 8), (Int16, 16), (Int32, 32), (Int64, 64)])
def test_sized_numbers_know_their_range(kind: type[int], bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert (kind(low), kind(high)) == (low, high)
    for number in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"does not fit in {kind.__name__}"):
            kind(number)
