"""Messages in the format that AWS calls ``application/vnd.amazon.event-stream``.

A message is a few typed headers and a payload, framed by lengths and checksums. `encode` makes one;
a `Decoder` takes a stream of them apart, in pieces of any size::

    data = encode({":event-type": "put", "sequence": 42}, b"payload")
    for headers, payload in Decoder().feed(data): ...

What a header's value is in Python decides its type in the message, and the reverse:

===================  =====================================================================
`bool`               true, false
`int`                integer (32 bits); long (64 bits) where it does not fit
`Byte`, `Int16`,     byte, short, integer, long: for a receiver that expects exactly that.
`Int32`, `Int64`     They are read as plain `int`
`bytes`              byte array, up to 32,767 bytes; other buffers are taken too
`str`                string, up to 32,767 bytes of UTF-8
`datetime`           timestamp, in milliseconds: what is finer is cut off. It needs a time zone,
                     and is read in UTC
`UUID`               uuid
===================  =====================================================================

A plain `int` is not sent in the smallest type that holds it, because one header would then change
its type with its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, NamedTuple, Self, TypeAlias
from uuid import UUID

from kumo_crt import _core
from kumo_crt.exceptions import DecodeError

__all__ = [
    "MAX_HEADERS",
    "MAX_MESSAGE",
    "MAX_NAME",
    "MAX_VALUE",
    "Byte",
    "DecodeError",
    "Decoder",
    "HeaderValue",
    "Int16",
    "Int32",
    "Int64",
    "Message",
    "encode",
]

HeaderValue: TypeAlias = bool | int | bytes | str | datetime | UUID

_LIMITS = _core.event_stream_limits()
MAX_MESSAGE: Final = _LIMITS["message"]
"""Bytes of a whole message: 24 MiB, that is 16 bytes, the headers and the payload."""
MAX_HEADERS: Final = _LIMITS["headers"]
"""Bytes of all headers of a message as they are sent: 128 KiB."""
MAX_NAME: Final = _LIMITS["name"]
"""Bytes of a header's name: 255, or 127 with an aws-c-event-stream before 0.6.0."""
MAX_VALUE: Final = _LIMITS["value"]
"""Bytes of a header's bytes or string: 32,767."""

_TRUE, _FALSE, _BYTE, _INT16, _INT32, _INT64, _BYTES, _STRING, _TIMESTAMP, _UUID = range(10)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class _Sized(int):
    """An `int` that says in which type it is sent."""

    _type: ClassVar[int]
    _size: ClassVar[int]

    def __new__(cls, value: int) -> Self:
        number = super().__new__(cls, value)
        limit = 1 << (8 * cls._size - 1)
        if not -limit <= number < limit:
            raise ValueError(f"{number} does not fit in {cls.__name__}: {-limit} to {limit - 1}")
        return number


class Byte(_Sized):
    """A header's value of 8 bits, signed."""

    _type = _BYTE
    _size = 1


class Int16(_Sized):
    """A header's value of 16 bits, signed (a short)."""

    _type = _INT16
    _size = 2


class Int32(_Sized):
    """A header's value of 32 bits, signed (an integer): what a plain `int` becomes if it fits."""

    _type = _INT32
    _size = 4


class Int64(_Sized):
    """A header's value of 64 bits, signed (a long)."""

    _type = _INT64
    _size = 8


class Message(NamedTuple):
    """A message.

    Attributes:
        headers: By name, in the order in which they came.
        payload: The rest.
    """

    headers: dict[str, HeaderValue]
    payload: bytes


def encode(
    headers: Mapping[str, HeaderValue | bytearray | memoryview], payload: object = b""
) -> bytes:
    """Makes a message.

    Args:
        headers: Names (UTF-8, 1 to `MAX_NAME` bytes) and values; the types are told above.
        payload: Any C-contiguous buffer.

    Returns:
        The message, to be sent as it is.

    Raises:
        TypeError: A value is of a type that the format does not have, or the payload no buffer.
        BufferError: The payload is not C-contiguous.
        ValueError: Something does not fit: see the limits of this module.
    """
    if type(headers) is not dict and not isinstance(headers, Mapping):  # the second takes long
        raise TypeError(f"headers: expected names and values, not {type(headers).__name__}")
    return _core.event_stream_encode(
        [(_name(name), *_encoded(name, value)) for name, value in headers.items()], payload
    )


def _name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a header's name is {type(name).__name__}: it must be str")
    return name.encode()


