"""The names that other people's programs and scripts rely on: none may go, move or change.

What is promised here is only ever added to; the product may have more.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
from collections.abc import Mapping

import pytest

import kumo_crt
from kumo_crt import event_stream
from kumo_crt.cli import _errors, _grammar, _main

# Names, in order where they go by position, and defaults; `...` is one that was left open.
CLIENT = {
    "__init__": "region=None, endpoint_url=None, *, access_key_id=None, secret_access_key=None, "
    "session_token=None, profile=None, anonymous=False, ca_file=None, verify=True, "
    "addressing_style='auto', part_size=None, multipart_threshold=None, max_connections=None, "
    "memory_limit=None, event_loops=None, max_attempts=..., connect_timeout=..., "
    "request_timeout=...",
    "put_object": "bucket, key, body, *, checksum='CRC32C', if_none_match=None, if_match=None, "
    "metadata=None, content_type=None, storage_class=None, tags=None, sse=None, kms_key_id=None, "
    "progress=None",
    "get_object": "bucket, key, *, into=None, range=None, if_match=None, version_id=None, "
    "progress=None",
    "head_object": "bucket, key",
    "delete_object": "bucket, key",
    "delete_objects": "bucket, keys",
    "copy_object": "src_bucket, src_key, bucket, key",
    "list_objects": "bucket, prefix='', delimiter=None, start_after=None",
    "list_object_versions": "bucket",
    "list_multipart_uploads": "bucket",
    "abort_multipart_upload": "bucket, key, upload_id",
    "create_bucket": "bucket",
    "get_bucket_versioning": "bucket",
    "put_bucket_versioning": "bucket, status",
    "metrics": "",
    "close": "",
}
REPOSITORY = {
    "__init__": "url, *, client=None, environment=None",
    "create": "url, *, client=None, environment=None",
    "open": "url, *, client=None, environment=None",
    "backup": "source, *, tags=None, progress=None, max_bytes_per_second=None, "
    "max_concurrency=None",
    "snapshots": "",
    "snapshot": "snapshot_id='latest'",
    "restore": "target, snapshot='latest', *, at=None, progress=None, delta=False, "
    "overwrite=False, max_concurrency=None",
    "verify": "snapshot='latest', *, level='stored', subset=None, executor=None",
    "prune": "*, keep_last=None, keep_within=None, keep_hourly=None, keep_daily=None, "
    "keep_weekly=None, keep_monthly=None, dry_run=False",
    "delete_snapshot": "snapshot_id",
    "pin": "snapshot_id",
    "unpin": "snapshot_id",
}
FIELDS = {
    "PutResult": "etag version_id checksum_crc32c size",
    "GetResult": "body size etag version_id checksum_crc32c last_modified metadata",
    "ObjectInfo": "key size etag last_modified",
    "Snapshot": "id created_at db_id files total_bytes uploaded_bytes reused_bytes sequence_number",
    "VerifyReport": "ok problems",
}
# Every error, and what it can be caught as.
ERRORS = {
    "KumoError": (Exception,),
    "S3Error": (kumo_crt.KumoError,),
    "NotFoundError": (kumo_crt.S3Error, FileNotFoundError),
    "AccessDeniedError": (kumo_crt.S3Error, PermissionError),
    "PreconditionFailedError": (kumo_crt.S3Error,),
    "ThrottledError": (kumo_crt.S3Error,),
    "ChecksumMismatchError": (kumo_crt.KumoError,),
    "TransportError": (kumo_crt.KumoError, ConnectionError),
    "CredentialsError": (kumo_crt.KumoError,),
    "RepositoryError": (kumo_crt.KumoError,),
    "SnapshotNotFoundError": (kumo_crt.RepositoryError,),
    "IntegrityError": (kumo_crt.RepositoryError,),
    "RepositoryLockedError": (kumo_crt.RepositoryError,),
    "FormatError": (kumo_crt.RepositoryError,),
}
_KEEP = "--keep-last 1 --keep-within 1d --keep-hourly 1 --keep-daily 1 --keep-weekly 1"
_ALIKE = "--json --endpoint-url http://h --region r --profile p --ca-file f --quiet --verbose"
LINES = [
    "backup db s3://b/p --dry-run",
    "restore s3://b/p target --snapshot id --at 2026-11-23T06:00:00Z --dry-run",
    "snapshots s3://b/p --max-age 26h",
    *(f"verify s3://b/p --level {level} --subset 1/7" for level in _grammar._care.LEVELS),
    f"prune s3://b/p {_KEEP} --keep-monthly 1 --dry-run",
    "drill s3://b/p",
    "put file s3://b/k --dry-run",
    "get s3://b/k file --dry-run",
    "ls s3://b/p",
    "rm s3://b/k --dry-run",
    "demo",
    "doctor s3://b/p",
    "bench s3://b/p --dry-run",
    "completion bash",
]
EXIT_CODES = {
    "DONE": 0,
    "FAILED": 1,
    "USAGE": 2,
    "DAMAGED": 3,
    "NOT_FOUND": 10,
    "LOCKED": 11,
    "DENIED": 12,
    "INTERRUPTED": 130,
}


def _promised(text: str) -> tuple[list[str], Mapping[str, object]]:
    """What goes by position, and all defaults that are promised."""
    function = ast.parse(f"def f({text}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    by_position = [argument.arg for argument in given.args]
    named = by_position[len(by_position) - len(given.defaults) :]
    named += [argument.arg for argument in given.kwonlyargs]
    defaults = [ast.literal_eval(d) for d in (*given.defaults, *given.kw_defaults) if d is not None]
    return by_position, dict(zip(named, defaults, strict=True))


@pytest.mark.parametrize(
    ("owner", "method", "text"),
    [
        *((kumo_crt.S3Client, *item) for item in CLIENT.items()),
        *((kumo_crt.AsyncS3Client, *item) for item in CLIENT.items()),
        *((kumo_crt.Repository, *item) for item in REPOSITORY.items()),
    ],
)
def test_signatures(owner: type, method: str, text: str) -> None:
    found = dict(inspect.signature(getattr(owner, method)).parameters)
    found.pop("self", None)
    by_position, defaults = _promised(text)
    assert list(found)[: len(by_position)] == by_position
    assert all(found[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in by_position)
    for name, default in defaults.items():
        assert default is ... or found[name].default == default, name
    needed = [name for name, p in found.items() if p.default is inspect.Parameter.empty]
    assert needed == [name for name in by_position if name not in defaults]


def test_results() -> None:
    for name, fields in FIELDS.items():
        there = {field.name for field in dataclasses.fields(getattr(kumo_crt, name))}
        assert set(fields.split()) <= there


def test_errors() -> None:
    for name, bases in ERRORS.items():
        assert issubclass(getattr(kumo_crt, name), bases[0])
        assert issubclass(getattr(kumo_crt, name), bases[-1])
        assert getattr(kumo_crt.exceptions, name) is getattr(kumo_crt, name)
    error = kumo_crt.S3Error("Code", 400, "message", "id")
    shown = (error.code, error.status, error.message, error.request_id)
    assert shown == ("Code", 400, "message", "id")


def test_functions() -> None:
    assert kumo_crt.crc32c(data=b"56789", value=kumo_crt.crc32c(b"1234")) == 0xE3069283
    assert kumo_crt.crc32(b"123456789", 0) == 0xCBF43926
    assert kumo_crt.crc64nvme(b"123456789") == 0xAE8B14860A799888
    for name in ("crc32", "crc32c", "crc64nvme"):
        crc, combine = getattr(kumo_crt, name), getattr(kumo_crt, f"{name}_combine")
        assert combine(a=crc(b"ab"), b=crc(b"c"), len_b=1) == crc(b"abc")
    assert {"libraries", "source", "features", "cpu_features"} <= set(kumo_crt.build_info())
    (message,) = event_stream.Decoder().feed(event_stream.encode({"n": 1}, b"payload"))
    assert (message.headers, message.payload) == ({"n": 1}, b"payload")
    assert issubclass(event_stream.DecodeError, kumo_crt.KumoError)


@pytest.mark.parametrize("line", LINES)
def test_command_lines(line: str) -> None:
    words, alike = line.split(), _ALIKE.split()
    before, after = _grammar.parse(alike + words), _grammar.parse(words + alike)
    assert isinstance(before, argparse.Namespace)
    assert vars(before) == vars(after)
    assert before.command == words[0]
    assert before.command in _main._COMMANDS


def test_exit_codes() -> None:
    for name, number in EXIT_CODES.items():
        assert getattr(_errors, name) == number
        assert f"{number} " in _grammar._EPILOG
