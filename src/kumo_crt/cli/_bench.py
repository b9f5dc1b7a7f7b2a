"""`kumo-crt bench`: what an endpoint gives from here, in large transfers and in small requests."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import kumo_crt
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._client import open_client
from kumo_crt.cli._errors import CommandError
from kumo_crt.cli._output import Output, fields, printable
from kumo_crt.cli._signals import cleaned_up
from kumo_crt.cli._units import format_bytes, format_rate, format_seconds
from kumo_crt.exceptions import AccessDeniedError, KumoError, NotFoundError

# Requests one after the other take long on a distant endpoint, and soon tell what there is to tell.
_ONE_BY_ONE = 100
_GIB = 1 << 30


@dataclass
class Transfer:
    """Large transfers of one direction; medians over the rounds."""

    operation: str
    bytes: int
    rounds: int
    seconds: float
    bytes_per_second: float
    cpu_seconds_per_gib: float


@dataclass
class Requests:
    """Small requests of one kind."""

    operation: str
    object_size: int
    concurrency: int
    count: int
    requests_per_second: float
    p50_seconds: float
    p99_seconds: float


@dataclass
class _Bench:
    """One run: what it does, and what it has to remove."""

    client: kumo_crt.S3Client
    output: Output
    bucket: str
    prefix: str
    keys: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    results: list[Transfer | Requests] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    left: str | None = None

    def put(self, key: str, body: object, report: progress.Report | None = None) -> int | None:
        """Stores an object that will be removed; returns its checksum."""
        self.keys.append(key)
        try:
            result = self.client.put_object(self.bucket, key, body, progress=report)
        except AccessDeniedError:
            self.keys.remove(key)
            raise
        # "null": the bucket has no versions, or no longer.
        if result.version_id not in (None, "", "null"):
            self.versions.append((key, result.version_id or ""))
        return result.checksum_crc32c

    def remove(self) -> None:
        """Removes the objects; with their versions, which a plain deletion would only hide."""
        versions, self.versions = self.versions, []
        keys = sorted(set(self.keys) - {key for key, _ in versions})
        self.keys = []
        try:
            for key, version in versions:
                self.client.delete_object(self.bucket, key, version_id=version)
            if keys:
                self.client.delete_objects(self.bucket, keys)
        except NotFoundError:
            pass  # no such bucket: nothing is there
        except KumoError as error:
            self.left = str(error)
            self.output.warning(f"objects are left under s3://{self.bucket}/{self.prefix}: {error}")

    # -- measurements ----------------------------------------------------------------------

    def transfers(self, size: int, rounds: int) -> None:
        """Uploads from memory and downloads into memory, in turn."""
        key = self.prefix + "large"
        data, buffer = os.urandom(size), bytearray(b"\1") * size
        times: dict[str, list[tuple[float, float]]] = {"upload": [], "download": []}
        for turn in range(1, rounds + 1):
            with progress.bar(self.output, f"upload {turn}/{rounds}") as report, _Timed() as took:
                sent = self.put(key, data, report)
            times["upload"].append(took.figures)
            with progress.bar(self.output, f"download {turn}/{rounds}") as report, _Timed() as took:
                found = self.client.get_object(self.bucket, key, into=buffer, progress=report)
            times["download"].append(took.figures)
            if found.size != size or found.checksum_crc32c != sent:
                raise CommandError(
                    f"s3://{self.bucket}/{key}: what came back is not what was sent: "
                    f"{found.size} bytes instead of {size}, or of another CRC32C"
                )
        for operation, figures in times.items():
            seconds = statistics.median(wall for wall, _ in figures)
            cpu = statistics.median(cpu for _, cpu in figures)
            self._add(Transfer(operation, size, rounds, seconds, size / seconds, cpu * _GIB / size))

    def requests(self, count: int, size: int, concurrency: int) -> None:
        """Puts and gets small objects."""
        body = os.urandom(size)
        keys = [f"{self.prefix}small/{number:06}" for number in range(count)]
        self._requests("put", keys, size, concurrency, lambda key: self.put(key, body))
        self._requests(
            "get", keys, size, concurrency, lambda key: self.client.get_object(self.bucket, key)
        )

    def _requests(
        self,
        operation: str,
        keys: list[str],
        size: int,
        concurrency: int,
        request: Callable[[str], object],
    ) -> None:
        times: list[float] = []
        todo = iter(keys)
        lock = threading.Lock()

        def drive() -> None:
            while not self.stop.is_set():
                with lock:
                    key = next(todo, None)
                if key is None:
                    return
                begun = time.perf_counter()
                request(key)
                times.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        if concurrency == 1:
            drive()
        else:
            with ThreadPoolExecutor(concurrency) as pool:
                try:
                    for future in [pool.submit(drive) for _ in range(concurrency)]:
                        future.result()
                except BaseException:
                    # Leaving the block waits for the threads: let them not go on.
                    self.stop.set()
                    raise
        seconds = time.perf_counter() - begun
        times.sort()
        self._add(
            Requests(
                operation,
                size,
                concurrency,
                len(times),
                len(times) / seconds,
                statistics.median(times),
                times[math.ceil(0.99 * len(times)) - 1],
            )
        )

    # -- output ----------------------------------------------------------------------------

    def header(self) -> None:
        """Writes the table's header."""
        self._line("", "throughput", "p50", "p99", "CPU s/GiB")

    def _add(self, result: Transfer | Requests) -> None:
        self.results.append(result)
        if isinstance(result, Transfer):
            rate = format_rate(result.bytes, result.seconds)
            what = f"{result.operation} {format_bytes(result.bytes)}"
            self._line(what, rate, "", "", f"{result.cpu_seconds_per_gib:.2f}")
            return
        how = f"{result.concurrency} at once" if result.concurrency > 1 else "one by one"
        self._line(
            f"{result.operation} {format_bytes(result.object_size)}, {how}",
            f"{result.requests_per_second:,.0f}/s",
            _milliseconds(result.p50_seconds),
            _milliseconds(result.p99_seconds),
            "",
        )

    def _line(self, what: str, rate: str, p50: str, p99: str, cpu: str) -> None:
        # Line by line as it happens: a table could only be shown at the end.
        self.output.message(f"  {what:28}{rate:>12}{p50:>11}{p99:>11}{cpu:>11}".rstrip())
        self.output.flush()


