"""Sizes, times and addresses, read from and written for people."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from kumo_crt._units import parse_size


def given(text: str) -> str:
    """Any text but an empty one.

    Raises:
        ArgumentTypeError: It is empty.
    """
    if not text:
        raise ArgumentTypeError("is empty: is a variable not set?")
    return text


def size(text: str) -> int:
    """Reads ``300MB``, ``1.5GiB`` or a plain number of bytes.

    Raises:
        ArgumentTypeError: It is something else.
    """
    try:
        value = parse_size(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if value < 1:
        raise ArgumentTypeError(f"{text!r}: must be more than zero")
    return value


def positive(text: str) -> int:
    """Reads a whole number above zero.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: must be a whole number above zero")
    return int(text)


def duration(text: str) -> float:
    """Reads ``26h``, ``7d12h``, ``90s`` or a plain number of seconds.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if match is None or not text:
        raise ArgumentTypeError(f"{text!r} is no duration: write 90s, 15m, 26h, 7d12h or seconds")
    weights = (7 * 86400, 86400, 3600, 60, 1)
    return float(sum(int(n or 0) * w for n, w in zip(match.groups(), weights, strict=True)))


def tag(text: str) -> tuple[str, str]:
    """Reads ``name=value``.

    Raises:
        ArgumentTypeError: There is no name, or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text!r}: expected name=value")
    return name, value


def s3_url(text: str) -> tuple[str, str]:
    """Splits ``s3://bucket/key`` into bucket and key, which may be empty.

    Not a URL parser: in a key ``?``, ``#`` and ``%`` stand for themselves.

    Raises:
        ArgumentTypeError: It is something else.
    """
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ArgumentTypeError(f"{text!r}: expected s3://bucket/key")
    return bucket, key


def repository_url(text: str) -> str:
    """Checks that this is ``s3://bucket/prefix``.

    Raises:
        ArgumentTypeError: It is something else.
    """
    try:
        s3_url(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r}: expected s3://bucket/prefix") from None
    return text


def format_bytes(count: float) -> str:
    """Writes a number of bytes with three digits, in powers of ten."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"
    return f"{count:.0f} PB"


def format_seconds(seconds: float) -> str:
    """Writes a duration."""
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def format_age(seconds: float) -> str:
    """Writes how old something is, in its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def format_rate(count: float, seconds: float) -> str:
    """Writes a throughput."""
    return f"{format_bytes(count / seconds)}/s" if seconds > 0 else ""


def count_of(number: int, singular: str, plural: str | None = None) -> str:
    """Writes a number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
