"""A tiny stand-in for the awscrt source distribution, that builds in a second."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "native_deps.py"
sys.path.insert(0, str(SCRIPT.parent))

# Counts its configurations. FAKE_HANG makes it wait, FAKE_BREAK fail to compile, and FAKE_SLOW
# leave out the vector code.
FAKE_CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(fake C)
file(APPEND "$ENV{FAKE_LOG}" "configured\\n")
if(DEFINED ENV{FAKE_HANG})
  execute_process(COMMAND "${CMAKE_COMMAND}" -E sleep "$ENV{FAKE_HANG}")
endif()
add_library(aws-checksums STATIC crc.c)
if(DEFINED ENV{FAKE_BREAK})
  target_compile_definitions(aws-checksums PRIVATE BREAK)
endif()
if(DEFINED ENV{FAKE_SLOW})
  target_compile_definitions(aws-checksums PRIVATE crc32c_intel_avx512=crc32c_table)
endif()
install(TARGETS aws-checksums ARCHIVE DESTINATION lib)
"""
FAKE_SOURCE = """
#ifdef BREAK
#error "the fake library was asked to break"
#endif
int crc32c_clmul(void) { return 0; }
int crc32c_intel_avx512(void) { return 0; }
"""


def make_archive(path: Path, members: dict[str, str]) -> str:
    """Writes a tar.gz of text files and returns its sha256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            data = text.encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class FakeDistribution:
    """Runs tools/native_deps.py against the stand-in."""

    work: Path
    sdist: Path
    pins: Path

    @property
    def cache(self) -> Path:
        return self.work / "cache"

    @property
    def configured(self) -> int:
        """How often the libraries were built so far."""
        log = self.work / "configured.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("KUMO_CRT_", "PIP_"))}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env["KUMO_CRT_CACHE_DIR"] = str(self.cache)
        env["FAKE_LOG"] = str(self.work / "configured.log")
        return env | (extra or {})

    def command(self, *arguments: str, sdist: bool = True) -> list[str]:
        command = [sys.executable, str(SCRIPT), "--pins", str(self.pins)]
        if sdist:
            command += ["--sdist", str(self.sdist)]
        return command + list(arguments)

    def start(
        self, *arguments: str, sdist: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments, sdist=sdist),
            env=self.environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, sdist: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, sdist=sdist),
            env=self.environment(env),
            capture_output=True,
            text=True,
            check=False,
        )

    def prefixes(self) -> list[Path]:
        """The finished builds in the cache."""
        return sorted(
            path.parents[2] for path in self.cache.glob("*/share/kumo-crt/native-deps.json")
        )


@pytest.fixture
def fake(tmp_path: Path) -> FakeDistribution:
    sdist = tmp_path / "awscrt-9.9.9.tar.gz"
    sha256 = make_archive(
        sdist,
        {
            "awscrt-9.9.9/LICENSE": "top licence",
            "awscrt-9.9.9/setup.py": "raise SystemExit('not to be run')",
            "awscrt-9.9.9/crt/CMakeLists.txt": FAKE_CMAKE,
            "awscrt-9.9.9/crt/crc.c": FAKE_SOURCE,
            "awscrt-9.9.9/crt/aws-checksums/VERSION": "1.2.3\n",
            "awscrt-9.9.9/crt/aws-checksums/LICENSE": "library licence",
        },
    )
    pins = tmp_path / "pins.json"
    entry = {"sha256": sha256, "libraries": {"aws-checksums": "0.0.0", "aws-c-s3": "4.5.6"}}
    pins.write_text(json.dumps({"default": "9.9.9", "floor": "9.9.9", "awscrt": {"9.9.9": entry}}))
    return FakeDistribution(tmp_path, sdist, pins)
