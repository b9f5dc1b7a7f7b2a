"""Runs tasks: what a task may wait for, the scheduler, and what drives it.

`run` drives a task on the calling thread; `_engine._asyncio`, imported when it is first needed,
drives any number of them on an event loop.
"""

from kumo_crt._engine._meters import Meter
from kumo_crt._engine._room import NO_ROOM, Reservation, Room, room_of_process
from kumo_crt._engine._run import begin_exit, finish_background, run
from kumo_crt._engine._tasks import (
    Blocking,
    Call,
    Cancelled,
    First,
    Gather,
    Reserve,
    Sleep,
    Task,
)
from kumo_crt._engine._throttle import Throttle

__all__ = [
    "NO_ROOM",
    "Blocking",
    "Call",
    "Cancelled",
    "First",
    "Gather",
    "Meter",
    "Reservation",
    "Reserve",
    "Room",
    "Sleep",
    "Task",
    "Throttle",
    "begin_exit",
    "finish_background",
    "room_of_process",
    "run",
]
