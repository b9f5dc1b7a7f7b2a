"""What a test needs to know of an S3 server, and a moto server in a process of its own."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config


@dataclass(frozen=True)
class S3Server:
    """How to reach an S3 server."""

    name: str
    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str
    ca_file: Path | None = None

    @property
    def is_strict(self) -> bool:
        """Whether the server checks signatures and checksums (moto does neither)."""
        return self.name != "moto"

    def client_arguments(self, **overrides: Any) -> dict[str, Any]:
        """Returns keyword arguments for `kumo_crt.S3Client`."""
        arguments: dict[str, Any] = {
            "region": self.region,
            "endpoint_url": self.endpoint_url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }
        if self.ca_file is not None:
            arguments["ca_file"] = str(self.ca_file)
        return {**arguments, **overrides}

    def environment(self) -> dict[str, str]:
        """Returns the AWS environment variables that lead to this server."""
        variables = {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }
        if self.ca_file is not None:
            variables["AWS_CA_BUNDLE"] = str(self.ca_file)
        return variables

    def boto3_client(self, **config: Any) -> Any:
        """Returns an independent client for cross-checks."""
        if self.name == "moto":
            # It gives the composite checksum of a multipart upload out as that of the full object.
            config.setdefault("response_checksum_validation", "when_required")
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            verify=None if self.ca_file is None else str(self.ca_file),
            config=Config(s3={"addressing_style": "path"}, **config),
        )


# Ends with its parent: standard input closes.
_MOTO_PROGRAM = """
import json, logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(json.dumps(server.get_host_and_port()), flush=True)
sys.stdin.read()
server.stop()
"""


class MotoServer:
    """A moto server on loopback, in a process of its own; a context manager."""

    access_key_id = "testing"
    secret_access_key = "testing-secret"
    region = "us-east-1"

    def __init__(self, start_timeout: float = 60.0) -> None:
        self._start_timeout = start_timeout
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MOTO_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], self._start_timeout)[0]
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self.close()
            raise RuntimeError(
                f"moto did not start within {self._start_timeout:g} s: is moto[server] installed?"
            )
        host, port = json.loads(line)
        self.endpoint_url = f"http://{host}:{port}"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the server."""
        try:
            # Closes its standard input, which is its sign to stop.
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
