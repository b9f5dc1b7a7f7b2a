"""The presets for package managers, configured against a stand-in for vcpkg and kmpkg.

Neither of them runs here. The stand-in has what CMake sees of them: a toolchain file at the place
that the preset names, which puts an installed tree on the search path, and that tree with each
package's configuration in share/, its licence and the list that tells its version. The libraries in
it are those that this kumo_crt was built with. What it cannot show is that the ports build.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import native_deps
import pytest

from kumo_crt import _core
from tests.build.conftest import ROOT

MANAGERS = ["kmpkg", "vcpkg"]
TRIPLET = "x64-linux"
PINS = json.loads((ROOT / "cmake/pins.json").read_text(encoding="utf-8"))
FLOOR = PINS["awscrt"][PINS["floor"]]["libraries"]
TOOLCHAIN = f"""
get_filename_component(root "${{CMAKE_CURRENT_LIST_DIR}}/../.." ABSOLUTE)
list(PREPEND CMAKE_PREFIX_PATH "${{root}}/installed/{TRIPLET}")
list(PREPEND CMAKE_FIND_ROOT_PATH "${{root}}/installed/{TRIPLET}")
"""
# Now, as tests get a home directory of their own.
CACHE = native_deps.cache_directory()


def _libraries() -> Path:
    """The prefix of the libraries that the extension under test was built with."""
    build = _core.build_info()
    if build["source"] == "system":
        return Path(build["origin"])
    for manifest in CACHE.glob(f"*/{native_deps.MANIFEST}"):
        made = json.loads(manifest.read_text(encoding="utf-8"))
        if made["origin"] == build["origin"] and not made["sanitize"]:
            return manifest.parents[2]
    pytest.skip(f"the libraries of this build are not in the cache {CACHE}")


@dataclass
class Manager:
    name: str
    root: Path

    @property
    def installed(self) -> Path:
        return self.root / "installed" / TRIPLET

    def add_licence(self, package: str) -> Path:
        share = self.installed / "share" / package
        share.mkdir(parents=True)
        (share / "copyright").write_text("its licence\n")
        return share

    def install(self, package: str, version: str, prefix: Path) -> None:
        share = self.add_licence(package)
        config = prefix / "lib" / "cmake" / package / f"{package}-config.cmake"
        (share / f"{package}-config.cmake").write_text(f'include("{config}")\n')
        # What a port needs of others: here all is one prefix.
        if not (self.installed / "include").exists():
            (self.installed / "include").symlink_to(prefix / "include")
            (self.installed / "lib").mkdir()
            for path in (prefix / "lib").iterdir():
                if path.name != "cmake":  # ports have moved their configurations to share/
                    (self.installed / "lib" / path.name).symlink_to(path)
        info = self.root / "installed" / self.name / "info"
        info.mkdir(parents=True, exist_ok=True)
        (info / f"{package}_{version}_{TRIPLET}.list").write_text(f"{TRIPLET}/share/{package}/\n")

    def configure(self, build: Path) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("KUMO_CRT_", "CMAKE_"))}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env[f"{self.name.upper()}_ROOT"] = str(self.root)
        return subprocess.run(
            ["cmake", "--preset", self.name, "-B", build, f"-DPython_EXECUTABLE={sys.executable}"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(params=MANAGERS)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Manager:
    root = tmp_path / request.param
    toolchain = root / "scripts" / "buildsystems" / f"{request.param}.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.write_text(TOOLCHAIN)
    return Manager(request.param, root)


def test_the_preset_finds_what_is_installed(manager: Manager, tmp_path: Path) -> None:
    prefix = _libraries()
    versions = {name: f"{version}.{i}" for i, (name, version) in enumerate(FLOOR.items())}
    for name, version in versions.items():
        manager.install(name, version, prefix)
    manager.add_licence("openssl")

    build = tmp_path / "build"
    result = manager.configure(build)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Native libraries: system (KUMO_CRT_DEPS=system)" in result.stdout
    assert f"aws-c-s3 {versions['aws-c-s3']} from {manager.installed}:" in result.stdout

    cache = (build / "CMakeCache.txt").read_text(encoding="utf-8")
    toolchain = manager.root / "scripts" / "buildsystems" / f"{manager.name}.cmake"
    assert re.search(rf"^CMAKE_TOOLCHAIN_FILE:\w+={toolchain}$", cache, re.MULTILINE)
    assert f"aws-c-s3_DIR:PATH={manager.installed}/share/aws-c-s3\n" in cache

    header = (build / "generated" / "kumo_build_config.h").read_text(encoding="utf-8")
    for name, version in versions.items():
        assert f'#define KUMO_VERSION_{name.upper().replace("-", "_")} "{version}"' in header
    install = (build / "cmake_install.cmake").read_text(encoding="utf-8")
    for name in [*versions, "openssl"]:
        assert f"{manager.installed}/share/{name}/copyright" in install


@pytest.mark.parametrize("manager", ["vcpkg"], indirect=True)
def test_a_port_older_than_the_floor_is_refused(manager: Manager, tmp_path: Path) -> None:
    prefix = _libraries()
    for name, version in FLOOR.items():
        manager.install(name, "0.1.0" if name == "aws-c-io" else version, prefix)
    result = manager.configure(tmp_path / "build")
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert f"aws-c-io 0.1.0 in {manager.installed} is older than {FLOOR['aws-c-io']}" in message


@pytest.mark.parametrize("manager", ["kmpkg"], indirect=True)
def test_missing_ports_are_named(manager: Manager, tmp_path: Path) -> None:
    manager.installed.mkdir(parents=True)
    result = manager.configure(tmp_path / "build")
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert "aws-c-s3 was not found (KUMO_CRT_DEPS=system)" in message
    assert "use the kmpkg or vcpkg preset" in message
