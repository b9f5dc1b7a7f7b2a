"""Options that several commands have."""

from __future__ import annotations

import argparse

from kumo_crt.cli import _units as units


def environment(parser: argparse.ArgumentParser) -> None:
    """``--environment``: what a client may write to."""
    parser.add_argument(
        "--environment",
        metavar="NAME",
        help="refuse to write to a repository of another environment; all may read it "
        "(KUMO_ENVIRONMENT)",
    )


def access(parser: argparse.ArgumentParser) -> None:
    """Who a client of a repository is: ``--environment``, and the key of an encrypted one."""
    environment(parser)
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--key-file", metavar="FILE", help="key of an encrypted repository (KUMO_CRT_KEY_FILE)"
    )
    key.add_argument(
        "--key-command",
        metavar="COMMAND",
        help="a command that writes it to its standard output (KUMO_CRT_KEY_COMMAND)",
    )


def terms(parser: argparse.ArgumentParser, goes_with: str = "") -> None:
    """How a repository's objects are stored: said once, when its configuration is written."""
    when = f"with {goes_with}: " if goes_with else ""
    parser.add_argument(
        "--storage-class", metavar="CLASS", help=f"{when}of data, such as STANDARD_IA"
    )
    parser.add_argument(
        "--sse", metavar="KIND", help=f"{when}encryption to ask for, such as aws:kms"
    )
    parser.add_argument(
        "--kms-key-id",
        metavar="KEY",
        help="with " + (f"{goes_with} and " if goes_with else "") + "--sse aws:kms",
    )


def dry_run(
    parser: argparse.ArgumentParser, what: str = "tell what would be done; write nothing"
) -> None:
    """``--dry-run``."""
    parser.add_argument("-n", "--dry-run", action="store_true", help=what)


def url(parser: argparse.ArgumentParser) -> None:
    """The address of a repository."""
    parser.add_argument("url", metavar="URL", type=units.repository_url, help="s3://bucket/prefix")


def no_record(parser: argparse.ArgumentParser) -> None:
    """``--no-record``."""
    parser.add_argument(
        "--no-record", action="store_true", help="do not write to the repository what was read"
    )


def snapshot(parser: argparse.ArgumentParser) -> None:
    """``--snapshot``: one of a repository."""
    parser.add_argument("--snapshot", metavar="ID", default="latest", help="default: latest")


def budget(parser: argparse.ArgumentParser) -> None:
    """Limits for all that a command sends and receives."""
    parser.add_argument(
        "--max-bytes-per-second",
        type=units.size,
        metavar="SIZE",
        help="to send and receive, such as 50MB or 50MiB",
    )
    parser.add_argument(
        "--max-requests-per-second", type=units.positive, metavar="N", help="to send"
    )


def data_path(parser: argparse.ArgumentParser) -> None:
    """``--data-path``: where else a database has files."""
    parser.add_argument(
        "--data-path",
        action="append",
        default=[],
        metavar="DIR",
        help="a further directory of the database (db_paths, cf_paths); may be repeated",
    )


def concurrency(parser: argparse.ArgumentParser) -> None:
    """``--max-concurrency``."""
    parser.add_argument(
        "--max-concurrency", type=units.positive, metavar="N", help="files under way at once"
    )


def request_thaw(parser: argparse.ArgumentParser) -> None:
    """``--request-thaw``."""
    parser.add_argument(
        "--request-thaw",
        type=units.positive,
        metavar="DAYS",
        help="ask for readable copies of archived objects instead, if there are any (exit code 3)",
    )
