"""Program: forks a child for every line of JSON that it reads; the child works, and dies.

It has imported everything and has no thread, so that a child costs a few milliseconds. The native
client is made by the child: its threads would not survive the fork.

The product has no hooks for this. Effects on the file system are seen by Python's audit hooks,
requests where the engine hands them to the native client.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import itertools
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rocksdict import Rdict

import kumo_crt
import kumo_crt.backup  # imported before the fork, not in each child
from kumo_crt import _core, export
from kumo_crt._engine import _scheduler
from kumo_crt._engine._tasks import Call
from kumo_crt.backup._coordination import _inflight
from kumo_crt.backup._local import _room
from kumo_crt.backup._restore import _restore
from kumo_crt.export import _run
from tests.backup.interleaving import without_waiting
from tests.support import databases

_CHANGES = {
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class Fate:
    """Counts the effects of this process, and ends it at one of them.

    Args:
        effect: Number of the effect, from 0; -1 for none.
        moment: ``before`` it, when the request is ``sent`` and its answer not there, or ``after``.
        pause: Seconds from the submission of a request to the end, with ``sent``.
    """

    def __init__(self, effect: int, moment: str, pause: float) -> None:
        self._wanted, self._moment, self._pause = effect, moment, pause
        self._numbers = itertools.count()
        self.effects: list[tuple[str, str]] = []
        self._ours = os.getpid()
        self._blind = False

    def comes(self, kind: str, what: str) -> int:
        """Something is about to have an effect."""
        number = next(self._numbers)
        self.effects.append((kind, what))
        if number == self._wanted and self._moment == "before":
            _die()
        return number

    def has_come(self, number: int) -> None:
        """An effect took place."""
        if number == self._wanted and self._moment == "after":
            _die()

    # -- the file system -------------------------------------------------------------------

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's hook, called ahead of what it tells of."""
        if self._blind:
            return
        if event in _CHANGES:
            path = arguments[0]
            known = f"/proc/self/fd/{path}" if isinstance(path, int) else None
            self.comes(event, os.readlink(known) if known else os.fsdecode(path))
        elif (
            event == "open"
            and not self._blind
            and isinstance(arguments[0], str | bytes | os.PathLike)
        ):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            if flags & _WRITING and not path.endswith("/LOCK") and not path.startswith("/dev/"):
                self.comes("open", path)

    def ending(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps something that the hook sees coming: an empty new file is a state to die in."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            before = len(self.effects)
            opened = function(*arguments, **options)
            if len(self.effects) > before:
                self.has_come(before)
            return opened

        return wrapper

    def calling(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a native function that changes the file system."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            number = self.comes(kind, os.fsdecode(arguments[0]))
            result = function(*arguments, **options)
            self.has_come(number)
            return result

        return wrapper

    # -- requests --------------------------------------------------------------------------

    def watch_requests(self) -> None:
        """Sees requests where the engine submits them, and takes their answers."""
        start, land = Call.start, _scheduler.Scheduler.land
        sent: dict[int, int] = {}

        def submit(call: Call, queue: Any, call_id: int) -> Any:
            if call.method in ("GET", "HEAD"):
                return start(call, queue, call_id)
            number = sent[call_id] = self.comes(call.operation, call.target.partition("?")[0])
            operation = start(call, queue, call_id)
            if number == self._wanted and self._moment == "sent":
                time.sleep(self._pause)
                _die()
            return operation

        def take(scheduler: Any, ids: Sequence[int]) -> None:
            for call_id in ids:
                if call_id in sent:
                    self.has_come(sent.pop(call_id))
            land(scheduler, ids)

        Call.start = submit  # type: ignore[assignment, method-assign]
        _scheduler.Scheduler.land = take  # type: ignore[method-assign, assignment]

    def watch(self) -> None:
        """Begins to see everything."""
        self.watch_requests()
        _core.exchange_paths = self.calling("exchange", _core.exchange_paths)
        for name in ("open", "link", "rename", "replace", "remove", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self.ending(getattr(os, name)))
        io.open = builtins.open = self.ending(io.open)
        sys.addaudithook(self.audit)

    def rest(self) -> None:
        """Sees nothing any more."""
        self._blind = True


# -- what a child does ----------------------------------------------------------------------------


def _repository(order: dict[str, Any]) -> kumo_crt.Repository:
    client = kumo_crt.S3Client(**order["client"])
    return kumo_crt.Repository(order["url"], client=client)


@contextlib.contextmanager
def _conditions(order: dict[str, Any]) -> Iterator[None]:
    """The circumstances of a work: times that need not be waited for, a poor file system."""
    with contextlib.ExitStack() as stack:
        if order.get("at_once"):
            stack.enter_context(without_waiting())
        if order.get("later"):
            _inflight.MARGIN = -1000.0
        if order.get("no_exchange"):

            def refuse(*_: object) -> NoReturn:
                raise OSError(22, "no exchange here")

            _core.exchange_paths = refuse  # type: ignore[assignment]
        if "temporary" in order:
            tempfile.tempdir = order["temporary"]
        yield


def _fill_later(path: str, leave: int, after_check: bool = False, files: bool = False) -> None:
    """Somebody else writes to the file system, until so much of it is free.

    Args:
        path: The file that is written.
        leave: Bytes that stay free.
        after_check: Not before a look was taken at how much is free.
        files: It is files and links that so many can still be made of; a directory is filled.
    """

    def fill() -> None:
        space = os.statvfs(os.path.dirname(path))
        if files:
            os.mkdir(path)
            for number in range(space.f_favail - leave - 1):
                os.mknod(f"{path}/{number}")
            return
        size = max(0, space.f_bavail * space.f_frsize - leave)
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))

    if not after_check:
        fill()
        return
    check = _room.check_space

    def checked(directory: Path, needed: int, **words: str) -> None:
        check(directory, needed, **words)
        fill()

    for module in (_restore, _run):
        module.check_space = checked  # type: ignore[attr-defined]


