"""Where the demo runs: a server of its own, or a place on somebody's; and how it leaves."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kumo_crt
from kumo_crt.cli._client import open_client
from kumo_crt.cli._errors import CommandError, UsageError
from kumo_crt.cli._output import Output
from kumo_crt.cli._seaweed import SeaweedServer, find_weed
from kumo_crt.exceptions import KumoError, S3Error

_LEAVE_ATTEMPTS = 10
_LEAVE_PAUSE = 0.3
_CONNECTION_OPTIONS = ("region", "profile", "ca_file", "no_verify_tls", "anonymous")


@dataclass(frozen=True)
class Site:
    """Where the demo's repository goes.

    Attributes:
        client: Client of the server.
        url: URL of the repository, which does not exist yet.
        server: What to call the server.
        bucket: Bucket of the repository.
        prefix: Prefix of the repository, with a slash at its end.
        seconds: How long it took to get there.
    """

    client: kumo_crt.S3Client
    url: str
    server: str
    bucket: str
    prefix: str
    seconds: float


def is_embedded(args: argparse.Namespace) -> bool:
    """Whether the demo brings its own server.

    Raises:
        UsageError: Options say how to connect, and not where to.
    """
    if args.endpoint_url is not None or args.bucket is not None:
        return False
    given = [name for name in _CONNECTION_OPTIONS if getattr(args, name)]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} needs --endpoint-url or --bucket: "
            "without them the demo runs on a server of its own"
        )
    return True


def planned(args: argparse.Namespace, output: Output) -> str:
    """What a demo would run on, looked at as far as reading goes.

    Raises:
        CommandError: SeaweedFS is not installed.
        KumoError: A bucket that was named cannot be listed.
    """
    if is_embedded(args):
        _weed()
        return "SeaweedFS on this machine"
    if args.bucket is None:
        return f"a new bucket of {args.endpoint_url}"
    with open_client(args, output) as client:
        next(client.list_objects(args.bucket), None)
    return f"s3://{args.bucket}"


def _weed() -> None:
    try:
        find_weed()
    except RuntimeError as error:
        raise CommandError(str(error)) from error


@contextlib.contextmanager
def site(args: argparse.Namespace, output: Output, directory: Path) -> Iterator[Site]:
    """Makes a place for a repository, and removes it at the end."""
    with embedded(directory) if is_embedded(args) else elsewhere(args, output) as found:
        yield found


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[Site]:
    """SeaweedFS on loopback; nothing of the user's AWS settings reaches it.

    Args:
        directory: Where its files go.

    Raises:
        CommandError: SeaweedFS is not installed, or does not start.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_aws_settings())
        _weed()
        try:
            server = stack.enter_context(SeaweedServer(directory=directory))
        except RuntimeError as error:
            raise CommandError(str(error)) from error
        client = stack.enter_context(
            kumo_crt.S3Client(
                region=server.region,
                endpoint_url=server.endpoint_url,
                access_key_id=server.access_key_id,
                secret_access_key=server.secret_access_key,
                addressing_style="path",
            )
        )
        client.create_bucket("kumo-demo")
        name = f"SeaweedFS, an S3 server, on {server.endpoint_url}"
        seconds = time.monotonic() - begun
        yield Site(client, "s3://kumo-demo/demo", name, "kumo-demo", "demo/", seconds)


@contextlib.contextmanager
def _no_aws_settings() -> Iterator[None]:
    """Hides the user's settings while the block runs."""
    ours = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name == "KUMO_ENVIRONMENT"
    }
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def elsewhere(args: argparse.Namespace, output: Output) -> Iterator[Site]:
    """A bucket of our own on the user's service, or a prefix in a bucket that exists."""
    begun = time.monotonic()
    name = f"kumo-demo-{secrets.token_hex(6)}"
    bucket = args.bucket or name
    server = args.endpoint_url or "the S3 service that the AWS settings name"
    with open_client(args, output) as client:
        if args.bucket is None:
            client.create_bucket(bucket)

        def leave() -> None:
            if not args.keep:
                _leave(client, bucket, f"{name}/", with_bucket=args.bucket is None)

        try:
            seconds = time.monotonic() - begun
            url = f"s3://{bucket}/{name}"
            yield Site(client, url, server, bucket, f"{name}/", seconds)
        except BaseException:
            try:
                leave()
            except CommandError as error:
                # What went wrong first is what the user has to know, and what the exit code tells.
                output.warning(str(error))
            raise
        leave()


def _leave(client: kumo_crt.S3Client, bucket: str, prefix: str, *, with_bucket: bool) -> None:
    """Removes what is ours.

    Raises:
        CommandError: Something stays behind.
    """
    for attempt in range(1, _LEAVE_ATTEMPTS + 1):
        try:
            client.delete_objects(
                bucket, [item.key for item in client.list_objects(bucket, prefix)]
            )
            if with_bucket:
                client.delete_bucket(bucket)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return
            # What an interrupted backup had under way can land after the listing.
            if error.code == "BucketNotEmpty" and attempt < _LEAVE_ATTEMPTS:
                time.sleep(_LEAVE_PAUSE)
                continue
            raise _left_behind(bucket, prefix, error) from error
        except KumoError as error:
            raise _left_behind(bucket, prefix, error) from error
        return


def _left_behind(bucket: str, prefix: str, error: KumoError) -> CommandError:
    return CommandError(
        f"what is below s3://{bucket}/{prefix} was not removed, do it yourself: {error}"
    )
