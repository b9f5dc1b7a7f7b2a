"""Exports whose requests somebody else answers, or nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from kumo_crt import export
from tests.export.helpers import PLACE, keys, url
from tests.support import databases
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")


# What anything may answer that has taken the address while the service is away.
_YES = b'HTTP/1.1 200 OK\r\nETag: "0123456789abcdef0123456789abcdef"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize("what", ["/files/", "/kumo-export.json"])
def test_somebody_else_answers(
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    database: Path,
    what: str,
) -> None:
    """An answer without the checksum is not believed."""
    answered = proxy.add(Fault("answer", "request", method="PUT", target=what, answer=_YES))
    with pytest.raises(kumo_crt.IntegrityError, match="does not have it"):
        export.export(database, url(bucket), client=s3_via_proxy, file_bytes=20_000)
    assert answered.fired.is_set()
    assert keys(boto, bucket) == []


def test_nobody_hears_that_it_is_there(
    s3_server: S3Server, proxy: FaultProxy, boto: Any, bucket: str, database: Path, tmp_path: Path
) -> None:
    """The manifest was stored, and its answers were lost: it must not lose what it names."""
    lost = Fault("reset", method="PUT", target="/kumo-export.json", in_head=True)
    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url, max_attempts=1)
    with (
        kumo_crt.S3Client(**arguments) as client,
        proxy.armed(lost),
        pytest.raises(kumo_crt.TransportError),
    ):
        export.export(database, url(bucket), client=client, file_bytes=20_000)
    assert "kumo-export.json" in keys(boto, bucket)
    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        export.import_(url(bucket), tmp_path / "copy", client=client)
    assert databases.read_all(tmp_path / "copy") == databases.read_all(database)


def test_files_are_lost_when_the_manifest_is_written(
    s3_via_proxy: kumo_crt.S3Client,
    proxy: FaultProxy,
    boto: Any,
    bucket: str,
    database: Path,
) -> None:
    """The service comes back without a file: no export is left that names it."""

    def lose(_: Request) -> bool:
        boto.delete_object(Bucket=bucket, Key=PLACE + keys(boto, bucket)[0])
        return True

    cut = Fault("reset", "request", method="PUT", target="/kumo-export.json", in_head=True)
    cut.when = lose
    proxy.add(cut)
    with pytest.raises(kumo_crt.IntegrityError, match=r"/files/.* does not have it"):
        export.export(database, url(bucket), client=s3_via_proxy, file_bytes=20_000)
    assert cut.fired.is_set()
    assert keys(boto, bucket) == []
    export.export(database, url(bucket), client=s3_via_proxy, file_bytes=20_000)
