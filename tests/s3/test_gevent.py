"""Programs in which gevent has patched the standard library."""

from __future__ import annotations

import signal
import time

import pytest

import kumo_crt
from tests.support.data import payload
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import run_python, start_python
from tests.support.servers import S3Server

pytestmark = pytest.mark.servers("seaweed-http")

_PATCH = "from gevent import monkey; monkey.patch_all()"
_ORDERS = {
    "patched first": f"{_PATCH}\n    import kumo_crt",
    "imported first": f"import kumo_crt\n    kumo_crt.S3Client\n    {_PATCH}",
}


@pytest.mark.parametrize("order", _ORDERS)
def test_greenlets_share_a_client(s3_server: S3Server, bucket: str, order: str) -> None:
    program = f"""
    {_ORDERS[order]}
    import logging, sys
    import gevent
    endpoint, bucket = sys.argv[1:]
    # Its lines come from a thread of the system, and the loggers' locks are gevent's.
    logging.basicConfig(stream=sys.stdout, level=logging.DEBUG)
    logging.getLogger("kumo_crt.crt").setLevel(logging.DEBUG)
    client = kumo_crt.S3Client(endpoint_url=endpoint, max_connections=8)

    def work(number):
        data = bytes([number]) * 200_000
        client.put_object(bucket, f"key-{{number}}", data)
        result = client.get_object(bucket, f"key-{{number}}")
        assert result.body == data and result.validated == "CRC32C"
        return number

    greenlets = [gevent.spawn(work, number) for number in range(40)]
    gevent.joinall(greenlets, raise_error=True)
    assert [greenlet.value for greenlet in greenlets] == list(range(40))
    assert len(list(client.list_objects(bucket))) == 40
    sys.stdout.write("\\ndone\\n")  # at once: the log's lines come in between
    """
    done = run_python(
        program, s3_server.endpoint_url, bucket, env=s3_server.environment(), timeout=60
    )
    assert "\ndone\n" in done.stdout
    assert "kumo_crt.crt." in done.stdout
    assert done.stderr == ""


_STALLED = f"""
    {_PATCH}
    import sys, time
    import gevent, kumo_crt
    endpoint, bucket = sys.argv[1:]
    ticks = 0

    def tick():
        global ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1

    gevent.spawn(tick)
    client = kumo_crt.S3Client(endpoint_url=endpoint)
    try:
        client.get_object(bucket, "stored")
    except KeyboardInterrupt:
        print(time.clock_gettime(time.CLOCK_MONOTONIC), ticks, flush=True)
"""


def test_a_call_that_waits_lets_the_others_run_and_answers_ctrl_c(
    s3_server: S3Server, s3: kumo_crt.S3Client, proxy: FaultProxy, bucket: str
) -> None:
    s3.put_object(bucket, "stored", payload(300_000))
    fault = proxy.add(Fault("stall", offset=100_000, method="GET", target="/stored", times=1000))
    with start_python(_STALLED, proxy.endpoint_url, bucket, env=s3_server.environment()) as process:
        try:
            assert fault.fired.wait(30)
            time.sleep(0.5)
            interrupted = time.clock_gettime(time.CLOCK_MONOTONIC)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, err
    at, ticks = out.split()
    assert float(at) - interrupted < 0.6
    assert int(ticks) > 10
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - interrupted < 5
