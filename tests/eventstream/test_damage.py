"""Damaged and hostile streams: always an error, never a wrong message, a crash or much memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kumo_crt import KumoError, event_stream
from kumo_crt.event_stream import DecodeError, Decoder
from tests.eventstream import frames

GOOD = frames.frame(frames.header(b"n", frames.BYTE, b"\1"), b"good")
GOOD_MESSAGE = ({"n": 1}, b"good")


def test_every_flipped_bit_is_detected() -> None:
    for position in range(8 * len(frames.SAMPLE)):
        damaged = bytearray(frames.SAMPLE)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(DecodeError):
            Decoder().feed(damaged)


def test_every_truncation_is_detected() -> None:
    for length in range(1, len(frames.SAMPLE)):
        decoder = Decoder()
        assert decoder.feed(frames.SAMPLE[:length]) == []
        assert decoder.pending == length
        with pytest.raises(DecodeError, match="ends inside a message"):
            decoder.finish()


def test_a_lost_byte_is_detected_in_the_stream() -> None:
    for position in range(len(frames.SAMPLE)):
        stream = frames.SAMPLE[:position] + frames.SAMPLE[position + 1 :] + GOOD
        with pytest.raises(DecodeError) as caught:
            Decoder().feed(stream)
        assert caught.value.messages == []


_LENGTHS = [
    (0, 0, "said to have 0 bytes; the smallest has 16"),
    (12, 0, "said to have 12 bytes"),
    (15, 0, "said to have 15 bytes"),
    (15, 0xFFFFFFFF, "said to have"),
    (16, 1, "1 bytes of headers, which do not fit"),
    (100, 85, "85 bytes of headers, which do not fit"),
    (100, 0xFFFFFFFF, "4294967295 bytes of headers; the limit"),
    (0x1800000, 131073, "131073 bytes of headers; the limit"),
    (0x1800001, 0, "25165825 bytes; the limit"),
    (0x7FFFFFFF, 0, "2147483647 bytes; the limit"),
    (0xFFFFFFFF, 0, "4294967295 bytes; the limit"),
    (0xFFFFFFFF, 0xFFFFFFEF, "4294967295 bytes; the limit"),
]


@pytest.mark.parametrize(("total", "headers_length", "text"), _LENGTHS)
def test_hostile_lengths_with_a_right_checksum(total: int, headers_length: int, text: str) -> None:
    message = frames.frame(b"", b"x" * 84, total=total, headers_length=headers_length)
    with pytest.raises(DecodeError, match=text):
        Decoder().feed(message[:12])


_BLOCKS = {
    "no name": (b"\0\x00", "has no name"),
    "name past the end": (b"\x05abc", "name runs past the end"),
    "name of 255 past the end": (b"\xff" + b"n" * 254, "name"),
    "name to the very end": (b"\3abc", "type runs past the end"),
    "type 10": (b"\1a\x0a", "type 10, which does not exist"),
    "type 255": (b"\1a\xff", "type 255"),
    "byte cut": (b"\1a\2", "value runs past the end"),
    "short cut": (b"\1a\3\0", "value runs past the end"),
    "int cut": (b"\1a\4\0\0\0", "value runs past the end"),
    "long cut": (b"\1a\5" + bytes(7), "value runs past the end"),
    "time cut": (b"\1a\x08" + bytes(7), "value runs past the end"),
    "uuid cut": (b"\1a\x09" + bytes(15), "value runs past the end"),
    "no length": (b"\1a\7", "length of a header's value runs past"),
    "half a length": (b"\1a\6\0", "length of a header's value runs past"),
    "bytes cut": (b"\1a\6\0\4abc", "value runs past the end"),
    "string one short": (b"\1a\7\0\2a", "value runs past the end"),
    "value of 32768": (b"\1a\6\x80\x00" + bytes(32768), "value has 32768 bytes"),
    "value of 65535": (b"\1a\7\xff\xff" + b"v" * 65535, "value has 65535 bytes"),
    "second header cut": (b"\1a\0\1", "name runs past the end"),
    "string not UTF-8": (b"\1a\7\0\2\xc3\x28", "header 'a' is a string that is not UTF-8"),
    "name not UTF-8": (b"\1\xff\0", "name is not UTF-8"),
    "twice": (b"\1a\0\1a\0", "header 'a' is there twice"),
    "time too late": (b"\1a\x08" + struct.pack(">q", 2**63 - 1), "outside the years 1 to 9999"),
    "time too early": (b"\1a\x08" + struct.pack(">q", -(2**63)), "outside the years 1 to 9999"),
    "year 10000": (b"\1a\x08" + struct.pack(">q", 253_402_300_800_000), "outside the years"),
}


@pytest.mark.parametrize("payload", [b"", b"payload" * 10_000], ids=["bare", "payload"])
@pytest.mark.parametrize("name", _BLOCKS)
def test_hostile_headers_with_right_checksums(name: str, payload: bytes) -> None:
    block, text = _BLOCKS[name]
    with pytest.raises(DecodeError, match=text) as caught:
        Decoder().feed(GOOD + frames.frame(block, payload) + GOOD)
    assert caught.value.offset == len(GOOD)
    assert caught.value.messages == [GOOD_MESSAGE]


@settings(deadline=None, database=None, derandomize=True)
@given(block=st.binary(max_size=600), payload=st.binary(max_size=20))
def test_any_headers_with_right_checksums(block: bytes, payload: bytes) -> None:
    decoder = Decoder()
    try:
        [message] = decoder.feed(frames.frame(block, payload))
    except DecodeError:
        with pytest.raises(DecodeError):
            decoder.feed(GOOD)
    else:
        assert message.payload == payload
        assert len(message.headers) <= len(block) // 3


@settings(deadline=None, database=None, derandomize=True)
@given(data=st.binary(min_size=12, max_size=600))
def test_noise(data: bytes) -> None:
    # A CRC of 32 bits lets one in four thousand million through; hypothesis does not find it.
    with pytest.raises(DecodeError, match="checksum of a message's lengths"):
        Decoder().feed(data)


def test_nothing_is_read_behind_damage() -> None:
    decoder = Decoder()
    assert decoder.feed(GOOD) == [GOOD_MESSAGE]
    with pytest.raises(DecodeError, match="message's checksum does not match") as first:
        decoder.feed(GOOD + GOOD[:-1] + b"x")
    assert first.value.messages == [GOOD_MESSAGE]
    assert first.value.offset == 2 * len(GOOD)
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"behind damage \(a message's checksum") as again:
            decoder.feed(GOOD)
        assert again.value.messages == []
        assert again.value.offset == 2 * len(GOOD)
    with pytest.raises(DecodeError, match="behind damage"):
        decoder.finish()


def test_what_is_no_buffer_does_no_harm() -> None:
    decoder = Decoder()
    decoder.feed(GOOD[:5])
    with pytest.raises(TypeError, match="bytes-like"):
        decoder.feed("text")
    assert decoder.feed(GOOD[5:]) == [GOOD_MESSAGE]


def test_the_error_says_where_and_what() -> None:
    error = DecodeError("something", 17, [])
    assert isinstance(error, KumoError)
    assert str(error) == "event stream, offset 17: something"
    assert event_stream.DecodeError is DecodeError


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096


def test_a_claimed_length_allocates_nothing() -> None:
    """Address space, as memory that is never touched does not show in the resident set."""
    start = frames.frame(total=event_stream.MAX_MESSAGE)[:12]
    before = _address_space()
    decoders = []
    for _ in range(100):
        decoder = Decoder()
        assert decoder.feed(start + b"x" * 100) == []
        decoders.append(decoder)
    assert _address_space() - before < event_stream.MAX_MESSAGE
    assert [decoder.pending for decoder in decoders] == [112] * 100
