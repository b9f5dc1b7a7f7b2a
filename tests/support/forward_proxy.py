"""An HTTP proxy that forwards, tunnels, and knows every host by another address."""

from __future__ import annotations

import base64
import select
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self


class ForwardProxy:
    """The proxy, on 127.0.0.1; a context manager.

    Args:
        target: Host and port that every request goes to, whatever it names.
        credentials: ``user:password`` that it asks for.

    Attributes:
        requests: First lines of what it was asked.
    """

    def __init__(self, target: tuple[str, int], credentials: str | None = None) -> None:
        self._target = target
        self._wanted = None
        if credentials is not None:
            self._wanted = "basic " + base64.b64encode(credentials.encode()).decode().lower()
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        """``host:port``."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                proxy._serve(self)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        first = handler.rfile.readline().decode()
        if not first:
            return
        headers = []
        while (line := handler.rfile.readline()) not in (b"\r\n", b""):
            headers.append(line)
        self.requests.append(first.strip())
        said = [h for h in headers if h.lower().startswith(b"proxy-authorization:")]
        given = said[0].decode().partition(":")[2].strip().lower() if said else None
        if self._wanted is not None and given != self._wanted:
            handler.wfile.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        method, url, version = first.split()
        with socket.create_connection(self._target) as upstream:
            if method == "CONNECT":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + url.split("/", 3)[3]
                kept = [line for line in headers if line not in said]
                # One request a connection: what follows need not be understood.
                kept.append(b"Connection: close\r\n")
                head = f"{method} {path} {version}\r\n".encode() + b"".join(kept) + b"\r\n"
                upstream.sendall(head + handler.rfile.read(_length(headers)))
            _pump(handler.connection, upstream)


def _length(headers: list[bytes]) -> int:
    found = [line for line in headers if line.lower().startswith(b"content-length:")]
    return int(found[0].partition(b":")[2]) if found else 0


def _pump(client: socket.socket, upstream: socket.socket) -> None:
    while True:
        for source in select.select([client, upstream], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (upstream if source is client else client).sendall(data)
