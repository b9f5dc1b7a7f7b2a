"""An HTTP server that gives scripted answers and remembers what it was asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.http_service import HttpService


@dataclass(frozen=True)
class Answer:
    """What to send back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    # Sent as it is, instead of all of the above, before the connection is closed.
    raw: bytes = b""


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def access_key_id(self) -> str:
        """Key that the request is signed with; empty when it is not signed."""
        return self._credential()[0]

    @property
    def region(self) -> str:
        """Region that the request is signed for; empty when it is not signed."""
        return self._credential()[2]

    def _credential(self) -> list[str]:
        value = self.headers.get("authorization", "")
        if "Credential=" not in value:
            return ["", "", ""]
        return value.split("Credential=")[1].split(",")[0].split("/")


def error_document(code: str, message: str = "scripted") -> bytes:
    """Returns the XML body of an S3 error."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message><RequestId>REQ123</RequestId></Error>"
    ).encode()


class FakeS3(HttpService):
    """The server, on 127.0.0.1; a context manager.

    It answers with `script` in order, and with `default` when the script is used up.

    Args:
        default: See there.
        address: Another loopback address.
    """

    def __init__(self, default: Answer | None = None, address: str = "127.0.0.1") -> None:
        super().__init__(address)
        self.default = default or Answer(headers={"ETag": '"0123"'})
        self.script: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.asked.append(Asked(handler.command, handler.path, headers, body))
            answer = self.script.popleft() if self.script else self.default
        if answer.raw:
            handler.close_connection = True
            handler.wfile.write(answer.raw)
            return
        status = answer.status
        if handler.command == "GET" and status == 200 and "range" in headers:
            # Whatever was asked for, the answer is the whole: the scripts use small bodies.
            status = 206
            last = max(len(answer.body) - 1, 0)
            content_range = f"bytes 0-{last}/{len(answer.body)}"
        handler.send_response(status)
        if status == 206:
            handler.send_header("Content-Range", content_range)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body)
