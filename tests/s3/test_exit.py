"""The end of the interpreter at every stage of a client's work, and forks: in time, no crash."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

import kumo_crt
from tests.support.data import payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import run_python, start_python
from tests.support.servers import S3Server

Listed = Callable[[], list[str]]

# What is promised. Sanitizers have something to do at the end, too (TSan sleeps for a second).
EXIT_SECONDS = 10.0 if {"TSAN_OPTIONS", "ASAN_OPTIONS"} & set(os.environ) else 5.0

pytestmark = pytest.mark.servers("seaweed-http")

_START = """
    import asyncio, gc, os, sys, threading, time
    import kumo_crt
    endpoint, bucket, path = sys.argv[1:]
    part = 5 << 20
    settings = dict(
        endpoint_url=endpoint, part_size=part, multipart_threshold=part, max_connections=4
    )
    large = bytes(4 * part)

    def go():
        sys.stdin.readline()

    def in_thread(function):
        def work():
            try:
                function()
            except (kumo_crt.KumoError, RuntimeError) as error:
                # What it may see before the interpreter stops it. Others are told, and found.
                if "exiting" not in str(error):
                    raise

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread
"""

_SYNC = {
    "uploading": """
        client = kumo_crt.S3Client(**settings)
        in_thread(lambda: client.put_object(bucket, "key", large))
        go()
    """,
    "uploading a file": """
        with open(path, "wb") as file:
            file.write(large)
        client = kumo_crt.S3Client(**settings)
        in_thread(lambda: client.put_object(bucket, "key", path))
        go()
    """,
    "downloading": """
        client = kumo_crt.S3Client(**settings)
        in_thread(lambda: client.get_object(bucket, "stored", into=path))
        go()
    """,
    "queued": """
        client = kumo_crt.S3Client(**settings)
        for number in range(32):
            in_thread(lambda: client.put_object(bucket, "key", large))
        go()
    """,
    "by an exception": """
        client = kumo_crt.S3Client(**settings)
        in_thread(lambda: client.put_object(bucket, "key", large))
        go()
        raise SystemExit(0)
    """,
}
_ASYNC = {
    "a loop in a daemon thread": """
        client = kumo_crt.AsyncS3Client(**settings)
        in_thread(lambda: asyncio.run(client.put_object(bucket, "key", large)))
        go()
    """,
    "a loop in a daemon thread that a handler waits for": """
        import atexit
        atexit.register(lambda: thread.join())  # before the client's own: it runs after that
        client = kumo_crt.AsyncS3Client(**settings)
        thread = in_thread(lambda: asyncio.run(client.put_object(bucket, "key", large)))
        go()
    """,
    "hundreds in a daemon thread": """
        client = kumo_crt.AsyncS3Client(**settings)

        async def work():
            await asyncio.gather(
                *(client.put_object(bucket, "key", large) for _ in range(400)),
                *(client.get_object(bucket, "stored") for _ in range(400)),
            )

        in_thread(lambda: asyncio.run(work()))
        go()
    """,
    "several clients in a loop": """
        async def work():
            async with (
                kumo_crt.AsyncS3Client(**settings) as one,
                kumo_crt.AsyncS3Client(**settings) as two,
                kumo_crt.AsyncS3Client(**settings) as three,
            ):
                for client in (one, two, three):
                    task = asyncio.create_task(client.put_object(bucket, "key", large))
                    task.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.to_thread(go)
                sys.exit(0)

        asyncio.run(work())
    """,
    "several clients, unclosed": """
        async def work():
            for _ in range(3):
                client = kumo_crt.AsyncS3Client(**settings)
                clients.append(client)
                loop.create_task(client.put_object(bucket, "key", large))
            await loop.run_in_executor(None, go)

        clients = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
    """,
    "an exit in a task": """
        async def work():
            client = kumo_crt.AsyncS3Client(**settings)
            task = asyncio.create_task(client.put_object(bucket, "key", large))
            await asyncio.to_thread(go)
            sys.exit(0)

        asyncio.run(work())
    """,
    "a loop that was stopped": """
        client = kumo_crt.AsyncS3Client(**settings)
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.put_object(bucket, "key", large))
        loop.run_until_complete(loop.run_in_executor(None, go))
    """,
    "a loop that was closed": """
        client = kumo_crt.AsyncS3Client(**settings)
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.put_object(bucket, "key", large))
        loop.run_until_complete(loop.run_in_executor(None, go))
        loop.close()
    """,
    "a download to a file": """
        async def work():
            client = kumo_crt.AsyncS3Client(**settings)
            task = asyncio.create_task(client.get_object(bucket, "stored", into=path))
            await asyncio.to_thread(go)

        asyncio.run(work())
    """,
}
# asyncio says so much of tasks that nobody awaits.
_PENDING = "Task was destroyed but it is pending!"


@pytest.mark.parametrize(
    ("stage", "abort"),
    [
        (stage, abort)
        for stage in (*_SYNC, *_ASYNC)
        for abort in ("answered", "unanswered")
        if abort == "answered" or "download" not in stage  # which has no upload to abort
    ],
)
def test_while(
    s3_server: S3Server,
    s3_parts: kumo_crt.S3Client,
    proxy: FaultProxy,
    bucket: str,
    uploads: Listed,
    tmp_path_factory: pytest.TempPathFactory,
    stage: str,
    abort: str,
) -> None:
    directory = tmp_path_factory.mktemp("exit")
    s3_parts.put_object(bucket, "stored", payload(3_000_000))
    put = proxy.add(Fault("stall", "request", 100_000, method="PUT", target="/key", times=1000))
    get = proxy.add(Fault("stall", offset=100_000, method="GET", target="/stored", times=1000))
    if abort == "unanswered":
        proxy.add(Fault("stall", method="DELETE", target="/key", in_head=True, times=1000))
    program = _START + {**_SYNC, **_ASYNC}[stage].replace("\n    ", "\n")
    with start_python(
        program,
        proxy.endpoint_url,
        bucket,
        str(directory / "file"),
        env=s3_server.environment(),
        flags=("-X", "faulthandler"),
    ) as process:
        try:
            fault = get if "download" in stage else put
            assert fault.fired.wait(30)
            before = time.monotonic()
            _, err = process.communicate("go\n", timeout=30)
        finally:
            process.kill()
    seconds = time.monotonic() - before
    print(f"exit: {seconds:.2f} s")
    assert seconds < EXIT_SECONDS
    assert process.returncode == 0, err
    assert "Fatal" not in err
    if not any(word in stage for word in ("closed", "stopped", "unclosed")):
        assert "Traceback" not in err, err
    in_order = stage in _ASYNC and "daemon" not in stage and "unclosed" not in stage
    if abort == "answered" and in_order:
        # Where the loop has come to an end in order, so have the uploads.
        assert uploads() == []
        assert not list(directory.glob(".file.*.part"))


def test_a_forked_child_of_an_event_loop(s3_server: S3Server, bucket: str) -> None:
    run_python(
        """
        import asyncio, os, sys, warnings
        import kumo_crt
        endpoint, bucket = sys.argv[1:]
        client = kumo_crt.AsyncS3Client(endpoint_url=endpoint)

        async def main():
            await client.put_object(bucket, "parent", b"data")
            child = os.fork()
            if child == 0:
                try:
                    await client.put_object(bucket, "child", b"data")
                    os._exit(10)
                except RuntimeError as error:
                    os._exit(11 if "forked" in str(error) else 12)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code == 11, code
            result = await client.get_object(bucket, "parent")
            assert result.body == b"data"
            await client.close()

        warnings.simplefilter("ignore")  # of forking with threads
        asyncio.run(main())
        """,
        s3_server.endpoint_url,
        bucket,
        env=s3_server.environment(),
        timeout=30,
    )


def test_a_process_pool_that_spawns(s3_server: S3Server, bucket: str) -> None:
    run_python(
        """
        import concurrent.futures, multiprocessing, sys
        import kumo_crt
        endpoint, bucket = sys.argv[1:]
        with kumo_crt.S3Client(endpoint_url=endpoint) as client:
            client.put_object(bucket, "key", b"data")
            spawn = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
                assert pool.submit(kumo_crt.crc32c, b"123456789").result(30) == 0xE3069283
            assert client.get_object(bucket, "key").body == b"data"
        """,
        s3_server.endpoint_url,
        bucket,
        env=s3_server.environment(),
        timeout=60,
    )
