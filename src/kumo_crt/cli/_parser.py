"""The command line's grammar."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from kumo_crt._config import ADDRESSING_STYLES
from kumo_crt.cli import _export, _keeping, _keys, _options
from kumo_crt.cli import _units as units
from kumo_crt.cli._errors import UsageError
from kumo_crt.cli._options import access as _access
from kumo_crt.cli._options import budget as _budget
from kumo_crt.cli._options import concurrency as _concurrency
from kumo_crt.cli._options import dry_run as _dry_run
from kumo_crt.cli._options import no_record as _no_record
from kumo_crt.cli._options import snapshot as _snapshot
from kumo_crt.cli._options import url as _url

SHELLS = ("bash", "zsh", "fish")
LEVELS = ("quick", "stored", "full", "restore")

_EPILOG = """\
environment variables:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE
                              credentials; else the AWS default chain
  AWS_REGION, AWS_DEFAULT_REGION                          see --region
  AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL                   see --endpoint-url
  AWS_CA_BUNDLE                                           see --ca-file
  AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE            AWS config files
  AWS_MAX_ATTEMPTS, KUMO_CRT_MAX_ATTEMPTS                 tries of a request
  KUMO_CRT_PART_SIZE, KUMO_CRT_MULTIPART_THRESHOLD, KUMO_CRT_MEMORY_LIMIT
                              bytes
  KUMO_CRT_MAX_CONNECTIONS, KUMO_CRT_EVENT_LOOPS          parallelism
  KUMO_CRT_CONNECT_TIMEOUT, KUMO_CRT_REQUEST_TIMEOUT      seconds
  KUMO_CRT_MAX_BYTES_PER_SECOND, KUMO_CRT_MAX_REQUESTS_PER_SECOND
                              for all that a command does to a repository
  KUMO_CRT_BUNDLE_BELOW, KUMO_CRT_BUNDLE_SIZE
                              bytes: which small files are stored together
  KUMO_ENVIRONMENT                                        see --environment
  KUMO_CRT_KEY_FILE, KUMO_CRT_KEY_COMMAND, or KUMO_CRT_KEY: the key itself
                              of an encrypted repository; see keygen
An option wins over its variable, which wins over the AWS config file.

exit codes:
  0 done   1 failed   2 usage   3 done, with problems found
  10 no such repository or snapshot   11 locked
  12 credentials, permission or key   130 interrupted   143 terminated
"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the process, so that ``--json`` holds for usage errors too."""

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
        choices=ADDRESSING_STYLES,
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


