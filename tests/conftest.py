"""Servers, clients and an environment without AWS settings, for all tests."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# `tests.support` is importable whatever import mode pytest uses.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kumo_crt.cli._seaweed import SeaweedServer
from tests.faults.totals import Totals
from tests.support.certificates import Certificates, make_certificates
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import MotoServer, S3Server

if TYPE_CHECKING:
    import kumo_crt

_SERVERS = {"seaweed-http": "seaweed", "seaweed-https": "seaweed_tls", "moto": "moto_server"}
# A test that hangs in native code cannot be stopped by an exception.
_HANG_SECONDS = 900 if {"TSAN_OPTIONS", "ASAN_OPTIONS"} & set(os.environ) else 180
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # A job of a shell's & ignores it, and whatever the tests start would as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "servers(*names): the S3 servers that the test runs against (default: all)"
    )
    config.pluginmanager.register(Totals(), "fault-totals")
    # Capturing is suspended here; later, descriptor 2 is a file that a killed run never shows.
    config.stash[_STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "s3_server" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("servers")
        names = marker.args if marker is not None else tuple(_SERVERS)
        metafunc.parametrize("s3_server", names, indirect=True, scope="session")


@pytest.fixture(autouse=True)
def alive(pytestconfig: pytest.Config) -> Iterator[Callable[[], None]]:
    """To be called between the steps of a test that may take long: it is the step that must not."""
    descriptor = pytestconfig.stash[_STDERR]

    def step() -> None:
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True, file=descriptor)

    step()
    yield step
    faulthandler.cancel_dump_traceback_later()


def _isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(scope="session", autouse=True)
def _isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No AWS settings of the developer's reach the servers and clients of the session."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _isolate(monkeypatch, tmp_path_factory.mktemp("session-home"))
        yield


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home directory; no AWS_* variable but the one that turns IMDS off."""
    path = tmp_path_factory.mktemp("home")
    _isolate(monkeypatch, path)
    return path


@pytest.fixture
def memory_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, for tests that flush often; on the disk where there is none."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Our own CA and a server certificate for loopback."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def seaweed() -> Iterator[S3Server]:
    """SeaweedFS over HTTP."""
    with SeaweedServer() as server:
        yield S3Server(
            "seaweed-http",
            server.endpoint_url,
            server.access_key_id,
            server.secret_access_key,
            server.region,
        )


@pytest.fixture(scope="session")
def seaweed_tls(certificates: Certificates) -> Iterator[S3Server]:
    """SeaweedFS over HTTPS, with a certificate of our own CA."""
    with SeaweedServer(tls_cert=certificates.chain, tls_key=certificates.key) as server:
        yield S3Server(
            "seaweed-https",
            server.endpoint_url,
            server.access_key_id,
            server.secret_access_key,
            server.region,
            certificates.ca,
        )


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto over HTTP."""
    with MotoServer() as server:
        yield S3Server(
            "moto",
            server.endpoint_url,
            server.access_key_id,
            server.secret_access_key,
            server.region,
        )


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each server in turn, or those that the marker `servers` names."""
    server = request.getfixturevalue(_SERVERS[request.param])
    assert isinstance(server, S3Server)
    return server


@pytest.fixture
def boto(s3_server: S3Server) -> Any:
    """A boto3 client of the same server, for cross-checks."""
    return s3_server.boto3_client()


@pytest.fixture(scope="session")
def _session_bucket(s3_server: S3Server) -> str:
    name = f"session-{uuid.uuid4().hex[:16]}"
    s3_server.boto3_client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def bucket(boto: Any, _session_bucket: str) -> Iterator[str]:
    """An empty bucket.

    It is emptied and used again by later tests: the first write to a new bucket makes SeaweedFS
    allocate storage, which takes longer than most tests.
    """
    yield _session_bucket
    for page in boto.get_paginator("list_objects_v2").paginate(Bucket=_session_bucket):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if keys:
            boto.delete_objects(Bucket=_session_bucket, Delete={"Objects": keys, "Quiet": True})
    for upload in boto.list_multipart_uploads(Bucket=_session_bucket).get("Uploads", []):
        boto.abort_multipart_upload(
            Bucket=_session_bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )


@pytest.fixture
def versioned_bucket(boto: Any) -> str:
    """A bucket of the test's own, with versioning."""
    name = f"versions-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=name)
    boto.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[kumo_crt.S3Client]:
    """The client under test."""
    import kumo_crt

    with kumo_crt.S3Client(**s3_server.client_arguments()) as client:
        yield client


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A fault proxy in front of the server; raw (not looking into the stream) for HTTPS."""
    with FaultProxy(s3_server.endpoint_url, raw=s3_server.ca_file is not None) as running:
        yield running


@pytest.fixture
def s3_via_proxy(s3_server: S3Server, proxy: FaultProxy) -> Iterator[kumo_crt.S3Client]:
    """The client under test, behind the fault proxy."""
    import kumo_crt

    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url)
    with kumo_crt.S3Client(**arguments) as client:
        yield client
