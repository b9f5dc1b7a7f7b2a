"""A TCP proxy that damages a chosen message at an exact byte.

It follows HTTP/1.1 far enough to know where each request and response begins and ends, so that
a fault can be aimed at "byte 1,000 of the body of the next GET". With `raw=True` it does not
look into the streams (TLS), and a connection counts as one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Action = Literal["reset", "close", "stall", "flip", "slow", "answer"]
Direction = Literal["request", "response"]
_CHUNK = 64 * 1024


@dataclass(eq=False)
class Fault:
    """What to do to which message.

    Args:
        action: `reset` (RST to both sides), `close` (FIN to both sides), `stall` (nothing more
            passes until `release`), `flip` (one bit of the byte at `offset`), `slow` (from
            `offset` on, `bytes_per_second`), `answer` (a request does not reach the server, and
            is answered with `answer`).
        direction: Which of the two streams.
        offset: Byte of the body, or of the whole message with `in_head`.
        method: Only messages of requests with this method.
        target: Only messages of requests whose target contains this text.
        times: How many messages are hit.
        status: Only responses with this status, such as "206".
        in_head: Count `offset` from the first byte of the head.
        bytes_per_second: Rate of `slow`.
        answer: Status line, headers and body.
        chance: Of hitting a message that matches; drawn from the proxy's seed.
        when: Only messages of requests of which this is true.
    """

    action: Action
    direction: Direction = "response"
    offset: int = 0
    method: str | None = None
    target: str | None = None
    times: int = 1
    in_head: bool = False
    bytes_per_second: int = 64 * 1024
    status: str | None = None
    answer: bytes = b""
    chance: float = 1.0
    when: Callable[[Request], bool] | None = None
    fired: threading.Event = field(default_factory=threading.Event)

    def matches(self, request: Request, direction: Direction, status: str | None) -> bool:
        """Whether the fault is for this message."""
        return (
            self.status in (None, status)
            and self.times > 0
            and self.direction == direction
            and self.method in (None, request.method)
            and (self.target is None or self.target in request.target)
            and (self.when is None or self.when(request))
        )


@dataclass(frozen=True)
class Request:
    """A request that passed through the proxy."""

    method: str
    target: str
    access_key_id: str = ""  # that it is signed with
    size: int = 0  # of its body, as its head has it


class _CutError(Exception):
    """The connection ends here."""


class FaultProxy:
    """A proxy on 127.0.0.1 in front of one server, on a thread of its own; a context manager."""

    def __init__(self, upstream_url: str, *, raw: bool = False, seed: int = 20261123) -> None:
        url = urlsplit(upstream_url)
        assert url.hostname is not None
        assert url.port is not None
        self._upstream = (url.hostname, url.port)
        self._scheme = url.scheme
        self._raw = raw
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.requests: list[Request] = []
        self.port = 0

    @property
    def endpoint_url(self) -> str:
        """URL to give to the client instead of the server's."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def add(self, fault: Fault) -> Fault:
        """Arms a fault."""
        with self._lock:
            self._faults.append(fault)
        return fault

    @contextmanager
    def armed(self, fault: Fault) -> Iterator[Fault]:
        """Arms a fault for the time of a `with` block."""
        self.add(fault)
        try:
            yield fault
        finally:
            with self._lock:
                self._faults.remove(fault)

    def count(self, method: str, target: str = "") -> int:
        """Returns how many requests with this method and text in their target have passed."""
        return sum(r.method == method and target in r.target for r in list(self.requests))

    def release(self) -> None:
        """Lets every stalled stream go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="fault-proxy", daemon=True
        )
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fault proxy did not start")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the fault proxy did not stop"

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._released = asyncio.Event()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopped.wait()
        # What was accepted just now is in a task of asyncio's, becomes one of ours some turns
        # later, and would lose its socket were the server closed in between.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(others, timeout=0.01)
            await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)  # transports close in the next turn

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task: one that is cancelled before its first step runs none of its code.
        task.add_done_callback(lambda _: writer.close())

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The end of a connection, by a fault or by its peers, is no error here.
        ends = (OSError, _CutError, asyncio.CancelledError, asyncio.IncompleteReadError)
        with contextlib.suppress(*ends):
            await _Connection(self, reader, writer).run(self._upstream)

    def _take_fault(
        self, request: Request, direction: Direction, status: str | None = None
    ) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if (
                    fault.matches(request, direction, status)
                    and self._random.random() < fault.chance
                ):
                    fault.times -= 1
                    return fault
        return None


class _Connection:
    """One client connection and its connection to the server."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = reader, writer
        self._pending: deque[Request] = deque()

    async def run(self, upstream: tuple[str, int]) -> None:
        try:
            self._server_reader, self._server_writer = await asyncio.open_connection(*upstream)
        except BaseException:
            self._client_writer.transport.abort()
            raise
        for writer in (self._server_writer, self._client_writer):
            # drain() then waits for all of it: a cut is at its byte, not a buffer earlier.
            writer.transport.set_write_buffer_limits(high=0)
        pumps = [
            asyncio.ensure_future(self._pump("request")),
            asyncio.ensure_future(self._pump("response")),
        ]
        try:
            # The first end of stream or fault ends both directions.
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            # Before the wait, which the proxy's end may cut short.
            for writer in (self._server_writer, self._client_writer):
                writer.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, direction: Direction) -> None:
        if direction == "request":
            reader, writer = self._client_reader, self._server_writer
        else:
            reader, writer = self._server_reader, self._client_writer
        stream = _Stream(self, reader, writer)
        if self._proxy._raw:
            stream.fault = self._proxy._take_fault(Request("", ""), direction)
            await stream.relay(None)
            return
        while not reader.at_eof():
            head = await _read_head(reader)
            if not head:
                return
            first = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            if direction == "request":
                signed = _headers(head, lower=False).get("authorization", "")
                key = signed.partition("Credential=")[2].partition("/")[0]
                size = int(_headers(head).get("content-length", 0))
                request = Request(first[0], first[1], key, size)
                self._proxy.requests.append(request)
                self._pending.append(request)
                body_allowed, interim = True, False
            else:
                request = self._pending[0]
                interim = first[1].startswith("1")
                body_allowed = request.method != "HEAD" and first[1] not in ("204", "304")
                if not interim:
                    self._pending.popleft()
            status = first[1] if direction == "response" else None
            fault = None if interim else self._proxy._take_fault(request, direction, status)
            if fault is not None and fault.action == "answer":
                self._pending.pop()
                await _Stream(self, reader, None).relay_body(_headers(head), direction)
                self._client_writer.write(fault.answer)
                await self._client_writer.drain()
                fault.fired.set()
                continue
            stream.start(fault, head)
            await stream.send(head, in_head=True)
            if not interim and body_allowed:
                await stream.relay_body(_headers(head), direction)
            await stream.end()