def _care(command: Callable[..., _Parser]) -> None:
    """Commands that look after what is stored."""
    snapshots = command(
        "snapshots",
        "list the snapshots of a repository, newest last",
        "List the snapshots of a repository, newest last: age, size, what was new, and since when "
        "every byte has been verified",
    )
    _url(snapshots)
    snapshots.add_argument(
        "--max-age",
        type=units.duration,
        metavar="TIME",
        help="exit with 3 if the newest is older, such as 26h",
    )
    _access(snapshots)

    verify = command(
        "verify",
        "check that a snapshot can be restored",
        "Check a snapshot, or all. quick: every object is there with its size; stored: also the "
        "checksums that S3 stores; full: every byte is read; restore: see drill. What was read in "
        "full is remembered in the repository",
    )
    _url(verify)
    verify.add_argument(
        "--snapshot", metavar="ID", default="latest", help="or all; default: latest"
    )
    verify.add_argument("--level", choices=LEVELS, default="stored", help="default: stored")
    verify.add_argument(
        "--subset",
        metavar="N/T",
        help="with full: the n-th of t parts; oldest/T: a t-th, what was not read for longest",
    )
    verify.add_argument(
        "--max-bytes",
        type=units.size,
        metavar="SIZE",
        help="with full: no more than this, what was not read for longest first",
    )
    verify.add_argument(
        "--request-thaw",
        type=units.positive,
        metavar="DAYS",
        help="ask for readable copies of archived objects instead, if there are any (exit code 3)",
    )
    _no_record(verify)
    _budget(verify)
    _concurrency(verify)
    _access(verify)

    doctor = command(
        "doctor",
        "look a repository over, and say what to do",
        "Look at connection, clock, bucket, permissions (tried one by one with scratch objects), "
        "throughput and contents of a repository. Exits with 3 if something is wrong",
    )
    _url(doctor)
    doctor.add_argument("--read-only", action="store_true", help="write nothing, not even scratch")
    doctor.add_argument("--strict", action="store_true", help="exit with 3 for warnings too")
    _access(doctor)

    repair = command(
        "repair",
        "bring back damaged objects from a database that still has the files",
        "Look for damaged and missing objects, and send them again from databases, checkpoints or "
        "restored copies that still have the files. What is replaced is kept under quarantine/. "
        "Exits with 3 if something is left",
    )
    _url(repair)
    repair.add_argument("source", metavar="DB", nargs="+", help="directory with files")
    repair.add_argument(
        "--snapshot", metavar="ID", default="all", help="where to look; default: all"
    )
    repair.add_argument(
        "--level",
        choices=LEVELS[:3],
        default="stored",
        help="how to look for damage, as in verify; default: stored",
    )
    _budget(repair)
    _concurrency(repair)
    _access(repair)
    _dry_run(repair)

    drill = command(
        "drill",
        "prove that a snapshot can be restored, and measure how long it takes",
        "Restore a snapshot to a scratch directory, open it, read every entry, compare what can be "
        "compared, and remove it again. Exits with 3 if something is wrong or a limit is passed",
    )
    _url(drill)
    _snapshot(drill)
    drill.add_argument(
        "--scratch", metavar="DIR", help="with room for the database; default: temporary files"
    )
    drill.add_argument(
        "--max-rto", type=units.duration, metavar="TIME", help="recovery may take no longer"
    )
    drill.add_argument(
        "--max-age", type=units.duration, metavar="TIME", help="the snapshot may be no older"
    )
    _no_record(drill)
    _budget(drill)
    _concurrency(drill)
    _access(drill)


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

    def command(name: str, summary: str, description: str = "") -> _Parser:
        return commands.add_parser(
            name,
            help=summary,
            description=(description or summary[0].upper() + summary[1:]) + ".",
            epilog="Environment variables and exit codes: kumo-crt --help",
            parents=[common],
            allow_abbrev=False,
        )

    backup = command(
        "backup",
        "back up a database",
        "Back up a database, which another process may have open and write to, or a checkpoint "
        "directory. Only what the repository does not have yet is sent",
    )
    backup.add_argument("db", metavar="DB", help="directory of the database")
    backup.add_argument("url", metavar="URL", type=units.repository_url, help="s3://bucket/prefix")
    backup.add_argument(
        "--create",
        action="store_true",
        help="create the repository if needed; with a key it is encrypted",
    )
    backup.add_argument(
        "--storage-class", metavar="CLASS", help="with --create: of data, such as STANDARD_IA"
    )
    backup.add_argument(
        "--sse", metavar="KIND", help="with --create: encryption to ask for, such as aws:kms"
    )
    backup.add_argument("--kms-key-id", metavar="KEY", help="with --create and --sse aws:kms")
    backup.add_argument(
        "--tag",
        type=units.tag,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keep this with the snapshot; may be repeated",
    )
    _options.data_path(backup)
    backup.add_argument(
        "--compact-first",
        action="store_true",
        help="compact the database before, with rocksdict; it must be closed",
    )
    backup.add_argument(
        "--single-object",
        action="store_true",
        help="send everything, as one object: a tar that also unpacks without kumo-crt",
    )
    _budget(backup)
    _concurrency(backup)
    _access(backup)
    _dry_run(backup)

    restore = command("restore", "restore a snapshot into a directory")
    restore.add_argument("url", metavar="URL", type=units.repository_url, help="s3://bucket/prefix")
    restore.add_argument("target", metavar="TARGET", help="directory; new or empty")
    _snapshot(restore)
    restore.add_argument(
        "--overwrite", action="store_true", help="replace a database that is in TARGET"
    )
    restore.add_argument(
        "--delta",
        action="store_true",
        help="replace a copy of the same database, and keep the files that are the same",
    )
    restore.add_argument(
        "--column-family",
        action="append",
        metavar="NAME",
        help="restore only this one; may be repeated",
    )
    restore.add_argument(
        "--at", metavar="TIME|SEQ", help="a point in time; needs a replicator's logs"
    )
    restore.add_argument(
        "--request-thaw",
        type=units.positive,
        metavar="DAYS",
        help="ask for readable copies of archived objects instead, if there are any (exit code 3)",
    )
    _budget(restore)
    _concurrency(restore)
    _access(restore)
    _dry_run(restore)

    _care(command)
    _keeping.add_commands(command)
    _export.add_commands(command)
    _keys.add_commands(command)

    put = command("put", "store a file as an object")
    put.add_argument("file", metavar="FILE", help="- reads standard input")
    put.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    _dry_run(put)

    get = command("get", "read an object into a file")
    get.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    get.add_argument("file", metavar="FILE", help="- writes to standard output")
    _dry_run(get)

    listing = command("ls", "list objects")
    listing.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/prefix")
    listing.add_argument(
        "-r", "--recursive", action="store_true", help="all keys, not one level of them"
    )

    remove = command("rm", "delete an object")
    remove.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/key")
    remove.add_argument(
        "-r", "--recursive", action="store_true", help="what is below the key, as a path, too"
    )
    _dry_run(remove)

    demo = command(
        "demo",
        "watch a live database being backed up, destroyed, restored and compared",
        "Make a database, back it up to a real S3 server while it is written to, destroy it, "
        "restore it and compare every key. Needs no configuration: without --endpoint-url the "
        "server is SeaweedFS on this machine. Everything is removed at the end",
    )
    demo.add_argument("--size", type=units.size, default=units.size("300MB"), help="default: 300MB")
    demo.add_argument(
        "--bucket", help="with --endpoint-url: an existing bucket to use (default: make one)"
    )
    demo.add_argument("--keep", action="store_true", help="keep the restored database")

    bench = command(
        "bench",
        "measure what an endpoint gives from here",
        "Upload and download a large object, put and get small ones, and tell throughput and "
        "latency. Works under a new prefix of URL, and removes everything at the end",
    )
    bench.add_argument("url", metavar="URL", type=units.s3_url, help="s3://bucket/prefix")
    bench.add_argument(
        "--size",
        type=units.size,
        default=units.size("100MB"),
        help="of the large object, which is in memory twice; default: 100MB",
    )
    bench.add_argument(
        "--rounds", type=units.positive, default=3, metavar="N", help="of it; default: 3"
    )
    bench.add_argument(
        "--objects", type=units.positive, default=1000, metavar="N", help="default: 1000"
    )
    bench.add_argument(
        "--object-size", type=units.size, default=4096, metavar="SIZE", help="default: 4096"
    )
    bench.add_argument(
        "--concurrency",
        type=units.positive,
        default=16,
        metavar="N",
        help="small requests at once; default: 16",
    )
    _dry_run(bench)

    completing = command(
        "completion",
        "write a script that lets a shell complete command lines",
        "Write a script that lets a shell complete commands and options; its first line says where "
        "it goes",
    )
    completing.add_argument(
        "shell", metavar="SHELL", nargs="?", choices=SHELLS, help=f"{', '.join(SHELLS)} (SHELL)"
    )
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads a command line.

    Raises:
        UsageError: It is not one of ours.
    """
    parser = build()
    namespace = argparse.Namespace(**COMMON_DEFAULTS)
    parser.parse_args(arguments, namespace)
    if namespace.command is None and not namespace.version:
        parser.error("which command?")
    return namespace
