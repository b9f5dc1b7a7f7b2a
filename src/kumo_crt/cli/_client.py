"""The S3 client that the common options describe."""

from __future__ import annotations

import argparse

import kumo_crt
from kumo_crt.cli._output import Output


def open_client(
    args: argparse.Namespace, output: Output, *, max_connections: int | None = None
) -> kumo_crt.S3Client:
    """Makes a client; the caller closes it.

    Args:
        args: The command line.
        output: For warnings.
        max_connections: Where a command knows how many it needs.

    Raises:
        ValueError: A setting is out of its range or contradicts another.
    """
    if args.no_verify_tls:
        output.warning("--no-verify-tls: whoever is on the way can read and change everything")
    return kumo_crt.S3Client(
        region=args.region,
        endpoint_url=args.endpoint_url,
        profile=args.profile,
        anonymous=args.anonymous,
        ca_file=args.ca_file,
        verify=not args.no_verify_tls,
        addressing_style=args.addressing_style,
        max_connections=max_connections,
    )
