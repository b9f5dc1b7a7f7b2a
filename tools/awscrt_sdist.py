"""The awscrt source distribution: its pin, how it is obtained, checked and unpacked."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

PROGRESS_SECONDS = 5.0
PINS_FILE = Path(__file__).resolve().parent.parent / "cmake" / "pins.json"
BUILD_STEP = re.compile(r"\[\s*(?:(\d+)/(\d+)|(\d+)%)\]")


class DepsError(Exception):
    """The libraries cannot be provided; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """One awscrt source distribution and the libraries inside it."""

    version: str
    sha256: str
    libraries: Mapping[str, str]


def say(message: str) -> None:
    """Prints a progress line at once, so that `pip install -v` shows life."""
    print(f"[native-deps] {message}", flush=True)


def run(command: list[str], log: Path, label: str, env: Mapping[str, str]) -> None:
    """Runs a step: its output goes to the log, a line of it now and then to stdout."""
    tail: collections.deque[str] = collections.deque(maxlen=30)
    last = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        out.write("$ " + " ".join(command) + "\n")
        out.flush()
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None  # PIPE was asked for
            for line in process.stdout:
                out.write(line)
                tail.append(line.rstrip()[:200])
                step = BUILD_STEP.match(line)
                if step and time.monotonic() - last >= PROGRESS_SECONDS:
                    last = time.monotonic()
                    done = f"{step[3]}%" if step[3] else f"{step[1]}/{step[2]}"
                    say(f"{label}: {done}")
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if status != 0:
        lines = "\n".join(f"    {line}" for line in tail)
        raise DepsError(f"{label} failed (exit {status}). Full log: {log}. Last lines:\n{lines}")


def load_pin(version: str | None, pins_file: Path = PINS_FILE) -> Pin:
    """Reads the pin of an awscrt version, or of the default one."""
    pins = json.loads(pins_file.read_text(encoding="utf-8"))
    version = version or pins["default"]
    entry = pins["awscrt"].get(version)
    if entry is None:
        known = ", ".join(sorted(pins["awscrt"]))
        raise DepsError(
            f"awscrt {version} is not pinned in {pins_file} (pinned: {known}). Choose one of "
            "these with KUMO_CRT_AWSCRT_VERSION or --version, or add its sha256 to the file."
        )
    return Pin(version, entry["sha256"], entry["libraries"])


def verify_sha256(path: Path, pin: Pin) -> None:
    """Raises unless the file is the pinned source distribution."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DepsError(
            f"cannot read the awscrt source distribution {path}: {error.strerror}. "
            "Correct KUMO_CRT_AWSCRT_SDIST (or --sdist), or unset it to download with pip."
        ) from error
    if digest.hexdigest() != pin.sha256:
        raise DepsError(
            f"{path} is not awscrt {pin.version} as pinned: its sha256 is {digest.hexdigest()}, "
            f"expected {pin.sha256}. The file is damaged, of another version, or was tampered "
            "with: get it again, or choose its version with KUMO_CRT_AWSCRT_VERSION."
        )


def download_sdist(pin: Pin, work: Path, log: Path) -> Path:
    """Gets the source distribution with pip, from wherever pip is configured to look."""
    say(f"downloading awscrt {pin.version} with pip")
    requirements = work / "requirements.txt"
    requirements.write_text(f"awscrt=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    target = work / "download"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "awscrt"]
    command += ["--require-hashes", "--dest", str(target), "--requirement", str(requirements)]
    try:
        run(command, log, "pip download", os.environ)
    except DepsError as error:
        raise DepsError(
            f"pip could not provide the awscrt {pin.version} source distribution.\n{error}\n"
            "Check pip's index settings (pip config list, PIP_INDEX_URL). Without a network: set "
            f"KUMO_CRT_AWSCRT_SDIST=/path/to/awscrt-{pin.version}.tar.gz, or install aws-c-s3 and "
            "its companions and set KUMO_CRT_DEPS=system."
        ) from error
    found = sorted(target.glob("*.tar.gz"))
    if len(found) != 1:
        raise DepsError(f"pip download left {len(found)} archives in {target}, expected one")
    return found[0]


def extract(archive: Path, target: Path) -> Path:
    """Unpacks crt/, and the top licence files into crt/awscrt/; returns the path of crt/.

    Links, devices and names that leave the directory are refused, wherever they are in the
    archive. (tarfile's own filters are missing from early Python 3.11 releases.)
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                    raise DepsError(f"{archive}: refused, member {member.name!r} leaves the tree")
                if not (member.isfile() or member.isdir()):
                    raise DepsError(f"{archive}: refused, member {member.name!r} is no plain file")
                if member.isdir():
                    continue
                if len(path.parts) > 2 and path.parts[1] == "crt":
                    destination = target.joinpath(*path.parts[1:])
                elif len(path.parts) == 2 and path.name in {"LICENSE", "NOTICE"}:
                    destination = target / "crt" / "awscrt" / path.name
                else:
                    continue
                destination.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # isfile() was checked above
                with source, destination.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                destination.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError) as error:
        raise DepsError(f"{archive} is not a readable tar.gz archive: {error}") from error
    if not (target / "crt" / "CMakeLists.txt").is_file():
        raise DepsError(f"{archive} holds no crt/CMakeLists.txt: not an awscrt source distribution")
    return target / "crt"
