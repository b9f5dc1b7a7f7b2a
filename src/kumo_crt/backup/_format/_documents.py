"""JSON documents of a repository: their members are checked as they are taken out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from kumo_crt import _core
from kumo_crt.exceptions import FormatError

VERSION = 1
# The largest database that is foreseen has a million files. Parsed, a document takes up to thirty
# times its size: so it is measured before.
MAX_DOCUMENT = 512 * 1024 * 1024
MAX_CONTAINERS = 2_000_000
MAX_VALUES = 10_000_000
# How a document ends that has a CRC32C of all that comes before: nothing else would notice that a
# text in it has changed.
_CLOSING = b',"crc32c":"'
_END = b'"}\n'
_TIME = re.compile("([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")


def is_number(value: object, limit: int) -> TypeGuard[int]:
    """Whether this is a whole number from 0 to a limit."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def time_text(value: datetime) -> str:
    """A time as documents have it."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(value: object) -> datetime | None:
    """A time in a document; None if it is none."""
    if isinstance(value, str) and len(value) < 40:
        with contextlib.suppress(ValueError):
            if found := _TIME.fullmatch(value):
                year, month, day, hour, minute, second = map(int, found.groups())
                return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            # As others may write it: without leading zeros. Loads half a dozen modules.
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return None


def too_large(size: int) -> str:
    """What to say of a document of so many bytes."""
    return f"{size} bytes: a document has {MAX_DOCUMENT} at most"


def encode(document: Mapping[str, Any]) -> bytes:
    """A document, with the CRC32C of all that comes before as its last member."""
    return close(json.dumps(document, separators=(",", ":")).encode().removesuffix(b"}"))


def close(members: bytes) -> bytes:
    """A document, without its closing brace, with the CRC32C of that as its last member."""
    return members + _CLOSING + f"{_core.crc32c(members):08x}".encode() + _END


def opened(document: bytes | memoryview) -> tuple[memoryview, bool]:
    """The members before the CRC32C, and whether that is right."""
    view = memoryview(document)
    length = len(_CLOSING) + 8 + len(_END)
    members, end = view[:-length], bytes(view[-length:])
    return members, end == _CLOSING + f"{_core.crc32c(members):08x}".encode() + _END


class Reader:
    """A JSON object whose members are checked as they are taken out.

    Args:
        document: The JSON text.
        where: Its URL, for messages.
        kind: What its member ``format`` has to be.
        features: Those that its member ``features`` may name.

    Raises:
        FormatError: It is something else, of an unknown version, or needs an unknown feature.
    """

    def __init__(
        self,
        document: bytes | memoryview,
        where: str,
        kind: str,
        features: Collection[str] = (),
    ) -> None:
        self._where = where
        if len(document) > MAX_DOCUMENT:
            raise self.error("", too_large(len(document)))
        text = bytes(document)
        if text.count(b"{") + text.count(b"[") > MAX_CONTAINERS or text.count(b",") >= MAX_VALUES:
            raise self.error(
                "", f"more than {MAX_CONTAINERS} objects and lists, or {MAX_VALUES} values"
            )
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error("", f"no JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise self.error("", "expected a JSON object")
        self._members: dict[str, Any] = parsed
        self._is_changed = "crc32c" in parsed and not opened(document)[1]
        if parsed.get("format") != kind:
            raise self.error("format", f"expected {kind!r}")
        version = parsed.get("version")
        if version != VERSION or not isinstance(version, int) or isinstance(version, bool):
            raise self.error(
                "version",
                f"{version!r}"[:40] + f" is not {VERSION}, the one that this kumo_crt knows: "
                "use a newer kumo_crt",
            )
        self.features = frozenset(self.texts("features")) if "features" in parsed else frozenset()
        if unknown := sorted(self.features.difference(features)):
            raise self.error(
                "features",
                f"{unknown!r}"[:80] + " is not known to this kumo_crt, and without it this would "
                "be misread: use a newer kumo_crt",
            )

    def check_crc(self) -> None:
        """Compares the CRC32C, which documents of older versions may not have.

        Raises:
            FormatError: It is not that of the document.
        """
        if self._is_changed:
            raise self.changed()

    def changed(self) -> FormatError:
        """The error of a document whose CRC32C is not right."""
        return self.error(
            "crc32c",
            "is not that of the document, or not its last member: it has been changed or damaged "
            "since it was written",
        )

    def error(self, field: str, problem: str) -> FormatError:
        """What to raise about a member; about the whole document with an empty name."""
        place = f"{self._where}, field {field}" if field else self._where
        return FormatError(f"{place}: {problem}")

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self._members

    def value(self, name: str) -> Any:
        """A member as it is; None if absent."""
        return self._members.get(name)

    def text(self, name: str) -> str:
        """A member that is one line of text."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > 1024 or not value.isprintable():
            raise self.error(name, "expected a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A member that is one line of text, or absent."""
        return None if self._members.get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A member that is a list of texts."""
        value = self._members.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(name, "expected a list of texts")
        return tuple(value)

    def text_map(self, name: str) -> Mapping[str, str]:
        """A member that is an object of texts."""
        value = self._members.get(name)
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self.error(name, "expected an object of texts")
        return value

    def number(self, name: str, limit: int, default: int | None = None) -> int:
        """A member that is a whole number from 0 to a limit."""
        value = self._members.get(name, default)
        if not is_number(value, limit):
            raise self.error(name, f"expected a whole number from 0 to {limit}")
        return value

    def time(self, name: str) -> datetime:
        """A member that is a time."""
        time = parse_time(self._members.get(name))
        if time is None:
            raise self.error(name, "expected a time such as 2026-11-23T06:00:00Z")
        return time
