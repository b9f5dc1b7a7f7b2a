"""The S3 client that the common options describe."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator

import kumo_crt
from kumo_crt.cli._output import Output
from kumo_crt.cli._units import format_bytes

_log = logging.getLogger("kumo_crt.cli")


@contextlib.contextmanager
def open_client(
    args: argparse.Namespace, output: Output, *, max_connections: int | None = None
) -> Iterator[kumo_crt.S3Client]:
    """Makes a client, and closes it; then it is logged what it did.

    Args:
        args: The command line.
        output: For warnings.
        max_connections: Where a command knows how many it needs.

    Raises:
        ValueError: A setting is out of its range or contradicts another.
    """
    if args.no_verify_tls:
        output.warning("--no-verify-tls: whoever is on the way can read and change everything")
    with kumo_crt.S3Client(
        region=args.region,
        endpoint_url=args.endpoint_url,
        profile=args.profile,
        anonymous=args.anonymous,
        ca_file=args.ca_file,
        verify=not args.no_verify_tls,
        addressing_style=args.addressing_style,
        max_connections=max_connections,
    ) as client:
        try:
            yield client
        finally:
            if _log.isEnabledFor(logging.INFO):
                _log.info("%s", _account_of(client))


def _account_of(client: kumo_crt.S3Client) -> str:
    """What a client sent and received: what is paid for."""
    metrics = client.metrics()
    counts = {
        name: found["succeeded"] + found["failed"] for name, found in metrics["operations"].items()
    }
    sent, received = (
        format_bytes(sum(found[name] for found in metrics["operations"].values()))
        for name in ("bytes_sent", "bytes_received")
    )
    each = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    retries = sum(metrics["retries"].values())
    return (
        f"{sum(counts.values()):,} requests ({each}): {sent} sent, {received} received; "
        f"{retries:,} were repeated"
    )
