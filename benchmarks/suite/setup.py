"""Builds the server and the bounds; installs the peers in a virtual environment of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def say(text: str) -> None:
    """Tells of progress."""
    print(text, file=sys.stderr, flush=True)


def cache_directory() -> Path:
    """Where the package's own build keeps what is made once."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("KUMO_CRT_CACHE_DIR") or Path(base) / "kumo-crt").expanduser()


@dataclass(frozen=True)
class Peers:
    """The environment of the peers.

    Attributes:
        missing: Requirements that could not be installed, and why.
    """

    python: Path
    missing: dict[str, str]

    @property
    def directory(self) -> Path:
        """Where its programs are."""
        return self.python.parent


def install_peers(directory: Path | None = None) -> Peers:
    """Makes the environment, unless it is there already; one failing peer does not stop others."""
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    key = hashlib.sha256(f"{sys.version}\n{wanted}".encode()).hexdigest()[:16]
    directory = directory or cache_directory() / f"bench-peers-{key}"
    python = directory / "bin" / "python"
    stamp = directory / "kumo-bench.json"
    if stamp.is_file():
        state = json.loads(stamp.read_text(encoding="utf-8"))
        if state["key"] == key:
            return Peers(python, state["missing"])
    say(f"installing the peers into {directory}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    missing = {}
    lines = [line.partition("#")[0].strip() for line in wanted.splitlines()]
    for requirement in filter(None, lines):
        say(f"  {requirement}")
        done = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines() or ["pip gave no reason"]
            missing[requirement] = last[-1]
            say(f"  could not be installed: {last[-1]}")
    stamp.write_text(json.dumps({"key": key, "missing": missing}), encoding="utf-8")
    return Peers(python, missing)


def peer_versions(peers: Peers) -> dict[str, str]:
    """Versions of everything in the environment."""
    command = [str(peers.python), "-m", "pip", "list", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {item["name"]: item["version"] for item in json.loads(done.stdout)}


@dataclass(frozen=True)
class Programs:
    """The native programs."""

    server: Path
    bounds: Path


def build_programs(peers: Peers | None = None) -> Programs:
    """Builds the server and the bounds, in the checkout's build directory.

    Raises:
        SystemExit: There is no CMake, or the build failed.
    """
    path = os.pathsep.join(
        [str(Path(sys.executable).parent)]
        + ([str(peers.directory)] if peers is not None else [])
        + [os.environ.get("PATH", "")]
    )
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        raise SystemExit("no cmake: pip install cmake ninja")
    tree = ROOT / "build" / "bench"
    configure = [cmake, "-S", str(ROOT / "benchmarks"), "-B", str(tree)]
    configure += ["-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}"]
    if not (tree / "CMakeCache.txt").is_file() and shutil.which("ninja", path=path):
        configure += ["-G", "Ninja"]
    environment = {**os.environ, "PATH": path}
    for command in (configure, [cmake, "--build", str(tree), "--parallel"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(
                f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
    return Programs(tree / "kumo-bench-server", tree / "kumo-bench-bounds")
