"""Keys and values as text: what is UTF-8 as it is, everything else as base64."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

_BASE64 = "base64"
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: bytes) -> str | dict[str, str]:
    """A key or value as a member of a JSON document."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {_BASE64: base64.b64encode(value).decode("ascii")}


def from_json(value: Any) -> bytes:
    """The key or value that a JSON document means.

    Raises:
        ValueError: It is neither a text nor ``{"base64": …}``.
    """
    if isinstance(value, str):
        return value.encode("utf-8")  # a lone surrogate is a ValueError, too
    if isinstance(value, dict) and value.keys() == {_BASE64} and isinstance(value[_BASE64], str):
        try:
            return base64.b64decode(value[_BASE64], validate=True)
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from None
    raise ValueError('expected a text or {"base64": "…"}')


def line_of(key: bytes, value: bytes) -> bytes:
    """One entry as a line."""
    return _encode_json({"key": to_json(key), "value": to_json(value)}).encode("utf-8") + b"\n"


def parse_line(line: bytes) -> tuple[bytes, bytes]:
    """The entry of a line.

    Raises:
        ValueError: It is none.
    """
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or found.keys() != {"key", "value"}:
        raise ValueError('expected an object with "key" and "value"')
    return from_json(found["key"]), from_json(found["value"])