class _Timed:
    """Measures a block: wall and CPU seconds, of all threads."""

    figures = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._begun = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._begun
        self.figures = time.perf_counter() - wall, time.process_time() - cpu


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def bench(args: argparse.Namespace, output: Output) -> int:
    """Measures an endpoint."""
    bucket, given = args.url
    parent = given if not given or given.endswith("/") else given + "/"
    prefix = f"{parent}kumo-bench-{secrets.token_hex(4)}/"
    plan: dict[str, Any] = {
        "bucket": bucket,
        "prefix": prefix,
        "size": args.size,
        "rounds": args.rounds,
        "objects": args.objects,
        "object_size": args.object_size,
        "concurrency": args.concurrency,
        "dry_run": args.dry_run,
    }
    connections = max(16, args.concurrency)
    with open_client(args, output, max_connections=connections) as client:
        if args.dry_run:
            return _dry_run(client, output, plan)
        run = _Bench(client, output, bucket, prefix)
        begun = time.monotonic()
        with cleaned_up() as stack:
            stack.callback(run.remove)
            _measure(run, args)
    took = format_seconds(time.monotonic() - begun)
    output.document(
        {**plan, "results": [fields(result) for result in run.results], "removed": not run.left}
    )
    if run.left is not None:
        return errors.FAILED
    output.message(f"Done in {took}; everything is removed again.")
    return errors.DONE


def _measure(run: _Bench, args: argparse.Namespace) -> None:
    run.output.message(f"Objects under s3://{run.bucket}/{printable(run.prefix)}\n")
    run.header()
    run.transfers(args.size, args.rounds)
    run.requests(min(args.objects, _ONE_BY_ONE), args.object_size, 1)
    if args.concurrency > 1:
        run.requests(args.objects, args.object_size, args.concurrency)


def _dry_run(client: kumo_crt.S3Client, output: Output, plan: dict[str, Any]) -> int:
    # As far as reading goes: does the bucket answer?
    next(client.list_objects(plan["bucket"], prefix=plan["prefix"]), None)
    output.document(plan)
    size, small = format_bytes(plan["size"]), format_bytes(plan["object_size"])
    output.message(
        f"dry run: would upload and download {size} {plan['rounds']} times, put and get "
        f"{plan['objects']} objects of {small}, and remove them, under "
        f"s3://{plan['bucket']}/{printable(plan['prefix'])}"
    )
    return errors.DONE
