"""Memory that operations share."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Self


class Reservation:
    """Room in memory. To be closed, or used as a context manager; if dropped, it comes back too.

    Args:
        size: Bytes.
        owner: Whose it is.
        room: What it is a part of; None: of nothing.
    """

    __slots__ = ("__weakref__", "_room", "owner", "size")

    def __init__(self, size: int, owner: object, room: Room | None) -> None:
        self.size = size
        self.owner = owner
        self._room = room

    def split(self, size: int) -> Reservation:
        """A part of it, with an end of its own."""
        size = min(size, self.size)
        part = Reservation(size, self.owner, self._room)
        if self._room is not None:
            self._room.add(part)
        self.size -= size
        return part

    def close(self) -> None:
        """Gives it back."""
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Room:
    """Memory that operations share, in any threads.

    An owner, which is an operation or all those of an event loop, that holds nothing is given what
    it asks for: so each goes on, however slow others are. Only what it holds beside that has to fit
    in with what all of them hold.

    Reservations have no finalizer that would give them back: Python swallows an interrupt that
    strikes in one. So it is counted what there is of them.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken: list[weakref.ref[Reservation]] = []
        # Reentrant: the garbage collector may run anything meanwhile.
        self._changing = threading.RLock()

    def take(self, size: int, owner: object) -> Reservation | None:
        """A reservation; None if it does not fit."""
        with self._changing:
            alive = [(ref, item) for ref in self._taken if (item := ref()) and item.size]
            self._taken = [ref for ref, _ in alive]
            held = sum(item.size for _, item in alive)
            if held + size > self._size and any(item.owner is owner for _, item in alive):
                return None
            found = Reservation(size, owner, self)
            self._taken.append(weakref.ref(found))
        return found

    def add(self, part: Reservation) -> None:
        """Counts a part of a reservation by itself."""
        with self._changing:
            self._taken.append(weakref.ref(part))


# For what takes none.
NO_ROOM = Reservation(0, None, None)

_of_process: dict[int, Room] = {}
# What threads of the parent's hold would never be given back in a child, nor their lock.
os.register_at_fork(after_in_child=_of_process.clear)


def room_of_process(size: int) -> Room:
    """The room that all share who ask for one of this size."""
    return _of_process.setdefault(size, Room(size))