def _encoded(name: str, value: HeaderValue | bytearray | memoryview) -> tuple[int, bytes]:
    match value:
        case bool():
            return (_TRUE if value else _FALSE), b""
        case _Sized():
            return value._type, value.to_bytes(value._size, "big", signed=True)
        case int():
            return _encoded_int(name, value)
        case str():
            return _STRING, value.encode()
        case bytes() | bytearray() | memoryview():
            return _BYTES, bytes(value)
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"header {name!r}: {value} has no time zone: give it one")
            return _TIMESTAMP, ((value - _EPOCH) // _MILLISECOND).to_bytes(8, "big", signed=True)
        case UUID():
            return _UUID, value.bytes
    raise TypeError(
        f"header {name!r} is {type(value).__name__}: "
        "it must be bool, int, bytes, str, datetime or UUID"
    )


def _encoded_int(name: str, value: int) -> tuple[int, bytes]:
    bits = (value if value >= 0 else ~value).bit_length() + 1
    if bits > 64:
        raise ValueError(f"header {name!r}: {value} does not fit in 64 bits")
    kind = Int32 if bits <= 32 else Int64
    return kind._type, value.to_bytes(kind._size, "big", signed=True)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _time(raw: bytes) -> datetime:
    return _EPOCH + _number(raw) * _MILLISECOND


_DECODED: dict[int, Callable[[bytes], HeaderValue]] = {
    _TRUE: lambda _: True,
    _FALSE: lambda _: False,
    _BYTE: _number,
    _INT16: _number,
    _INT32: _number,
    _INT64: _number,
    _BYTES: lambda raw: raw,
    _STRING: bytes.decode,
    _TIMESTAMP: _time,
    _UUID: lambda raw: UUID(bytes=raw),
}


def _decoded(raw_headers: list[tuple[bytes, int, bytes]]) -> dict[str, HeaderValue]:
    """Raises ValueError for what has no meaning in Python, or none at all."""
    headers: dict[str, HeaderValue] = {}
    for raw_name, kind, raw in raw_headers:
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            raise ValueError(f"a header's name is not UTF-8: {raw_name!r}") from None
        if name in headers:
            raise ValueError(f"header {name!r} is there twice")
        try:
            headers[name] = _DECODED[kind](raw)
        except UnicodeDecodeError:
            raise ValueError(f"header {name!r} is a string that is not UTF-8") from None
        except OverflowError:
            raise ValueError(
                f"header {name!r} is a time outside the years 1 to 9999: "
                f"{_number(raw)} ms since 1970"
            ) from None
    return headers


class Decoder:
    """Takes a stream of messages apart.

    Lengths and checksums are checked before anything is done with what they belong to, and a
    message is given out only when it is whole and right. Memory follows the bytes that came, not
    the length that a message claims. For one thread at a time; a large piece is read without the
    GIL.
    """

    def __init__(self) -> None:
        self._native = _core.EventStreamDecoder()
        self._damage: tuple[str, int] | None = None  # what is wrong, and where

    @property
    def pending(self) -> int:
        """Bytes held of a message whose end has not come."""
        return self._native.pending

    def feed(self, data: object) -> list[Message]:
        """Reads on.

        Args:
            data: The next piece of the stream, of any size; any C-contiguous buffer.

        Returns:
            The messages that end in this piece.

        Raises:
            DecodeError: The stream is damaged. Where the next message begins is not known any more,
                so every later call raises this too. The messages that came whole before the damage
                are its ``messages``.
        """
        if self._damage is not None:
            problem, offset = self._damage
            raise DecodeError(
                f"nothing can be read behind damage ({problem}): "
                "end this stream, and begin a new one with a new Decoder",
                offset,
            )
        found, native_problem = self._native.feed(data)
        damage = None if native_problem is None else (native_problem, self._native.offset)
        messages: list[Message] = []
        for offset, headers, payload in found:
            try:
                messages.append(Message(_decoded(headers), payload))
            except ValueError as error:
                damage = str(error), offset
                break
        if damage is not None:
            self._damage = damage
            raise DecodeError(*damage, messages)
        return messages

    def finish(self) -> None:
        """Says that the stream is over.

        Raises:
            DecodeError: It ended inside a message, or was damaged before.
        """
        self.feed(b"")
        if self.pending:
            raise DecodeError(
                f"the stream ends inside a message, {self.pending} bytes after its beginning",
                self._native.offset,
            )
