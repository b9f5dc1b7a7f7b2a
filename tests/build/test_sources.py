"""Rules that no compiler checks: layers of the C++ folders, versions told in several files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.build.conftest import ROOT

CPP = ROOT / "src" / "cpp"
# docs/architecture.md: a folder includes only from folders to its left.
MAY_INCLUDE = {
    "crt": {"crt"},
    "checksum": {"crt", "checksum"},
    "crypto": {"crt", "checksum", "async", "crypto"},
    "rocksdb": {"crt", "rocksdb", "checksum"},
    "eventstream": {"crt", "checksum", "eventstream"},
    "async": {"crt", "checksum", "async"},
    "http": {"crt", "checksum", "async", "http"},
    "s3": {"crt", "checksum", "rocksdb", "async", "http", "s3"},
    "bind": {"crt", "checksum", "crypto", "rocksdb", "eventstream", "async", "http", "s3", "bind"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)


def _sources() -> list[Path]:
    return sorted([*CPP.rglob("*.cpp"), *CPP.rglob("*.hpp")])


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / name).read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("folder", sorted(MAY_INCLUDE))
def test_folders_include_only_from_their_left(folder: str) -> None:
    wrong = [
        f"{source.relative_to(CPP)} includes {name}"
        for source in _sources()
        if source.parent.name == folder
        for name in INCLUDE.findall(source.read_text(encoding="utf-8"))
        if name.split("/")[0] in MAY_INCLUDE and name.split("/")[0] not in MAY_INCLUDE[folder]
    ]
    assert wrong == []


def test_every_folder_is_known() -> None:
    assert {source.parent.name for source in _sources()} == set(MAY_INCLUDE)


def test_pybind11_only_in_bind() -> None:
    users = {
        source.parent.name
        for source in _sources()
        if "pybind11/" in source.read_text(encoding="utf-8")
    }
    assert users == {"bind"}


@pytest.mark.parametrize("manifest", ["vcpkg.json", "kmpkg.json"])
def test_package_manifests_ask_for_the_floor(manifest: str) -> None:
    pins = _load("cmake/pins.json")
    floor = pins["awscrt"][pins["floor"]]["libraries"]
    asked = {entry["name"]: entry["version>="] for entry in _load(manifest)["dependencies"]}
    assert asked == floor


def test_package_manifests_agree() -> None:
    vcpkg, kmpkg = _load("vcpkg.json"), _load("kmpkg.json")
    # kmpkg has its baseline in kmpkg-configuration.json.
    assert re.fullmatch("[0-9a-f]{40}", vcpkg.pop("builtin-baseline"))
    registry = _load("kmpkg-configuration.json")["default-registry"]
    assert re.fullmatch("[0-9a-f]{40}", registry["baseline"])
    assert vcpkg == kmpkg
    assert set(kmpkg["features"]) == {"aws-lambda-cpp", "aws-crt-cpp", "aws-sdk-cpp"}


def test_versions_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert match
    assert match[1] == _load("vcpkg.json")["version"]


def test_presets() -> None:
    presets = {preset["name"]: preset for preset in _load("CMakePresets.json")["configurePresets"]}
    assert set(presets) == {"base", "default", "kmpkg", "vcpkg", "asan", "tsan", "tidy"}
    assert presets["asan"]["cacheVariables"]["KUMO_CRT_SANITIZE"] == "address"
    assert presets["tsan"]["cacheVariables"]["KUMO_CRT_SANITIZE"] == "thread"


def test_every_test_is_collected() -> None:
    """As by the README's command: a folder's name, or an option, may hide tests."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert collected == there
