"""The command line's grammar: a module a group of commands, without what the commands do."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from kumo_crt.cli import _units as units
from kumo_crt.cli._errors import UsageError
from kumo_crt.cli._grammar import _care, _export, _keeping, _objects, _tools, _transfer

_EPILOG = """\
environment variables:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE
                              credentials; else the AWS default chain
  AWS_REGION, AWS_DEFAULT_REGION                          see --region
  AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL                   see --endpoint-url
  AWS_IGNORE_CONFIGURED_ENDPOINT_URLS                     true: not from there
  AWS_CA_BUNDLE                                           see --ca-file
  AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE            AWS config files
  AWS_MAX_ATTEMPTS, KUMO_CRT_MAX_ATTEMPTS                 tries of a request
  KUMO_CRT_PART_SIZE, KUMO_CRT_MULTIPART_THRESHOLD, KUMO_CRT_MEMORY_LIMIT
                              sizes: 16MiB, 16MB or bytes
  KUMO_CRT_MAX_CONNECTIONS, KUMO_CRT_EVENT_LOOPS          parallelism
  KUMO_CRT_CONNECT_TIMEOUT, KUMO_CRT_REQUEST_TIMEOUT, KUMO_CRT_DEADLINE
                              seconds
  KUMO_CRT_CHECKSUM_TRAILERS  0: checksums of large bodies before, not behind
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY            proxies
  KUMO_CRT_MAX_BYTES_PER_SECOND, KUMO_CRT_MAX_REQUESTS_PER_SECOND
                              for all that a command does to a repository:
                              a size (50MB), a number
  KUMO_CRT_BUNDLE_BELOW, KUMO_CRT_BUNDLE_SIZE
                              sizes: which small files are stored together
  KUMO_ENVIRONMENT                                        see --environment
  KUMO_CRT_KEY_FILE, KUMO_CRT_KEY_COMMAND, or KUMO_CRT_KEY: the key itself
                              of an encrypted repository; see keygen
An option wins over its variable, which wins over the AWS config file.

exit codes:
  0 done   1 failed   2 usage   3 done, with problems found
  10 no such repository, snapshot or export   11 locked
  12 credentials, permission or key   130 interrupted   129, 143 terminated
"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the process, so that ``--json`` holds for usage errors too."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Without it, a directory whose variable is not set is the one of the process, and an
        # endpoint or a key is none.
        self.register("type", None, units.given)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _common() -> _Parser:
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="one JSON document on standard output, nothing else"
    )
    output.add_argument("-q", "--quiet", action="store_true", help="only what was asked for")
    output.add_argument(
        "-v",
        "--verbose",
        action="count",
        help="log to standard error; -vv also debug lines of the AWS runtime, and tracebacks",
    )
    connection = parser.add_argument_group("connection")
    connection.add_argument("--endpoint-url", metavar="URL", help="of a service other than AWS")
    connection.add_argument("--region", help="region to sign for")
    connection.add_argument("--profile", help="profile of the AWS config files")
    connection.add_argument("--ca-file", metavar="PEM", help="CAs to trust, not the system's")
    connection.add_argument(
        "--no-verify-tls", action="store_true", help="accept any certificate: for tests only"
    )
    connection.add_argument("--anonymous", action="store_true", help="do not sign requests")
    connection.add_argument(
        "--addressing-style",
        choices=("auto", "path", "virtual"),  # `_config` takes long to load
        help="bucket in the path or in the host name (auto: virtual on AWS, path elsewhere)",
    )
    return parser


# `_common` leaves out what was not given, so that an option may stand before the command as well.
COMMON_DEFAULTS = {
    "json": False,
    "quiet": False,
    "verbose": 0,
    "endpoint_url": None,
    "region": None,
    "profile": None,
    "ca_file": None,
    "no_verify_tls": False,
    "anonymous": False,
    "addressing_style": "auto",
}

# Arguments of which there may be several.
_SEVERAL = {
    "repair": "source",
    **dict.fromkeys(("pin", "unpin", "forget", "delete-snapshot"), "snapshot"),
}


def build() -> _Parser:
    """Makes the parser."""
    common = _common()
    parser = _Parser(
        prog="kumo-crt",
        description="Back up RocksDB databases to S3 and restore them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="store_true", help="show the version (with --json: the build) and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.type = str  # it takes the rest of the line, too, of which each command says more

    def command(name: str, summary: str, description: str = "") -> _Parser:
        return commands.add_parser(
            name,
            help=summary,
            description=(description or summary[0].upper() + summary[1:]) + ".",
            epilog="Environment variables and exit codes: kumo-crt --help",
            parents=[common],
            allow_abbrev=False,
        )

    for group in (_transfer, _care, _keeping, _export, _objects, _tools):
        group.add_commands(command)
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads a command line.

    Raises:
        UsageError: It is not one of ours.
    """
    parser = build()
    namespace = argparse.Namespace(**COMMON_DEFAULTS)
    unknown = parser.parse_known_args(arguments, namespace)[1]
    several = _SEVERAL.get(namespace.command)
    if several is not None and not any(word.startswith("-") for word in unknown):
        # For argparse "URL [DB ...]" ends at the first option, be there a DB before it or not.
        getattr(namespace, several).extend(unknown)
    elif unknown:
        # argparse itself would name the help of kumo-crt, where the command's options are not.
        where = f"{parser.prog} {namespace.command or ''}".rstrip()
        raise UsageError(f"not understood: {' '.join(unknown)} (see {where} --help)")
    if namespace.command is None and not namespace.version:
        parser.error("which command?")
    return namespace
