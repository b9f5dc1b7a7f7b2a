"""What is installed: one exported symbol, all licences, no leftovers of the build."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from kumo_crt import _core

BUILD = _core.build_info()
BUNDLED = [*BUILD["libraries"], "pybind11"]


def _installed() -> list[importlib.metadata.PackagePath]:
    files = importlib.metadata.files("kumo-crt")
    assert files, "kumo-crt is not installed in this environment: pip install -e ."
    return files


def test_only_the_init_function_is_exported() -> None:
    symbols = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=posix", str(_core.__file__)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    assert [line.split()[0] for line in symbols if line] == ["PyInit__core"]


def test_no_aws_library_is_linked_dynamically_when_bundled() -> None:
    if BUILD["source"] != "bundled":
        pytest.skip("a system build may link shared libraries")
    needed = subprocess.run(
        ["readelf", "--dynamic", str(_core.__file__)], check=True, capture_output=True, text=True
    ).stdout
    for name in ("aws", "s2n", "libcrypto", "libssl"):
        assert name not in needed


def test_licences_of_everything_linked_are_installed() -> None:
    if BUILD["source"] != "bundled":
        pytest.skip("a system build has the licences that its prefix offers")
    files = {str(file) for file in _installed()}
    for library in BUNDLED:
        assert f"kumo_crt/licenses/{library}/LICENSE" in files
    # XXHash lies inside aws-checksums; its notice is awscrt's.
    notice = next(f for f in _installed() if str(f) == "kumo_crt/licenses/awscrt/NOTICE")
    assert "XXHash" in Path(notice.locate()).read_text(encoding="utf-8")
    dist_info = {PurePosixPath(f).name for f in files if ".dist-info/licenses/" in f}
    assert dist_info == {"LICENSE", "NOTICE"}


def test_no_leftovers_of_the_build() -> None:
    unwanted = {".a", ".h", ".hpp", ".c", ".cpp", ".cmake", ".o", ".pc", ".txt"}
    licences = "kumo_crt/licenses/"
    leftovers = [
        str(file)
        for file in _installed()
        if file.suffix in unwanted
        and not str(file).startswith(licences)
        and ".dist-info/" not in str(file)
    ]
    assert leftovers == []
    assert [f.name for f in _installed() if f.suffix == ".so"] == [Path(_core.__file__).name]


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("kumo-crt")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == BUILD["version"]
    required = importlib.metadata.requires("kumo-crt") or []
    assert [line for line in required if "extra ==" not in line] == []
