"""keygen, and commands on encrypted repositories."""

from __future__ import annotations

import base64
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kumo_crt.cli import main
from tests.cli.conftest import Run
from tests.support import databases

pytestmark = pytest.mark.servers("seaweed-http")


_PLANNED = {"key_id": None, "dry_run": True}


@pytest.fixture
def key_file(kumo: Run, tmp_path: Path) -> Path:
    """A key that keygen has made."""
    path = tmp_path / "users.key"
    made = kumo("keygen", path)
    assert made.code == 0, made.err
    return path


def test_keygen(kumo: Run, tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = kumo("keygen", path, "--json")
    text = path.read_text()
    document = {"file": str(path), "key_id": made.document["key_id"], "dry_run": False}
    assert made.document == document
    assert len(made.document["key_id"]) == 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(text, validate=False)) == 32
    assert text.strip() not in made.out
    kumo("keygen", path).failed(1, "exists already, and a key is never overwritten")
    assert path.read_text() == text
    kumo("keygen", path, "--dry-run").failed(1, "exists already")
    kumo("keygen", tmp_path / "no" / "key").failed(1, "no such directory: create it first")
    planned = kumo("keygen", tmp_path / "other", "--dry-run", "--json")
    assert planned.document == {**document, "file": str(tmp_path / "other"), **_PLANNED}
    assert not (tmp_path / "other").exists()


class Here:
    """Runs the command in this process, which is much faster."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *line: object) -> tuple[int, str]:
        """Exit code, and all that was written."""
        self._capfd.readouterr()
        code = main([str(word) for word in line])
        return code, "".join(self._capfd.readouterr())


@pytest.fixture
def here(
    command_environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Here:
    for name, value in command_environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return Here(capfd)


def test_round_trip(
    kumo: Run, here: Here, bucket: str, database: Path, key_file: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    created = kumo("backup", database, url, "--create", "--key-file", key_file)
    assert created.code == 0, created.err
    assert created.out.startswith("created the repository (encrypted, key ")
    target = tmp_path / "restored"
    restored = kumo("restore", url, target, env={"KUMO_CRT_KEY_COMMAND": f"cat '{key_file}'"})
    assert restored.code == 0, restored.err
    assert databases.read_all(target) == databases.read_all(database)
    with_key = ("--key-file", key_file)
    for line in (
        ("verify", url, "--level", "full"),
        ("drill", url),
        ("repair", url, target),
        ("prune", url, "--keep-last", "1"),
    ):
        found = here(*line, *with_key)
        assert found[0] == 0, found
    assert "OK      client-side encryption: AES-256-GCM" in here("doctor", url, *with_key)[1]
    # What needs no key.
    for line in (("snapshots", url), ("verify", url, "--level", "full"), ("prune", url)):
        assert here(*line)[0] == 0, line
    assert "no key was given" in here("doctor", url)[1]


def test_a_single_object(
    kumo: Run, here: Here, boto: Any, bucket: str, database: Path, key_file: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    line = ("backup", database, url, "--create", "--single-object", "--key-file", key_file)
    planned = kumo(*line, "--dry-run", "--json").document["snapshot"]
    done = kumo(*line)
    assert done.code == 0, done.err
    again = kumo(*line, "--json").document["snapshot"]
    assert planned["uploaded_bytes"] == again["reused_bytes"]
    key = f"repository/{again['single_object']}"
    assert done.out.splitlines()[-1] == f"as one object: s3://{bucket}/{key}"
    assert boto.head_object(Bucket=bucket, Key=key)["ContentLength"] == planned["uploaded_bytes"]
    target = tmp_path / "restored"
    with_key = ("--key-file", key_file)
    assert here("restore", url, target, "--column-family", "default", *with_key)[0] == 0
    assert databases.read_all(target) == databases.read_all(database)
    assert here("verify", url, "--level", "full", *with_key)[0] == 0
    assert here("verify", url, "--level", "full")[0] == 0


def test_without_the_right_key(
    kumo: Run, here: Here, bucket: str, database: Path, key_file: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    assert here("backup", database, url, "--create", "--key-file", key_file)[0] == 0
    target = tmp_path / "target"
    other = tmp_path / "other.key"
    here("keygen", other)
    for line, code, said in (
        (("restore", url, target), 12, "is encrypted, and a restore needs its key: give it"),
        (("backup", database, url), 12, "a backup needs its key"),
        (("restore", url, target, "--key-file", other), 12, "encrypted with another key than"),
        (("snapshots", url, "--key-file", other), 12, "encrypted with another key than"),
        (("snapshots", url, "--key-file", tmp_path / "missing"), 12, "No such file"),
        (("snapshots", url, "--key-command", "false"), 12, "failed with exit code 1"),
        (("snapshots", url, "--key-command", "x", "--key-file", other), 2, "not allowed with"),
    ):
        found = here(*line)
        assert found[0] == code, line
        assert said in found[1]
        assert found[1].count("\n") == 1
    document = kumo("restore", url, target, "--json").document
    assert document["error"]["type"] == "EncryptionKeyError"
    assert document["error"]["exit_code"] == 12
    assert not target.exists()


def test_a_repository_that_is_not_encrypted(
    here: Here, bucket: str, database: Path, key_file: Path
) -> None:
    url = f"s3://{bucket}/repository"
    assert here("backup", database, url, "--create")[0] == 0
    code, said = here("backup", database, url, "--create", "--key-file", key_file)
    assert code == 12
    assert "is not encrypted, and a key was given" in said


def test_a_key_that_everybody_may_read(
    here: Here, bucket: str, database: Path, key_file: Path
) -> None:
    key_file.chmod(0o644)
    url = f"s3://{bucket}/repository"
    code, said = here("backup", database, url, "--create", "--key-file", key_file)
    assert code == 0
    assert "every user of this machine may use it (mode 644): chmod 600 it" in said
    assert key_file.read_text().strip() not in said


def test_nothing_shows_the_key(
    kumo: Run, bucket: str, database: Path, key_file: Path, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/repository"
    text = key_file.read_text().strip()
    secrets = (text, base64.b64decode(text).hex())
    environment = {"KUMO_CRT_KEY": text}
    for line in (
        ("backup", database, url, "--create", "-vv"),
        ("restore", url, tmp_path, "-vv"),
        ("doctor", url, "--json"),
    ):
        done = kumo(*line, env=environment)
        assert not [s for s in secrets if s in done.out + done.err], line
    broken = kumo("restore", url, tmp_path / "x", "-vv", env={"KUMO_CRT_KEY": text[:-2]})
    assert broken.code == 12
    assert text[:-2] not in broken.out + broken.err
