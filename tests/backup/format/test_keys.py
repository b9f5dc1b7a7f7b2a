"""Keys of encrypted repositories: where they come from, and that they stay secret."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import stat
import sys
import time
import traceback
from pathlib import Path

import pytest

import kumo_crt
from kumo_crt import EncryptionKeyError, Key
from kumo_crt.backup._format import _key
from tests.crypto import reference

MATERIAL = bytes(range(100, 132))
HEX = MATERIAL.hex()
BASE64 = base64.b64encode(MATERIAL).decode()
# A key as text, but for one character.
NEARLY = HEX[:-1]


def same(key: Key | None) -> bool:
    """Whether it is the key of these tests."""
    assert key is not None
    again = pickle.loads(pickle.dumps(key))
    assert isinstance(again, Key)
    return again._native.material() == MATERIAL


def told(error: BaseException) -> str:
    """Everything that a program may show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    "text", [HEX, HEX.upper(), BASE64, f" {BASE64}\n", base64.urlsafe_b64encode(MATERIAL).decode()]
)
def test_texts(text: str) -> None:
    assert same(Key.from_text(text))


@pytest.mark.parametrize(
    "text",
    ["", "correct horse battery staple", NEARLY, HEX + "00", BASE64[:-1], "ü" * 64, "\0" * 32],
)
def test_texts_that_are_no_keys(text: str) -> None:
    with pytest.raises(ValueError, match="this is no key: expected 32 bytes") as caught:
        Key.from_text(text)
    assert not text or text not in told(caught.value)


def test_bytes() -> None:
    assert same(Key(bytearray(MATERIAL)))
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match=f"a key has 32 bytes, not {size}"):
            Key(bytes(size))
    with pytest.raises(TypeError):
        Key(HEX)  # type: ignore[arg-type]


def test_what_is_no_text_and_no_path(tmp_path: Path) -> None:
    """A number was taken for an open file, which was read and closed."""
    for wrong in (5, None, HEX.encode()):
        with pytest.raises(TypeError, match="a key's text is"):
            Key.from_text(wrong)  # type: ignore[arg-type]
    path = tmp_path / "key"
    path.write_text(HEX)
    with path.open("rb") as file:
        with pytest.raises(TypeError):
            Key.from_file(file.fileno())  # type: ignore[arg-type]
        assert file.read() == HEX.encode()


def test_it_is_never_shown() -> None:
    key = Key(MATERIAL)
    assert key.id == reference.derived(MATERIAL, "kumo-crt 1 id")[:8].hex()
    for text in (repr(key), str(key), f"{key}"):
        assert text == f"<kumo_crt.Key {key.id}>"
    assert HEX not in key.id
    assert not hasattr(key, "__dict__")
    assert Key.generate().id != Key.generate().id


def test_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    previous = os.umask(0)
    try:
        Key(MATERIAL).write(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(Key.from_file(path))
    assert not caplog.records
    with pytest.raises(FileExistsError):
        Key.generate().write(path)
    assert same(Key.from_file(path))
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, "kumo_crt.backup"):
        assert same(Key.from_file(path))
    assert "every user of this machine may use it (mode 644): chmod 600 it" in caplog.text
    assert HEX not in caplog.text
    assert BASE64 not in caplog.text


def test_files_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(EncryptionKeyError, match=r"key file .*missing: No such file"):
        Key.from_file(tmp_path / "missing")
    with pytest.raises(EncryptionKeyError, match="Is a directory"):
        Key.from_file(tmp_path)
    path = tmp_path / "key"
    for content in (NEARLY, "", HEX * 50, "\xff" * 32):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(EncryptionKeyError, match="holds no key: expected 32 bytes") as caught:
            Key.from_file(path)
        assert not content or content not in told(caught.value)


def _printing(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


def test_commands(tmp_path: Path) -> None:
    assert same(Key.from_command(_printing(HEX)))
    script = tmp_path / "a key"
    script.write_text(f"#!/bin/sh\necho {BASE64}\n")
    script.chmod(0o700)
    assert same(Key.from_command(f"'{script}' --secret-argument"))
    with pytest.raises(EncryptionKeyError, match="holds no key") as caught:
        Key.from_command(_printing(NEARLY))
    assert NEARLY not in str(caught.value)
    with pytest.raises(EncryptionKeyError, match="failed with exit code 3"):
        Key.from_command([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(EncryptionKeyError, match="was ended by signal 15"):
        Key.from_command(["sh", "-c", "kill -TERM $$"])
    with pytest.raises(EncryptionKeyError, match="cannot be run: No such file"):
        Key.from_command("/no/such/program")
    for text, what in (("", "is empty"), ("'unclosed", "cannot be read")):
        with pytest.raises(EncryptionKeyError, match=what):
            Key.from_command(text)


def test_a_command_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_key, "_COMMAND_SECONDS", 0.05)
    with pytest.raises(EncryptionKeyError, match="has not ended") as caught:
        Key.from_command(["sleep", "30"])
    assert caught.value.__suppress_context__


def test_a_command_that_writes_without_end() -> None:
    begun = time.monotonic()
    with pytest.raises(EncryptionKeyError, match="key command 'yes': holds no key"):
        Key.from_command("yes")
    assert time.monotonic() - begun < 20  # it would be waited for, and kept in memory


def test_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Key.from_environment() is None
    monkeypatch.setenv("KUMO_CRT_KEY", HEX)
    assert same(Key.from_environment())
    path = tmp_path / "key"
    Key(MATERIAL).write(path)
    monkeypatch.setenv("KUMO_CRT_KEY_FILE", str(path))
    with pytest.raises(EncryptionKeyError, match="KUMO_CRT_KEY_FILE and KUMO_CRT_KEY are set"):
        Key.from_environment()
    monkeypatch.setenv("KUMO_CRT_KEY", "")
    assert same(Key.from_environment())
    monkeypatch.delenv("KUMO_CRT_KEY_FILE")
    monkeypatch.setenv("KUMO_CRT_KEY_COMMAND", f"cat '{path}'")
    assert same(Key.from_environment())
    monkeypatch.delenv("KUMO_CRT_KEY_COMMAND")
    monkeypatch.setenv("KUMO_CRT_KEY", NEARLY)
    with pytest.raises(EncryptionKeyError, match="KUMO_CRT_KEY: holds no key") as caught:
        Key.from_environment()
    assert NEARLY not in told(caught.value)


def test_only_a_key_is_taken_for_one() -> None:
    with pytest.raises(TypeError, match="expected a kumo_crt"):
        kumo_crt.Repository("s3://bucket/prefix", encryption_key=MATERIAL)  # type: ignore[arg-type]
