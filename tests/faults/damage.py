"""Ways to damage an object, all from one source of chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

# What is left of an object's content; None if nothing is, not even the object.
Content = bytes | None
Way = Callable[[bytes, random.Random, Mapping[str, bytes]], Content]

_PAGE = 4096
# RocksDB's table files end with a footer, logs begin with the head of a record.
_FOOTER = 53
_HEAD = 7


def _flip(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def _flipped(low: float, high: float) -> Way:
    def damage(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
        first, last = int(low * len(content)), max(int(high * len(content)) - 1, 0)
        return _flip(content, chance.randint(min(first, last), last), chance.randrange(8))

    return damage


def _first(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return _flip(content, chance.randrange(min(_HEAD, len(content))), chance.randrange(8))


def _last(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    tail = min(_FOOTER, len(content))
    return _flip(content, len(content) - 1 - chance.randrange(tail), chance.randrange(8))


def _several(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    for _number in range(chance.randint(2, 40)):
        content = _flip(content, chance.randrange(len(content)), chance.randrange(8))
    return content


def _page(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    """A page that never reached the disk."""
    start = chance.randrange(0, len(content), _PAGE)
    size = min(_PAGE, len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def _exchanged(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    """Two halves of it, in the wrong order."""
    middle = chance.randrange(1, len(content))
    return content[middle:] + content[:middle]


def _shifted(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    at = chance.randrange(len(content) - 1)
    return content[:at] + b"\0" + content[at:-1]


def _cut(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return content[: chance.choice([len(content) - 1, len(content) // 2, 1, _PAGE])]


def _random_cut(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return content[: chance.randrange(len(content))]


def _empty(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return b""


def _grown(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return content + chance.choice([b"\0", b"x", bytes(_PAGE), content, content[:100]])


def _gone(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return None


def _other(content: bytes, chance: random.Random, others: Mapping[str, bytes]) -> Content:
    """Another object's content: of the same size, where there is one."""
    found = [other for _, other in sorted(others.items()) if other != content]
    same = [other for other in found if len(other) == len(content)]
    return chance.choice(same or found)


def _fitted(content: bytes, chance: random.Random, others: Mapping[str, bytes]) -> Content:
    """Another object's content, made to fit."""
    found = [other for _, other in sorted(others.items()) if other != content]
    other = chance.choice(found)
    return (other * (len(content) // max(1, len(other)) + 1))[: len(content)]


def _noise(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return chance.randbytes(len(content))


def _zeros(content: bytes, chance: random.Random, _: Mapping[str, bytes]) -> Content:
    return bytes(len(content))


WAYS: dict[str, Way] = {
    "a bit of its first part": _flipped(0.0, 0.1),
    "a bit in the middle": _flipped(0.1, 0.9),
    "a bit of its last part": _flipped(0.9, 1.0),
    "a bit of its head": _first,
    "a bit of its footer": _last,
    "several bits": _several,
    "a page": _page,
    "halves exchanged": _exchanged,
    "shifted by a byte": _shifted,
    "cut": _cut,
    "cut anywhere": _random_cut,
    "empty": _empty,
    "grown": _grown,
    "gone": _gone,
    "another's content": _other,
    "another's content, made to fit": _fitted,
    "noise": _noise,
    "zeros": _zeros,
}


def damaged(
    way: str, content: bytes, chance: random.Random, others: Mapping[str, bytes]
) -> Content:
    """An object's content after it was damaged in a way; never what it was."""
    while True:
        result = WAYS[way](content, chance, others)
        if result != content:
            return result
        way = chance.choice(sorted(WAYS))
