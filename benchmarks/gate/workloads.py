"""What gate.py counts the instructions of; runs under callgrind.

Arguments: the library of marks, the server's URL, a directory with a database. Each workload is
small, does the same at every run, and stands for something that must not become dearer unnoticed.
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKET = "bucket"
Work = Callable[[], object]


def import_client() -> Work:
    def work() -> None:
        from kumo_crt import S3Client  # noqa: F401 - what it brings along is counted

    return work


def crc32c_large() -> Work:
    import kumo_crt

    data = random.Random(1).randbytes(1 << 20) * 64
    return lambda: kumo_crt.crc32c(data)


def crc32c_small() -> Work:
    import kumo_crt

    data = random.Random(2).randbytes(1024)

    def work() -> None:
        crc = 0
        for _ in range(2000):
            crc = kumo_crt.crc32c_combine(crc, kumo_crt.crc32c(data), len(data))

    return work


def rocksdb_files(database: Path) -> Work:
    from kumo_crt import _core

    (manifest,) = database.glob("MANIFEST-*")
    tables = sorted(database.glob("*.sst"))

    def work() -> None:
        for _ in range(20):
            _core.read_manifest(manifest)
            for table in tables:
                _core.sst_properties(table)

    return work


def event_stream() -> Work:
    from kumo_crt import event_stream as module

    headers: dict[str, str | int | bool | bytes] = {
        ":event-type": "Records",
        "sequence": 12345,
        "flag": True,
        "key": b"\0\1\2",
    }
    payload = random.Random(3).randbytes(300)

    def work() -> None:
        decoder = module.Decoder()
        for _ in range(300):
            decoder.feed(module.encode(headers, payload))

    return work


def client(endpoint_url: str) -> Any:
    import kumo_crt

    # One loop and one connection: nothing depends on which of several is faster.
    return kumo_crt.S3Client(
        endpoint_url=endpoint_url,
        region="us-east-1",
        access_key_id="AKGATE",
        secret_access_key="gate",
        event_loops=1,
        max_connections=1,
    )


def put_small(s3: Any) -> Work:
    data = random.Random(4).randbytes(4096)

    def work() -> None:
        for number in range(100):
            s3.put_object(BUCKET, f"small/{number}", data)

    return work


def get_small(s3: Any) -> Work:
    def work() -> None:
        for number in range(100):
            s3.get_object(BUCKET, f"generated/4096/{number}")

    return work


def put_large(s3: Any) -> Work:
    data = random.Random(5).randbytes(1 << 20) * 32
    return lambda: s3.put_object(BUCKET, "large", data)


def get_large(s3: Any) -> Work:
    buffer = bytearray(32 << 20)
    return lambda: s3.get_object(BUCKET, f"generated/{len(buffer)}/large", into=buffer)


def list_objects(s3: Any) -> Work:
    for number in range(300):
        s3.put_object(BUCKET, f"listed/{number:04}", b"")
    return lambda: list(s3.list_objects(BUCKET, "listed/"))


def main() -> None:
    library, endpoint_url, database = sys.argv[1:]
    marks = ctypes.CDLL(library)
    # Its runs depend on how many objects there are: of all modules, not only of the workload.
    gc.disable()

    def count(name: str, work: Work, warm_up: int) -> None:
        for _ in range(warm_up):
            work()
        marks.begin()
        work()
        marks.end(name.encode())

    count("import", import_client(), 0)
    count("crc32c-large", crc32c_large(), 1)
    count("crc32c-small", crc32c_small(), 1)
    count("rocksdb-files", rocksdb_files(Path(database)), 1)
    count("event-stream", event_stream(), 1)
    with client(endpoint_url) as s3:
        for name, make in (
            ("put-small", put_small),
            ("get-small", get_small),
            ("put-large", put_large),
            ("get-large", get_large),
            ("list", list_objects),
        ):
            count(name, make(s3), 2)


if __name__ == "__main__":
    main()
