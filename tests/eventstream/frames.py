"""The format again, from its specification and without kumo_crt: what the tests compare with."""

from __future__ import annotations

import struct
from binascii import crc32

TRUE, FALSE, BYTE, INT16, INT32, INT64, BYTES, STRING, TIMESTAMP, UUID = range(10)


def header(name: bytes, kind: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    """A header, with the value as it is sent; `length` lies about that of bytes and strings."""
    prefix = b""
    if kind in (BYTES, STRING):
        prefix = struct.pack(">H", len(value) if length is None else length)
    return bytes([len(name)]) + name + bytes([kind]) + prefix + value


def frame(
    headers: bytes = b"",
    payload: bytes = b"",
    *,
    total: int | None = None,
    headers_length: int | None = None,
) -> bytes:
    """A message with right checksums, whatever its lengths say."""
    prelude = struct.pack(
        ">II",
        16 + len(headers) + len(payload) if total is None else total,
        len(headers) if headers_length is None else headers_length,
    )
    start = prelude + struct.pack(">I", crc32(prelude))
    body = start + headers + payload
    return body + struct.pack(">I", crc32(body))


SAMPLE_HEADERS = b"".join(
    [
        header(b":event-type", STRING, b"Records"),
        header(b"yes", TRUE),
        header(b"no", FALSE),
        header(b"byte", BYTE, b"\x80"),
        header(b"short", INT16, b"\x7f\xff"),
        header(b"int", INT32, b"\xff\xff\xff\xfe"),
        header(b"long", INT64, b"\x01\x02\x03\x04\x05\x06\x07\x08"),
        header(b"blob", BYTES, b"\x00\xff"),
        header("näme".encode(), STRING, "wört".encode()),
        header(b"time", TIMESTAMP, struct.pack(">q", 1_700_000_000_123)),
        header(b"id", UUID, bytes(range(16))),
    ]
)
SAMPLE = frame(SAMPLE_HEADERS, b'{"a": 1}')
