"""Keys of encrypted repositories, and where they come from."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from kumo_crt import _core
from kumo_crt.exceptions import EncryptionKeyError

FILE_VARIABLE = "KUMO_CRT_KEY_FILE"
TEXT_VARIABLE = "KUMO_CRT_KEY"
COMMAND_VARIABLE = "KUMO_CRT_KEY_COMMAND"
_SIZE = 32
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_EXPECTED = "expected 32 bytes, as 64 hexadecimal digits or in base64 (kumo-crt keygen makes one)"
# More than this is no key.
_LONGEST = 1024
_COMMAND_SECONDS = 60.0
_log = logging.getLogger("kumo_crt.backup")


class Key:
    """The key of an encrypted repository: 32 random bytes.

    It never appears in a representation, a log or an error. It can be pickled, which is how
    workers of an executor get it: whoever sees such a pickle has the key.

    Args:
        material: The 32 bytes. A passphrase is none: it would be guessed.

    Attributes:
        warning: What is wrong with the place that it was read from, if anything is.

    Raises:
        ValueError: It is something else.
    """

    __slots__ = ("_native", "warning")

    def __init__(self, material: bytes | bytearray | memoryview) -> None:
        if memoryview(material).nbytes != _SIZE:
            raise ValueError(f"a key has {_SIZE} bytes, not {memoryview(material).nbytes}")
        self._native = _core.SealingKey(material)
        self.warning: str | None = None

    @classmethod
    def generate(cls) -> Key:
        """A new key, from the system's random numbers."""
        return cls(os.urandom(_SIZE))

    @classmethod
    def from_text(cls, text: str) -> Key:
        """Reads 64 hexadecimal digits, or base64.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(text, str):
            raise TypeError(f"a key's text is {type(text).__name__}: it must be str")
        stripped = text.strip()
        if _HEX.fullmatch(stripped):
            return cls(bytes.fromhex(stripped))
        with contextlib.suppress(ValueError):
            material = base64.b64decode(stripped.encode("ascii"), altchars=b"-_", validate=True)
            if len(material) == _SIZE:
                return cls(material)
        raise ValueError(f"this is no key: {_EXPECTED}")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Key:
        """Reads a file that holds a key as text; warns if others may read it.

        Raises:
            EncryptionKeyError: There is none in it.
        """
        try:
            # Not a number: that would be somebody's open file.
            with open(os.fspath(path), "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(_LONGEST + 1)
        except OSError as error:
            raise EncryptionKeyError(f"key file {path}: {error.strerror}") from error
        key = cls._found(content, f"key file {path}")
        if mode & 0o007:
            key.warning = (
                f"key file {path}: every user of this machine may use it (mode "
                f"{mode & 0o777:03o}): chmod 600 it"
            )
            _log.warning("%s", key.warning)
        return key

    @classmethod
    def from_command(cls, command: str | Sequence[str]) -> Key:
        """Runs a program that writes a key to its standard output.

        Args:
            command: Program and arguments; a text is cut as a shell would, but no shell runs it.

        Raises:
            EncryptionKeyError: It failed, or wrote something else.
        """
        import shlex  # rarely needed, and slow to load
        import subprocess

        try:
            words = shlex.split(command) if isinstance(command, str) else list(command)
        except ValueError as error:
            raise EncryptionKeyError(f"key command: cannot be read: {error}") from None
        if not words:
            raise EncryptionKeyError("key command: is empty")
        # Arguments may be secret themselves.
        what = f"key command {words[0]!r}"
        try:
            content, code = _output_of(words)
        except subprocess.TimeoutExpired:
            raise EncryptionKeyError(
                f"{what}: has not ended after {_COMMAND_SECONDS:.0f} s"
            ) from None
        except OSError as error:
            raise EncryptionKeyError(f"{what}: cannot be run: {error.strerror}") from None
        if code:
            how = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            raise EncryptionKeyError(f"{what}: {how}")
        return cls._found(content, what)

    @classmethod
    def from_environment(cls) -> Key | None:
        """The key that the environment names, if it does.

        ``KUMO_CRT_KEY_FILE`` is a file, ``KUMO_CRT_KEY_COMMAND`` a command, ``KUMO_CRT_KEY`` the
        key itself.

        Raises:
            EncryptionKeyError: It cannot be had, or more than one of them is set.
        """
        variables = (FILE_VARIABLE, TEXT_VARIABLE, COMMAND_VARIABLE)
        found = {name: value for name in variables if (value := os.environ.get(name))}
        if len(found) > 1:
            raise EncryptionKeyError(
                f"{' and '.join(found)} are set: which key is meant? Set one of them alone"
            )
        if FILE_VARIABLE in found:
            return cls.from_file(found[FILE_VARIABLE])
        if COMMAND_VARIABLE in found:
            return cls.from_command(found[COMMAND_VARIABLE])
        if TEXT_VARIABLE in found:
            return cls._found(os.fsencode(found[TEXT_VARIABLE]), TEXT_VARIABLE)
        return None

    @classmethod
    def _found(cls, content: bytes, where: str) -> Key:
        try:
            if len(content) <= _LONGEST:
                return cls.from_text(content.decode("ascii"))
        except ValueError:
            pass  # nothing of it may be in a traceback
        raise EncryptionKeyError(f"{where}: holds no key: {_EXPECTED}")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the key to a new file that only its owner may read.

        Raises:
            FileExistsError: There is something already.
        """
        text = base64.b64encode(self._native.material()) + b"\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        directory = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @property
    def id(self) -> str:
        """Tells this key from others, and nothing about what it is: 16 hexadecimal digits."""
        return self._native.header(bytes(16))[8:16].hex()

    def __repr__(self) -> str:
        return f"<kumo_crt.Key {self.id}>"

    def __reduce__(self) -> tuple[type[Key], tuple[bytes]]:
        return Key, (self._native.material(),)


def _output_of(words: list[str]) -> tuple[bytes, int]:
    """Runs a program; what it writes, and its exit code. One that writes too much is ended.

    Raises:
        subprocess.TimeoutExpired: It has not ended.
        OSError: It cannot be run.
    """
    import select  # rarely needed, both of them
    import subprocess

    end = time.monotonic() + _COMMAND_SECONDS
    content = b""
    with subprocess.Popen(  # noqa: S603 - what the operator has configured
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            output = cast(IO[bytes], process.stdout)
            poll = select.poll()
            poll.register(output, select.POLLIN)
            while len(content) <= _LONGEST:
                if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                    raise subprocess.TimeoutExpired(words, _COMMAND_SECONDS)
                part = output.read(_LONGEST)
                if not part:
                    return content, process.wait(max(0.0, end - time.monotonic()))
                content += part
        finally:
            process.kill()  # one that has ended takes no harm
    return content, 0
