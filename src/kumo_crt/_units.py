"""Sizes and other numbers as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

N = TypeVar("N", int, float)

_SIZE = "a size: write 50MB (10^6), 50MiB (2^20) or bytes"
_UNITS = {
    **{"": 1, "b": 1},
    **{"k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9},
    **{"t": 10**12, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}


def parse_size(text: str) -> int:
    """Reads ``300MB``, ``1.5GiB`` or a plain number of bytes.

    Raises:
        ValueError: It is something else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not {_SIZE}")
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def read_variable(name: str, text: str, convert: Callable[[str], N]) -> N:
    """Reads the value of an environment variable.

    Raises:
        ValueError: ``convert`` cannot read it; the message names the variable.
    """
    try:
        return convert(text)
    except ValueError:
        expected = _SIZE if convert is parse_size else "a number"
        raise ValueError(f"{name}={text!r} is not {expected}") from None
