"""Streams of messages, in pieces of any size."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from kumo_crt.event_stream import Byte, Decoder, Int16, Int64, Message, encode
from tests.eventstream import frames

_MESSAGES: list[tuple[dict[str, Any], bytes]] = [
    ({}, b""),
    ({":event-type": "put"}, b"payload"),
    ({"n": 2**40, "b": b"x" * 300}, b""),
    ({}, b"p" * 5000),
]
_STREAM = b"".join(encode(headers, payload) for headers, payload in _MESSAGES)


def test_a_byte_at_a_time() -> None:
    decoder = Decoder()
    found: list[Message] = []
    ends = []
    for position in range(len(_STREAM)):
        new = decoder.feed(_STREAM[position : position + 1])
        if new:
            ends.append(position + 1)
        found += new
    assert found == _MESSAGES
    lengths = [len(encode(headers, payload)) for headers, payload in _MESSAGES]
    assert ends == [sum(lengths[: count + 1]) for count in range(len(lengths))]
    decoder.finish()


@pytest.mark.parametrize("size", [2, 11, 12, 13, 16, 100, 1000, 4096, len(_STREAM)])
def test_pieces_of_any_size(size: int) -> None:
    decoder = Decoder()
    stream = _STREAM * 3
    found = [
        message
        for start in range(0, len(stream), size)
        for message in decoder.feed(stream[start : start + size])
    ]
    assert found == _MESSAGES * 3
    assert decoder.pending == 0
    decoder.finish()


def test_pieces_need_not_stay_as_they_were() -> None:
    decoder = Decoder()
    piece = bytearray(_STREAM[:40])
    found = decoder.feed(piece)
    piece[:] = bytes(40)
    found += decoder.feed(memoryview(_STREAM)[40:])
    assert found == _MESSAGES


def test_an_empty_piece_and_an_empty_stream() -> None:
    decoder = Decoder()
    assert decoder.feed(b"") == []
    decoder.finish()


def test_messages_have_names() -> None:
    [message] = Decoder().feed(encode({"a": 1}, b"p"))
    assert (message.headers, message.payload) == ({"a": 1}, b"p")


def test_large_messages_in_several_threads() -> None:
    """Read without the GIL, by one decoder each and by one for all: whole pieces do not mix."""
    streams = [encode({"n": number}, bytes([number]) * 100_000) for number in range(4)]
    shared = Decoder()
    found: list[list[Message]] = [[] for _ in streams]
    problems: list[BaseException] = []

    def work(number: int) -> None:
        own = Decoder()
        try:
            for _ in range(50):
                assert own.feed(streams[number]) == [({"n": number}, bytes([number]) * 100_000)]
                found[number] += shared.feed(streams[number])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    for number, messages in enumerate(found):
        assert len(messages) == 50
        assert {message.headers["n"] for message in messages} == {number}


_MILLISECONDS = st.integers(-62_135_596_800_000, 253_402_300_799_999)
_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**7), 2**7 - 1).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Int16),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.binary(max_size=200),
    st.text(max_size=100),
    _MILLISECONDS.map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)),
    st.uuids(),
)
_NAMES = st.text(min_size=1, max_size=20).filter(lambda name: len(name.encode()) <= 127)
_ANY_MESSAGE = st.tuples(st.dictionaries(_NAMES, _VALUES, max_size=8), st.binary(max_size=300))


@settings(deadline=None, database=None, derandomize=True, max_examples=50)
@given(messages=st.lists(_ANY_MESSAGE, max_size=5), data=st.data())
def test_round_trip(messages: list[tuple[dict[str, Any], bytes]], data: st.DataObject) -> None:
    stream = b"".join(encode(headers, payload) for headers, payload in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    decoder = Decoder()
    found = [
        message
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for message in decoder.feed(stream[start:end])
    ]
    assert found == messages
    assert [list(message.headers) for message in found] == [list(h) for h, _ in messages]
    decoder.finish()

    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    theirs = list(buffer)
    assert [message.payload for message in theirs] == [payload for _, payload in messages]
    assert [list(message.headers) for message in theirs] == [list(h) for h, _ in messages]


def test_the_sample_is_one_message_among_others() -> None:
    found = Decoder().feed(_STREAM + frames.SAMPLE + _STREAM)
    assert len(found) == 2 * len(_MESSAGES) + 1
    assert found[len(_MESSAGES)].headers["näme"] == "wört"
