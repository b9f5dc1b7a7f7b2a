"""From the command line to an exit code."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Callable

import kumo_crt
from kumo_crt.cli import _errors, _grammar, _signals
from kumo_crt.cli._errors import CommandError, OutputClosedError
from kumo_crt.cli._output import Output, abandon_stdout, reserve_streams, to_stderr

# Where the function of a command is. It is loaded when called for: what all of them need takes
# longer to load than a backup of an unchanged database takes.
_COMMANDS = {
    "backup": "_repository:backup",
    "restore": "_repository:restore",
    "snapshots": "_care:snapshots",
    "verify": "_care:verify",
    "repair": "_care:repair",
    "repair-config": "_care:repair_config",
    "doctor": "_care:doctor",
    "drill": "_care:drill",
    "prune": "_keeping:prune",
    "pin": "_keeping:pin",
    "unpin": "_keeping:unpin",
    "forget": "_keeping:forget",
    "delete-snapshot": "_keeping:forget",
    "export": "_export:run_export",
    "import": "_export:run_import",
    "put": "_objects:put",
    "get": "_objects:get",
    "ls": "_objects:ls",
    "rm": "_objects:rm",
    "keygen": "_keys:keygen",
    "demo": "_demo:demo",
    "bench": "_bench:bench",
    "completion": "_completion:completion",
}
_Command = Callable[[argparse.Namespace, Output], int]


def _command(name: str) -> _Command:
    module, _, function = _COMMANDS[name].partition(":")
    found: _Command = getattr(importlib.import_module(f"kumo_crt.cli.{module}"), function)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line without the program's name; the process's own by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    reserve_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Until the command line is understood, an error has to be told in the right form as well.
    output = Output(as_json="--json" in words)
    command: str | None = None
    handler: logging.Handler | None = None
    try:
        with _signals.handled():
            try:
                args = _grammar.parse(words)
                command = args.command
                output = Output(as_json=args.json, quiet=args.quiet, verbose=args.verbose)
                handler = _log(args.verbose)
                code = _version(output) if args.version else _command(args.command)(args, output)
                output.flush()
                return code
            except BaseException as error:
                return _failed(error, command, output)
    finally:
        if handler is not None:
            logging.getLogger("kumo_crt").removeHandler(handler)


def _version(output: Output) -> int:
    output.document(kumo_crt.build_info() if output.as_json else {})
    output.result(f"kumo-crt {kumo_crt.__version__}")
    return _errors.DONE


def _failed(error: BaseException, command: str | None, output: Output) -> int:
    """Tells of an error and returns its exit code."""
    if isinstance(error, SystemExit):  # argparse's --help
        return _help_shown(error, output)
    if isinstance(error, GeneratorExit):
        raise error
    if isinstance(error, OutputClosedError):
        # `kumo-crt ls … | head` is no reason for a message.
        abandon_stdout()
        return _errors.FAILED
    if output.verbose > 1:
        to_stderr("".join(traceback.format_exception(error)))
    code = _errors.exit_code(error, command)
    message = _errors.describe(error)
    to_stderr(f"kumo-crt: {'' if isinstance(error, KeyboardInterrupt) else 'error: '}{message}")
    kind = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    document = {"error": {"type": kind, "message": message, "exit_code": code}}
    if isinstance(error, CommandError) and error.document:
        document = {**error.document, **document}
    try:
        output.document(document)
        output.flush()
    except (OutputClosedError, OSError, ValueError):
        abandon_stdout()
    return code


def _help_shown(error: SystemExit, output: Output) -> int:
    try:
        output.flush()
    except (OutputClosedError, OSError):
        abandon_stdout()
        return _errors.FAILED
    return error.code if isinstance(error.code, int) else _errors.FAILED


def _log(verbose: int) -> logging.Handler | None:
    """Sends the library's log to standard error."""
    if not verbose:
        return None
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("kumo_crt")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    if verbose > 1:
        logging.getLogger("kumo_crt.crt").setLevel(logging.DEBUG)
    return handler
