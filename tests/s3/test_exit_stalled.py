"""The end of the interpreter where nothing answers: servers, name servers, credential processes."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3.test_exit import EXIT_SECONDS
from tests.support.processes import start_python
from tests.support.token_gateway import Issuer

_START = """
    import asyncio, os, sys, threading, time
    import kumo_crt
    endpoint, path = sys.argv[1:]
    part = 5 << 20
    settings = dict(
        region="us-east-1", part_size=part, multipart_threshold=part, max_connections=4
    )
    if "AWS_CONFIG_FILE" in os.environ:
        settings |= dict(profile="temporary")
    else:
        settings |= dict(access_key_id="AKEXAMPLE", secret_access_key="example-secret")
    large = bytes(4 * part)

    def in_thread(function):
        def work():
            try:
                function()
            except (kumo_crt.KumoError, RuntimeError) as error:
                # What it may see before the interpreter stops it. Others are told, and found.
                if "exiting" not in str(error):
                    raise

        threading.Thread(target=work, daemon=True).start()

    def calls(client):
        in_thread(lambda: client.put_object("bucket", "key", large))
        in_thread(lambda: client.put_object("bucket", "key", bytes(100_000)))
        in_thread(lambda: client.get_object("bucket", "key", into=path))
        in_thread(lambda: list(client.list_objects("bucket")))

    async def gathered(client):
        await asyncio.gather(
            *(client.put_object("bucket", "key", large) for _ in range(100)),
            *(client.get_object("bucket", "key", into=path) for _ in range(100)),
        )

    def under_way():
        time.sleep(0.7)  # until all of it waits; nothing tells when
        print("ready", flush=True)
        sys.stdin.readline()
"""

_LATE = 2

_PROGRAMS = {
    "threads": """
        client = kumo_crt.S3Client(endpoint_url=endpoint, **settings)
        calls(client)
        under_way()
    """,
    "several clients": """
        clients = [kumo_crt.S3Client(endpoint_url=endpoint, **settings) for _ in range(6)]
        for client in clients:
            calls(client)
        for _ in range(3):
            client = kumo_crt.AsyncS3Client(endpoint_url=endpoint, **settings)
            in_thread(lambda client=client: asyncio.run(gathered(client)))
            clients.append(client)
        under_way()
    """,
    "a loop": """
        async def work():
            async with kumo_crt.AsyncS3Client(endpoint_url=endpoint, **settings) as client:
                task = asyncio.create_task(gathered(client))
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.to_thread(under_way)
                sys.exit(0)

        asyncio.run(work())
    """,
}


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def silent_tls(silent: str) -> str:
    """The same where TLS is spoken: no handshake comes to its end."""
    return silent.replace("http:", "https:")


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    """A server that does not even take connections: its queue is full."""
    waiting = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for client in waiting:
            client.close()


def _library(directory: Path, source: str) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    text, library = directory / "library.c", directory / "library.so"
    text.write_text("#include <unistd.h>\n" + source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, text], check=True)
    return str(library)


@pytest.fixture(scope="module")
def no_names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes a name server of the machine's that does not answer."""
    return _library(
        tmp_path_factory.mktemp("names"),
        "int getaddrinfo(const char *a, const char *b, const void *c, void **d)\n"
        "{ (void)a; (void)b; (void)c; (void)d; for (;;) pause(); }\n",
    )


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that keeps the process for `_LATE` seconds when it is unloaded."""
    return _library(
        tmp_path_factory.mktemp("late"),
        "__attribute__((destructor)) static void late(void)\n"
        f"{{ for (int left = {_LATE}; left > 0;) left = sleep(left); }}\n",
    )


def _ends(
    program: str, endpoint: str, directory: Path, env: dict[str, str] | None = None
) -> tuple[float, str]:
    """Runs a program up to its exit; the seconds that this took, and what it said."""
    with start_python(
        _START + program.replace("\n    ", "\n"),
        endpoint,
        str(directory / "file"),
        env=env,
        flags=("-X", "faulthandler"),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            before = time.monotonic()
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
            # Not for its streams: a credential process may hold them.
            process.wait(30)
            seconds = time.monotonic() - before
            assert process.stderr is not None
            told = select.select([process.stderr], [], [], 0)[0]
            err = os.read(process.stderr.fileno(), 100_000).decode() if told else ""
        finally:
            process.kill()
    print(f"exit: {seconds:.2f} s")
    assert process.returncode == 0, err
    assert "Fatal" not in err
    assert "Traceback" not in err, err
    assert not list(directory.glob("*.part"))
    return seconds, err


@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.parametrize("server", ["silent", "silent_tls", "deaf"])
def test_no_answer(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, program: str
) -> None:
    seconds, _ = _ends(_PROGRAMS[program], request.getfixturevalue(server), tmp_path)
    assert seconds < EXIT_SECONDS


@pytest.mark.parametrize("program", _PROGRAMS)
def test_a_process_that_takes_long_to_end(
    silent_tls: str, late: str, tmp_path: Path, program: str
) -> None:
    """No event loop goes on with TLS when the libraries have run their destructors."""
    # Loaded after kumo_crt's own libraries, so unloaded after them.
    load = f"\n        import ctypes; ctypes.CDLL({late!r})"
    seconds, _ = _ends(load + _PROGRAMS[program], silent_tls, tmp_path)
    assert _LATE < seconds < EXIT_SECONDS + _LATE


@pytest.mark.parametrize("program", _PROGRAMS)
def test_no_name_server(no_names: str, tmp_path: Path, program: str) -> None:
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), no_names]))
    seconds, _ = _ends(
        _PROGRAMS[program], "http://nowhere.example:80", tmp_path, {"LD_PRELOAD": preload}
    )
    assert seconds < EXIT_SECONDS


@pytest.mark.parametrize("program", _PROGRAMS)
def test_no_credentials(silent: str, tmp_path: Path, program: str) -> None:
    directory = tmp_path / "issuer"
    directory.mkdir()
    # It outlives the program; not by much.
    issuer = Issuer(directory, 3600, wait=12)
    seconds, _ = _ends(_PROGRAMS[program], silent, tmp_path, issuer.environment)
    assert issuer.runs > 0
    assert seconds < EXIT_SECONDS
