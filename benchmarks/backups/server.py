"""SeaweedFS, new and empty for each client of a round, with its counters."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from pathlib import Path

from kumo_crt.cli._seaweed import SeaweedServer

# With volumes of 128 MiB, its default here, a request that finds all of them full waits 200 ms for
# another one, asleep: whose turn that is, is chance.
_VOLUME_MIB = 4096
_COUNT = re.compile(r"SeaweedFS_s3_request_total\{(.*)\} ([0-9.e+]+)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class CountingServer(SeaweedServer):
    """A server that tells how many requests it has answered."""

    def _command(self, binary: str) -> list[str]:
        self._metrics_port = _free_port()
        return [
            *super()._command(binary),
            f"-master.volumeSizeLimitMB={_VOLUME_MIB}",
            f"-metricsPort={self._metrics_port}",
            "-metricsIp=127.0.0.1",
        ]

    def cpu_seconds(self) -> float:
        """What it has used until now, user and system."""
        fields = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def requests(self, bucket: str) -> int:
        """Requests for a bucket until now, whatever came of them."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        found = (_COUNT.match(line) for line in text.splitlines())
        return sum(int(float(m[2])) for m in found if m and f'bucket="{bucket}"' in m[1])
