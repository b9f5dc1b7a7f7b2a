"""Keys of encrypted repositories: where a command has them from, and how to make one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import kumo_crt
from kumo_crt.cli import _errors as errors
from kumo_crt.cli._errors import CommandError
from kumo_crt.cli._output import Output, printable


def key_of(args: argparse.Namespace, output: Output) -> kumo_crt.Key | None:
    """The key that a command line, or the environment, names.

    Raises:
        EncryptionKeyError: It cannot be had.
    """
    if args.key_file is not None:
        key: kumo_crt.Key | None = kumo_crt.Key.from_file(args.key_file)
    elif args.key_command is not None:
        key = kumo_crt.Key.from_command(args.key_command)
    else:
        key = kumo_crt.Key.from_environment()
    if key is not None and key.warning is not None:
        output.warning(key.warning)
    return key


def keygen(args: argparse.Namespace, output: Output) -> int:
    """Makes a key."""
    path = Path(args.file)
    if not path.absolute().parent.is_dir():
        raise CommandError(f"{path.absolute().parent}: no such directory: create it first")
    key = kumo_crt.Key.generate()
    try:
        if not args.dry_run:
            key.write(path)
        elif os.path.lexists(path):
            raise FileExistsError
    except FileExistsError:
        raise CommandError(
            f"{args.file}: exists already, and a key is never overwritten: choose another name"
        ) from None
    if args.dry_run:
        output.document({"file": args.file, "key_id": None, "dry_run": True})
        output.message(f"dry run: would make a key in {printable(args.file)}")
        return errors.DONE
    output.document({"file": args.file, "key_id": key.id, "dry_run": False})
    output.message(
        f"made the key {key.id} in {printable(args.file)}: keep a copy apart from the backups, as "
        "nothing can be restored without it"
    )
    return errors.DONE
