"""Ctrl-C, the end of the interpreter, forks, and awscrt in the same process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

import kumo_crt
from tests.s3.conftest import PART
from tests.support.data import payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import run_python, start_python
from tests.support.servers import S3Server

# The promise is 200 ms; the rest is for a machine that is busy.
INTERRUPT_SECONDS = 0.2 + 0.4
Listed = Callable[[], list[str]]

_INTERRUPTED = """
    import sys, time
    import kumo_crt
    action, endpoint, bucket, path = sys.argv[1:]
    part = 5 << 20
    client = kumo_crt.S3Client(endpoint_url=endpoint, part_size=part, multipart_threshold=part)
    try:
        if action == "put-small":
            client.put_object(bucket, "key", bytes(200_000))
        elif action == "put-parts":
            client.put_object(bucket, "key", bytes(4 * part))
        elif action == "put-path":
            client.put_object(bucket, "key", path)
        elif action == "get":
            client.get_object(bucket, "stored")
        elif action == "get-path":
            client.get_object(bucket, "stored", into=path)
        else:
            list(client.list_objects(bucket))
    except KeyboardInterrupt:
        # Of the whole machine, so that the parent can compare.
        print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
    client.close()
"""


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize(
    "action", ["put-small", "put-parts", "put-path", "get", "get-path", "list"]
)
def test_ctrl_c_ends_a_stalled_call(
    s3_server: S3Server,
    s3_parts: kumo_crt.S3Client,
    proxy: FaultProxy,
    bucket: str,
    keys: Listed,
    uploads: Listed,
    tmp_path_factory: pytest.TempPathFactory,
    action: str,
) -> None:
    directory = tmp_path_factory.mktemp("transfer")
    path = directory / "file"
    s3_parts.put_object(bucket, "stored", payload(3 * PART))
    if action == "put-path":
        path.write_bytes(payload(4 * PART))
    if action.startswith("put"):
        fault = Fault("stall", "request", 100_000, method="PUT", target="/key", times=1000)
    elif action == "list":
        fault = Fault("stall", offset=10, method="GET", target="list-type", times=1000)
    else:
        fault = Fault("stall", offset=100_000, method="GET", target="/stored", times=1000)
    proxy.add(fault)
    with start_python(
        _INTERRUPTED,
        action,
        proxy.endpoint_url,
        bucket,
        str(path),
        env=s3_server.environment(),
    ) as process:
        try:
            assert fault.fired.wait(30)
            interrupted = time.clock_gettime(time.CLOCK_MONOTONIC)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert out, f"no KeyboardInterrupt: {err}"
    assert float(out) - interrupted < INTERRUPT_SECONDS
    assert keys() == ["stored"]
    assert uploads() == []
    if action == "get-path":
        assert list(directory.iterdir()) == []


# The parser of XML is loaded by the first answer that has any.
_INTERRUPTED_LOADING = """
    import importlib.machinery, os, signal, sys
    import kumo_crt

    class Finder(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "pyexpat":
                print("pyexpat", flush=True)
                os.kill(os.getpid(), signal.SIGINT)

    sys.meta_path.insert(0, Finder)
    with kumo_crt.S3Client(endpoint_url=sys.argv[1]) as client:
        try:
            print(list(client.list_objects(sys.argv[2])))
        except KeyboardInterrupt:
            print("interrupted")
"""


@pytest.mark.servers("seaweed-http")
def test_interrupted_while_the_parser_is_loaded(s3_server: S3Server, bucket: str) -> None:
    done = run_python(
        _INTERRUPTED_LOADING, s3_server.endpoint_url, bucket, env=s3_server.environment()
    )
    assert done.stdout == "pyexpat\ninterrupted\n"


_LIVELY = """
    import sys
    import kumo_crt
    endpoint, bucket = sys.argv[1:]
    client = kumo_crt.S3Client(endpoint_url=endpoint)
    client.put_object(bucket, "key", b"data")
"""


@pytest.mark.servers("seaweed-http")
class TestExit:
    def test_without_close(self, s3_server: S3Server, bucket: str) -> None:
        before = time.monotonic()
        done = run_python(
            _LIVELY, s3_server.endpoint_url, bucket, env=s3_server.environment(), timeout=30
        )
        assert done.stderr == ""
        assert time.monotonic() - before < 10

    def test_by_an_exception(self, s3_server: S3Server, bucket: str) -> None:
        program = _LIVELY + "\n    sys.exit('the end')\n"
        with start_python(
            program, s3_server.endpoint_url, bucket, env=s3_server.environment()
        ) as process:
            _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert err.strip() == "the end"

    def test_while_a_daemon_thread_waits(
        self, s3_server: S3Server, proxy: FaultProxy, bucket: str, s3: kumo_crt.S3Client
    ) -> None:
        s3.put_object(bucket, "stored", payload(200_000))
        program = """
            import sys, threading
            import kumo_crt
            endpoint, bucket = sys.argv[1:]
            client = kumo_crt.S3Client(endpoint_url=endpoint)
            thread = threading.Thread(
                target=lambda: client.get_object(bucket, "stored"), daemon=True
            )
            thread.start()
            sys.stdin.readline()
        """
        fault = proxy.add(Fault("stall", offset=1000, method="GET", target="/stored"))
        with start_python(
            program, proxy.endpoint_url, bucket, env=s3_server.environment()
        ) as process:
            assert fault.fired.wait(30)
            _, err = process.communicate("go\n", timeout=30)
        assert process.returncode == 0, err

    def test_while_daemon_threads_are_in_native_code(self) -> None:
        """They are not unwound through native frames when the interpreter takes the GIL away."""
        run_python(
            """
            import threading, time
            import kumo_crt
            data = bytes(200_000_000)
            def work():
                while True:
                    kumo_crt.crc32c(data)
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.2)
            """
        )

    def test_right_after_import(self) -> None:
        run_python("import kumo_crt", timeout=30)

    def test_with_a_client_that_was_never_used(self) -> None:
        program = """
            import kumo_crt
            client = kumo_crt.S3Client("us-east-1", "http://127.0.0.1:9", anonymous=True)
        """
        assert run_python(program, timeout=30).stderr == ""


def test_an_unclosed_client_warns() -> None:
    clients = [kumo_crt.S3Client("us-east-1", "http://127.0.0.1:9", anonymous=True)]
    with pytest.warns(ResourceWarning, match=r"unclosed.*S3Client"):
        clients.clear()


@pytest.mark.servers("seaweed-http")
class TestFork:
    """A child gets a fresh client or a clear error; never a hang."""

    @pytest.mark.parametrize("what", ["old", "new"])
    def test_a_client_in_a_forked_child(self, s3_server: S3Server, bucket: str, what: str) -> None:
        program = """
            import os, sys, warnings
            import kumo_crt
            endpoint, bucket, what = sys.argv[1:]
            client = kumo_crt.S3Client(endpoint_url=endpoint)
            client.put_object(bucket, "parent", b"data")
            warnings.simplefilter("ignore")  # of forking with threads
            child = os.fork()
            if child == 0:
                try:
                    if what == "new":
                        client = kumo_crt.S3Client(endpoint_url=endpoint)
                    client.put_object(bucket, "child", b"data")
                    code = 10
                except (RuntimeError, kumo_crt.KumoError) as error:
                    code = 11 if "fork" in str(error) else 12
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (10, 11), code
            assert client.get_object(bucket, "parent").body == b"data"
            client.close()
        """
        run_python(
            program,
            s3_server.endpoint_url,
            bucket,
            what,
            env=s3_server.environment(),
            timeout=30,
        )


@pytest.mark.servers("seaweed-http")
@pytest.mark.parametrize("first", ["kumo_crt", "awscrt"])
def test_awscrt_in_the_same_process(s3_server: S3Server, bucket: str, first: str) -> None:
    # Two copies of the same C libraries, in either order, both at work, both shut down.
    program = """
        import importlib, sys, threading
        first, endpoint, bucket = sys.argv[1:]
        second = {"kumo_crt": "awscrt", "awscrt": "kumo_crt"}[first]
        for name in (first, second):
            importlib.import_module(name)
            if name == "awscrt":
                import awscrt.auth, awscrt.checksums, awscrt.http, awscrt.io, awscrt.s3
        import os, kumo_crt

        group = awscrt.io.EventLoopGroup(1)
        bootstrap = awscrt.io.ClientBootstrap(group, awscrt.io.DefaultHostResolver(group))
        theirs = awscrt.s3.S3Client(
            bootstrap=bootstrap,
            region="us-east-1",
            tls_mode=awscrt.s3.S3RequestTlsMode.DISABLED,
            signing_config=awscrt.s3.create_default_s3_signing_config(
                region="us-east-1",
                credential_provider=awscrt.auth.AwsCredentialsProvider.new_static(
                    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
                ),
            ),
        )

        def their_get(key):
            host = endpoint.removeprefix("http://")
            headers = awscrt.http.HttpHeaders([("host", host)])
            chunks = []
            theirs.make_request(
                type=awscrt.s3.S3RequestType.GET_OBJECT,
                request=awscrt.http.HttpRequest("GET", f"/{bucket}/{key}", headers),
                on_body=lambda chunk, offset, **_: chunks.append(bytes(chunk)),
            ).finished_future.result(30)
            return b"".join(chunks)

        data = os.urandom(300_000)
        with kumo_crt.S3Client(endpoint_url=endpoint) as ours:
            for turn in range(3):
                key = f"key-{turn}"
                ours.put_object(bucket, key, data)
                assert their_get(key) == data
                assert ours.get_object(bucket, key).body == data
        assert awscrt.checksums.crc32c(data) == kumo_crt.crc32c(data)
        assert their_get("key-0") == data
        print("done")
    """
    done = run_python(
        program, first, s3_server.endpoint_url, bucket, env=s3_server.environment(), timeout=60
    )
    assert done.stdout == "done\n"
