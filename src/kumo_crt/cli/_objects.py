"""Commands about objects: put, get, ls, rm."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import kumo_crt
from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _progress as progress
from kumo_crt.cli._client import open_client
from kumo_crt.cli._errors import CommandError, UsageError
from kumo_crt.cli._output import Output, fields, printable, timestamp, to_stderr
from kumo_crt.cli._units import format_bytes, format_rate, format_seconds
from kumo_crt.exceptions import ChecksumMismatchError, KumoError, NotFoundError, TransportError

# What `get URL -` holds in memory at once.
_CHUNK = 64 * 1024 * 1024
_LIST_PAGE = 1000


def _hex(checksum: int | None) -> str | None:
    return None if checksum is None else f"{checksum:08x}"


def _summary(verb: str, what: str, size: int, seconds: float) -> str:
    rate = format_rate(size, seconds)
    return f"{verb} {printable(what)}: {format_bytes(size)}; {format_seconds(seconds)}, {rate}"


def put(args: argparse.Namespace, output: Output) -> int:
    """Stores a file, or standard input."""
    bucket, key = args.url
    if not key or key.endswith("/"):
        if args.file == "-":
            raise UsageError(f"s3://{bucket}/{key}: standard input needs a whole key")
        key += Path(args.file).name
    url = f"s3://{bucket}/{key}"
    body: Any = sys.stdin.buffer if args.file == "-" else args.file
    if args.file != "-" and stat.S_ISDIR(os.stat(args.file).st_mode):
        raise CommandError(f"{args.file} is a directory: put stores one file")
    begun = time.monotonic()
    with open_client(args, output) as client:
        if args.dry_run:
            return _dry_put(client, args, output, bucket, key)
        try:
            with progress.bar(output, "put") as report:
                result = client.put_object(bucket, key, body, progress=report)
        except OSError as error:
            if args.file == "-" and not isinstance(error, KumoError):
                error.filename = "standard input"
            raise
    seconds = time.monotonic() - begun
    document = {**fields(result), "checksum_crc32c": _hex(result.checksum_crc32c)}
    output.document({"bucket": bucket, "key": key, **document, "dry_run": False})
    output.message(_summary("stored", url, result.size, seconds))
    return errors.DONE


def _dry_put(
    client: kumo_crt.S3Client, args: argparse.Namespace, output: Output, bucket: str, key: str
) -> int:
    size = None
    if args.file != "-":
        with open(args.file, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    # A listing, unlike HEAD, tells a missing bucket from a missing object.
    first = next(client.list_objects(bucket, prefix=key), None)
    replaces = first is not None and first.key == key
    output.document(
        {"bucket": bucket, "key": key, "size": size, "replaces": replaces, "dry_run": True}
    )
    what = "standard input" if size is None else f"{printable(args.file)} ({format_bytes(size)})"
    output.message(
        f"dry run: would store {what} as s3://{bucket}/{printable(key)}"
        + (", replacing the object there" if replaces else "")
    )
    return errors.DONE


def get(args: argparse.Namespace, output: Output) -> int:
    """Reads an object into a file, or to standard output."""
    bucket, key = args.url
    to_stdout = args.file == "-"
    if not key:
        raise UsageError(f"s3://{bucket}: expected s3://bucket/key")
    if to_stdout and args.json:
        raise UsageError("--json and the object cannot both go to standard output: name a file")
    target = Path(args.file)
    if not to_stdout and target.is_dir():
        name = key.rstrip("/").rpartition("/")[2]
        if name in ("", ".", ".."):
            raise UsageError(f"{args.file} is a directory: name a file")
        target /= name
    where = Path(args.file) if args.file.endswith("/") else target.parent
    if not to_stdout and not where.is_dir():
        raise CommandError(f"{where}: no such directory: create it first")
    if not to_stdout and target.exists() and not target.is_file():
        raise CommandError(
            f"{target}: is no file, and would be replaced by one: name another, or - for standard "
            "output"
        )
    begun = time.monotonic()
    with open_client(args, output) as client:
        if args.dry_run:
            return _dry_get(client, output, bucket, key, None if to_stdout else target)
        with progress.bar(output, "get") as report:
            if to_stdout:
                _stream(client, output, bucket, key, report)
                return errors.DONE
            result = client.get_object(bucket, key, into=target, progress=report)
    seconds = time.monotonic() - begun
    document = {**fields(result), "checksum_crc32c": _hex(result.checksum_crc32c)}
    del document["body"]
    output.document({"bucket": bucket, "key": key, "file": target, **document, "dry_run": False})
    output.message(_summary("wrote", str(target), result.size, seconds))
    return errors.DONE


def _dry_get(
    client: kumo_crt.S3Client, output: Output, bucket: str, key: str, target: Path | None
) -> int:
    head = client.head_object(bucket, key)
    replaces = target is not None and target.exists()
    document = {"size": head.size, "replaces": replaces, "dry_run": True}
    output.document({"bucket": bucket, "key": key, "file": target, **document})
    where = "to standard output" if target is None else printable(str(target))
    what = f"dry run: would write {where} ({format_bytes(head.size)})"
    if target is not None:
        output.message(what + (", replacing the file there" if replaces else ""))
    elif not output.quiet:
        to_stderr(what)  # on standard output there is the object, or nothing
    return errors.DONE


def _stream(
    client: kumo_crt.S3Client,
    output: Output,
    bucket: str,
    key: str,
    report: progress.Report | None,
) -> None:
    """Writes an object to standard output, piece by piece: memory does not grow with it."""
    head = client.head_object(bucket, key)
    if head.size <= _CHUNK:
        output.raw(client.get_object(bucket, key, if_match=head.etag, progress=report).body)
        return
    checksum = 0
    for start in range(0, head.size, _CHUNK):
        stop = min(start + _CHUNK, head.size)

        def moved(done: int, _total: int, start: int = start) -> None:
            if report is not None:
                report(start + done, head.size)

        # The ETag makes sure that all pieces are of one object.
        part = client.get_object(
            bucket, key, range=(start, stop), if_match=head.etag, progress=moved
        )
        if part.size != stop - start:
            raise TransportError(
                f"reading s3://{bucket}/{key}: {part.size} bytes came where {stop - start} belong"
            )
        checksum = kumo_crt.crc32c_combine(checksum, part.checksum_crc32c, part.size)
        output.raw(part.body)
    if head.checksum_crc32c not in (None, checksum):
        raise ChecksumMismatchError(
            f"s3://{bucket}/{key}: the content has CRC32C {checksum:08x}, "
            f"{_hex(head.checksum_crc32c)} is stored: what was written is damaged"
        )


def ls(args: argparse.Namespace, output: Output) -> int:
    """Lists objects."""
    bucket, prefix = args.url
    objects: list[kumo_crt.ObjectInfo] = []
    prefixes: list[kumo_crt.ObjectInfo] = []
    with open_client(args, output) as client:
        rows = []
        any_found = False
        listing = client.list_objects(bucket, prefix, delimiter=None if args.recursive else "/")
        for item in listing:
            any_found = True
            if output.as_json:
                (prefixes if item.is_prefix else objects).append(item)
                continue
            rows.append(_row(item))
            if len(rows) == _LIST_PAGE:
                _print_page(output, rows)
                rows = []
        _print_page(output, rows)
    if not any_found and prefix:
        raise NotFoundError("NotFound", 404, f"nothing begins with s3://{bucket}/{prefix}")
    output.document(
        {
            "bucket": bucket,
            "prefix": prefix,
            "prefixes": [item.key for item in prefixes],
            "objects": [
                {name: value for name, value in fields(item).items() if name != "is_prefix"}
                for item in objects
            ],
        }
    )
    return errors.DONE


def rm(args: argparse.Namespace, output: Output) -> int:
    """Deletes an object, or with --recursive all below a prefix."""
    bucket, key = args.url
    if (not key or key.endswith("/")) and not args.recursive:
        raise UsageError(f"s3://{bucket}/{key}: names no object; --recursive deletes all below it")
    url = f"s3://{bucket}/{printable(key)}"
    count = size = 0
    deleted: list[str] = []
    with open_client(args, output) as client:
        found = _below(client, bucket, key) if args.recursive else _one(client, bucket, key)
        while batch := list(islice(found, _LIST_PAGE)):
            if args.dry_run:
                _print_page(output, [_row(item) for item in batch])
            else:
                client.delete_objects(bucket, [item.key for item in batch])
            count += len(batch)
            size += sum(item.size for item in batch)
            if output.as_json:
                deleted += [item.key for item in batch]
    if not count:
        raise NotFoundError("NotFound", 404, f"there is nothing at or below {url}")
    output.document(
        {
            "bucket": bucket,
            "key": key,
            "keys": deleted,
            "count": count,
            "size": size,
            "dry_run": args.dry_run,
        }
    )
    what = url if not args.recursive else f"{count} object{'s' * (count != 1)} of {url}"
    output.message(
        f"{'dry run: would delete' if args.dry_run else 'deleted'} {what}, {format_bytes(size)}"
    )
    return errors.DONE


def _one(client: kumo_crt.S3Client, bucket: str, key: str) -> Iterator[kumo_crt.ObjectInfo]:
    try:
        head = client.head_object(bucket, key)
    except NotFoundError as error:
        hint = "--recursive deletes what is below a prefix"
        raise NotFoundError(error.code, error.status, f"{error.message}. {hint}") from None
    yield kumo_crt.ObjectInfo(key, head.size, head.etag, head.last_modified)


def _below(client: kumo_crt.S3Client, bucket: str, key: str) -> Iterator[kumo_crt.ObjectInfo]:
    """What a path stands for: a/b is itself and what is below a/b/, but not a/bc."""
    directory = key if not key or key.endswith("/") else f"{key}/"
    if key != directory:
        first = next(client.list_objects(bucket, key), None)
        if first is not None and first.key == key:
            yield first
    yield from client.list_objects(bucket, directory)


def _row(item: kumo_crt.ObjectInfo) -> tuple[str, str, str]:
    size = "prefix" if item.is_prefix else format_bytes(item.size)
    return timestamp(item.last_modified), size, item.key


def _print_page(output: Output, rows: list[tuple[str, str, str]]) -> None:
    """A listing may be endless: it has no header and is aligned to fixed widths."""
    for when, size, key in rows:
        output.result(f"{when:19}  {size:>8}  {printable(key)}")