def _prepare(order: dict[str, Any]) -> Callable[[], object]:
    """Whatever comes before the part that is to be killed; returns that part."""
    work, arguments = order["work"], order.get("arguments", {})
    if work == "unclosed":
        return lambda: _unclosed(**arguments)
    if work == "backup_open":
        repository = _repository(order)
        database = Rdict(arguments["path"])
        return lambda: repository.backup(database)
    if work in ("export", "import_"):
        client = kumo_crt.S3Client(**order["client"])
        return lambda: getattr(export, work)(client=client, **arguments)
    if work == "get_object":
        client = kumo_crt.S3Client(**order["client"])
        return lambda: client.get_object(**arguments)
    repository = _repository(order)
    return lambda: getattr(repository, work)(**arguments)


def _unclosed(path: str, first: int, last: int) -> NoReturn:
    """Writes to a database, and leaves it as a crash does: what is new is in the log alone."""
    db = Rdict(path)
    databases.fill(db, first, last)
    db.flush_wal(True)
    os._exit(0)


def _child(order: dict[str, Any], ready: int, answer: int) -> NoReturn:
    told: dict[str, Any] = {}
    try:
        with _conditions(order):
            fate = Fate(order.get("effect", -1), order.get("moment", ""), order.get("pause", 0.0))
            call = _prepare(order)
            if "fill" in order:
                _fill_later(**order["fill"])
            if not order.get("unwatched"):
                fate.watch()
            os.write(ready, b"!")
            begun = time.monotonic()
            if "largest_file" in order:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], hard))
            try:
                call()
            except kumo_crt.KumoError as error:
                told["error"] = f"{type(error).__name__}: {error}"
            fate.rest()
            told["seconds"] = time.monotonic() - begun
            told["effects"] = fate.effects
            os.write(answer, json.dumps(told).encode())
    except BaseException as error:
        print(f"{order}: {error!r}", file=sys.stderr, flush=True)
        os._exit(70)
    os._exit(0)


def _serve(line: str) -> dict[str, Any]:
    order = json.loads(line)
    ready_read, ready_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_read)
        os.close(answer_read)
        _child(order, ready_write, answer_write)
    os.close(ready_write)
    os.close(answer_write)
    if "seconds" in order and os.read(ready_read, 1):
        # Ends early if the child does: its end of the pipe closes.
        select.select([answer_read], [], [], order["seconds"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with os.fdopen(answer_read, "rb") as pipe:
        told = pipe.read()
    os.close(ready_read)
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), **(json.loads(told) if told else {})}


def main() -> None:
    """Serves until standard input ends."""
    _core.init_libraries()
    for line in sys.stdin:
        print(json.dumps(_serve(line)), flush=True)


if __name__ == "__main__":
    main()
