"""Temporary credentials: a process that issues them, and a service that takes no others."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.fake_s3 import error_document
from tests.support.http_service import HttpService
from tests.support.servers import S3Server

_PROGRAM = """\
import json, math, os, sys, time
directory, life, failing, wait = sys.argv[1:]
number = 1
while True:
    try:
        os.close(os.open(f"{directory}/run-{number}", os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        number += 1
time.sleep(float(wait))
if str(number) in failing.split(",") or ("all-others" in failing and number > 1):
    sys.exit(f"run {number} was to fail")
expires = math.ceil(time.time() + float(life))
said = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
key, secret, token = f"AKTEMPORARY{number}", f"secret-{number}", f"token-{number}"
with open(f"{directory}/new", "w") as file:
    json.dump({"secret": secret, "token": token, "expires": expires}, file)
os.rename(f"{directory}/new", f"{directory}/{key}.json")
answer = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token}
json.dump({**answer, "Expiration": said}, sys.stdout)
"""


class Issuer:
    """A ``credential_process``; every run gives other credentials.

    Args:
        directory: An empty one, for its files.
        life: Seconds that credentials live.
        failing: Numbers of the runs that fail, from 1; or "all-others": than the first.
        wait: Seconds that a run takes.
    """

    def __init__(self, directory: Path, life: float, failing: str = "", wait: float = 0.0) -> None:
        self.directory = directory
        program, config = directory / "issue.py", directory / "config"
        program.write_text(_PROGRAM)
        command = f"{sys.executable} -ES {program} {directory} {life} {failing or '-'} {wait}"
        config.write_text(f"[profile temporary]\ncredential_process = {command}\n")
        self.environment = {
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        }

    @property
    def runs(self) -> int:
        """How often it was started."""
        return len(list(self.directory.glob("run-*")))


@dataclass(frozen=True)
class Signed:
    """A request that arrived."""

    method: str
    target: str
    access_key_id: str
    refused: bool


class TokenGateway(HttpService):
    """An S3 service, on 127.0.0.1, that knows what an `Issuer` has issued; a context manager.

    It verifies signatures and hands requests over to a real server, in whose name it signs.

    Args:
        server: The real server.
        issuer: See there.
        grace: Seconds that credentials are taken after their end.
        pause: Seconds that an answer to PUT takes.
    """

    def __init__(
        self, server: S3Server, issuer: Issuer, grace: float = 0.0, pause: float = 0.0
    ) -> None:
        super().__init__()
        self._upstream = urlsplit(server.endpoint_url)
        self._real = Credentials(server.access_key_id, server.secret_access_key)
        self._region = server.region
        self._issuer = issuer
        self._grace = grace
        self._pause = pause
        self._lock = threading.Lock()
        self.asked: list[Signed] = []
        self.revoked: set[str] = set()

    def keys(self, method: str, target: str = "") -> list[str]:
        """Access key ids of the requests of a kind that were not refused, in their order."""
        with self._lock:
            return [
                one.access_key_id
                for one in self.asked
                if one.method == method and target in one.target and not one.refused
            ]

    def refused(self) -> list[Signed]:
        """What was refused."""
        with self._lock:
            return [one for one in self.asked if one.refused]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        key, problem = self._judge(handler.command, handler.path, headers)
        with self._lock:
            self.asked.append(Signed(handler.command, handler.path, key, bool(problem)))
        if problem:
            document = error_document(problem)
            status, answer = (403 if problem == "SignatureDoesNotMatch" else 400), document
            found: list[tuple[str, str]] = []
        else:
            if handler.command == "PUT":
                time.sleep(self._pause)
            status, found, answer = self._forward(handler.command, handler.path, headers, body)
        handler.send_response(status)
        for name, value in found:
            if name.lower() not in ("transfer-encoding", "content-length", "date", "server"):
                handler.send_header(name, value)
        lengths = [value for name, value in found if name.lower() == "content-length"]
        head = handler.command == "HEAD" and lengths
        handler.send_header("Content-Length", lengths[0] if head else str(len(answer)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer)

    def _judge(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[str, str]:
        """The access key id, and the code of what is wrong, if anything is."""
        parts = dict(
            part.strip().split("=", 1)
            for part in headers["authorization"].split(" ", 1)[1].split(",")
        )
        key, *scope = parts["Credential"].split("/")
        path = self._issuer.directory / f"{key}.json"
        if not path.exists():
            return key, "InvalidAccessKeyId"
        known = json.loads(path.read_text())
        signature = _signature(method, target, headers, parts["SignedHeaders"], scope, known)
        if signature != parts["Signature"] or headers["x-amz-security-token"] != known["token"]:
            return key, "SignatureDoesNotMatch"
        if key in self.revoked or time.time() >= known["expires"] + self._grace:
            return key, "ExpiredToken"
        return key, ""

    def _forward(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = ("authorization", "x-amz-security-token", "x-amz-date", "x-amz-content-sha256")
        kept = {name: value for name, value in headers.items() if name not in dropped}
        kept["host"] = self._upstream.netloc
        url = f"{self._upstream.scheme}://{self._upstream.netloc}{target}"
        request = AWSRequest(method, url, headers=kept, data=body)
        if headers["x-amz-content-sha256"].startswith("STREAMING-"):
            request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        S3SigV4Auth(self._real, "s3", self._region).add_auth(request)
        connection = http.client.HTTPConnection(self._upstream.netloc, timeout=30)
        try:
            connection.request(method, target, body, dict(request.headers.items()))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _signature(
    method: str,
    target: str,
    headers: Mapping[str, str],
    signed: str,
    scope: list[str],
    known: Mapping[str, str],
) -> str:
    """Signature Version 4 of a request, as a service computes it."""
    path, _, query = target.partition("?")
    pairs = sorted(part if "=" in part else part + "=" for part in query.split("&") if part)
    lines = [
        *(method, path, "&".join(pairs)),
        *(f"{name}:{' '.join(headers[name].split())}" for name in signed.split(";")),
        *("", signed, headers["x-amz-content-sha256"]),
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], "/".join(scope), digest])
    secret = b"AWS4" + known["secret"].encode()
    for part in [*scope, text]:
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    return secret.hex()
