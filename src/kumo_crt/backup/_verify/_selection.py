"""Which objects a verification reads, if it is not to read all of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kumo_crt.backup._store._objects import DataObject

_TEXT = re.compile(r"(oldest|[0-9]{1,9})/([0-9]{1,9})")
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subset:
    """One of several parts of all objects.

    Attributes:
        part: From 1 to ``of``; None stands for the part that was not read for longest.
        of: How many parts there are.
    """

    part: int | None
    of: int

    @classmethod
    def parse(cls, value: object) -> Subset:
        """Reads ``"n/t"``, ``"oldest/t"`` or ``(n, t)``.

        Raises:
            ValueError: It is something else.
        """
        if isinstance(value, tuple) and len(value) == 2:
            value = f"{value[0]}/{value[1]}"
        match = _TEXT.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            part = None if match[1] == "oldest" else int(match[1])
            of = int(match[2])
            if of >= 1 and (part is None or 1 <= part <= of):
                return cls(part, of)
        raise ValueError(
            f"subset {value!r}: expected n/t, such as 1/7, with n from 1 to t, or oldest/t"
        )


def select(
    objects: Sequence[DataObject],
    subset: Subset | None,
    max_bytes: int | None,
    last_read: Callable[[str], datetime | None],
) -> list[DataObject]:
    """Chooses objects.

    A part n/t is chosen by the hash of the key: it stays the same when others come and go. With
    ``oldest/t`` or ``max_bytes``, those that were not read for longest come first.

    Args:
        objects: All objects.
        subset: The part to choose from.
        max_bytes: No more than these, but at least one object.
        last_read: When an object was last read.
    """
    chosen = list(objects)
    limit = max_bytes
    least = 0
    if subset is not None and subset.part is not None:
        chosen = [item for item in chosen if part_of(item.key, subset.of) == subset.part]
    elif subset is not None:
        # Whole objects, and never less than the share: after t runs everything was read.
        least = -(-sum(item.size for item in chosen) // subset.of)
    if limit is None and not least:
        return chosen
    chosen.sort(key=lambda item: (last_read(item.key) or _NEVER, _hash(item.key)))
    result: list[DataObject] = []
    size = 0
    for item in chosen:
        if result and (
            (limit is not None and size + item.size > limit) or (least and size >= least)
        ):
            break
        result.append(item)
        size += item.size
    return result


def part_of(key: str, parts: int) -> int:
    """The part, from 1 on, that an object belongs to."""
    return _hash(key) % parts + 1


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
