"""A SeaweedFS server that can be killed, and started again with what it had stored."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from types import TracebackType
from typing import Self

from kumo_crt.cli._seaweed import SeaweedServer, find_weed
from tests.support.servers import S3Server

# Ends the server when its standard input ends, so with whoever started it.
_GUARD = 'exec 3<&0; "$@" </dev/null & echo $!; read _ <&3; kill -9 $!'


class MortalServer(SeaweedServer):
    """The server; its ports and its files stay when it is killed."""

    _guard: subprocess.Popen[bytes] | None = None
    _revived = 0

    def described(self) -> S3Server:
        """How to reach it."""
        return S3Server(
            "seaweed-http",
            self.endpoint_url,
            self.access_key_id,
            self.secret_access_key,
            self.region,
        )

    def kill(self) -> None:
        """Ends the process as ``kill -9`` does; returns when it is gone."""
        pid = self._revived or self.pid
        os.kill(pid, signal.SIGKILL)
        while _is_alive(pid):
            time.sleep(0.005)
        self._let_go()

    def revive(self) -> None:
        """Starts it again, at the same place; returns when it answers."""
        self._let_go()
        with open(f"{self._directory}/log-again", "ab") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", *self._command(find_weed())],
                cwd=self._directory,
                env={"PATH": os.defpath, "HOME": str(self._directory)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        self._revived = int(self._guard.stdout.readline())
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "SeaweedFS did not start again"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self._signed_get_status() == 200
        except (OSError, http.client.HTTPException):
            return False

    def _let_go(self) -> None:
        guard, self._guard, self._revived = self._guard, None, 0
        if guard is not None:
            guard.communicate()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()
        super().__exit__(exc_type, exc, traceback)


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False