class _Stream:
    """One direction of a connection; applies the fault of the message that passes."""

    def __init__(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter | None,  # None: nowhere
    ) -> None:
        self._connection = connection
        self._reader, self._writer = reader, writer
        self._position = 0
        self.fault: Fault | None = None

    def start(self, fault: Fault | None, head: bytes) -> None:
        """Begins a message, whose body begins at position 0 unless the fault counts its head."""
        self.fault = fault
        self._position = 0 if fault is not None and fault.in_head else -len(head)

    async def relay_body(self, headers: dict[str, str], direction: Direction) -> None:
        if "chunked" in headers.get("transfer-encoding", ""):
            while True:
                line = await self._reader.readuntil(b"\r\n")
                await self.send(line)
                size = int(line.split(b";")[0], 16)
                await self.relay(size + 2)
                if size == 0:
                    return
        if "content-length" in headers:
            await self.relay(int(headers["content-length"]))
        elif direction == "response":
            await self.relay(None)

    async def relay(self, size: int | None) -> None:
        """Passes `size` bytes on, or everything up to the end of the stream."""
        while size is None or size > 0:
            data = await self._reader.read(_CHUNK if size is None else min(_CHUNK, size))
            if not data:
                if size is None:
                    return
                raise _CutError
            if size is not None:
                size -= len(data)
            await self.send(data)

    async def send(self, data: bytes, *, in_head: bool = False) -> None:
        fault = self.fault
        start, self._position = self._position, self._position + len(data)
        if fault is None or self._position <= fault.offset or (in_head and not fault.in_head):
            await self._write(data)
            return
        before = max(fault.offset - start, 0)
        await self._write(data[:before])
        await self._apply(fault, data[before:])

    async def end(self) -> None:
        """Ends a message: a fault aimed at its very end, or beyond it, strikes now."""
        fault, self.fault = self.fault, None
        if fault is not None and fault.action != "flip":
            await self._apply(fault, b"")

    async def _apply(self, fault: Fault, data: bytes) -> None:
        if fault.action == "slow":
            fault.fired.set()
            for position in range(0, len(data), 1024):
                await self._write(data[position : position + 1024])
                await asyncio.sleep(1024 / fault.bytes_per_second)
            return
        self.fault = None
        if fault.action == "flip":
            await self._write(bytes([data[0] ^ 0x10]) + data[1:])
            fault.fired.set()
        elif fault.action == "stall":
            fault.fired.set()
            await self._connection._proxy._released.wait()
            await self._write(data)
        else:
            for writer in (self._connection._server_writer, self._connection._client_writer):
                if fault.action == "reset":
                    _reset(writer)
                else:
                    writer.close()
            fault.fired.set()
            raise _CutError

    async def _write(self, data: bytes) -> None:
        if data and self._writer is not None:
            self._writer.write(data)
            await self._writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """Returns a message's head with its empty line; nothing at the end of the stream."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise
        return b""


def _headers(head: bytes, *, lower: bool = True) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {
        name.strip().lower(): value.strip().lower() if lower else value.strip()
        for name, value in pairs
    }
