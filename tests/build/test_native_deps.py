"""tools/native_deps.py: the cache, two builds at once, and everything that can go wrong."""

from __future__ import annotations

import json
import platform
import shutil
import time
from pathlib import Path

import pytest

from tests.build.conftest import FakeDistribution, make_archive


def test_builds_once_then_uses_the_cache(fake: FakeDistribution) -> None:
    result_file = fake.work / "prefix.txt"
    first = fake.run()
    assert first.returncode == 0, first.stderr
    assert "built in" in first.stdout
    second = fake.run("--result-file", str(result_file))
    assert second.returncode == 0, second.stderr
    assert "using the cached libraries" in second.stdout
    assert fake.configured == 1
    [prefix] = fake.prefixes()
    assert result_file.read_text() == str(prefix)
    manifest = json.loads((prefix / "share/kumo-crt/native-deps.json").read_text())
    assert manifest["origin"] == "awscrt 9.9.9"
    # The sources' own VERSION file wins over the pin; the pin fills in what has none.
    assert manifest["libraries"]["aws-checksums"] == "1.2.3"
    assert manifest["libraries"]["aws-c-s3"] == "4.5.6"
    licenses = prefix / "share/kumo-crt/licenses"
    assert (licenses / "aws-checksums/LICENSE").read_text() == "library licence"
    assert (licenses / "awscrt/LICENSE").read_text() == "top licence"


def test_the_cache_keeps_no_build_tree(fake: FakeDistribution) -> None:
    assert fake.run().returncode == 0
    [prefix] = fake.prefixes()
    assert {path.name for path in fake.cache.iterdir()} == {
        prefix.name,
        f"{prefix.name}.lock",
        "logs",
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86-64 instructions")
@pytest.mark.parametrize("slow", [True, False])
def test_missing_vector_code_is_said(fake: FakeDistribution, slow: bool) -> None:
    result = fake.run(env={"FAKE_SLOW": "1"} if slow else {})
    assert result.returncode == 0, result.stderr
    assert ("built CRC32C without intel_avx512" in result.stdout) is slow


@pytest.mark.parametrize("program", ["ninja", "make"])
def test_either_generator(fake: FakeDistribution, program: str) -> None:
    found = shutil.which(program, path=fake.environment()["PATH"])
    assert found, f"{program} is needed by this test"
    result = fake.run("--make-program", found)
    assert result.returncode == 0, result.stderr
    assert len(fake.prefixes()) == 1


def test_other_flags_are_another_build(fake: FakeDistribution) -> None:
    for arguments in ([], ["--cflags=-fno-plt"], ["--sanitize=thread"]):
        assert fake.run(*arguments).returncode == 0
    assert len(fake.prefixes()) == 3


def test_two_processes_at_once_build_once(fake: FakeDistribution) -> None:
    first = fake.start(env={"FAKE_HANG": "2"})
    second = fake.start(env={"FAKE_HANG": "2"})
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert fake.configured == 1
    text = "".join(out for out, _ in outputs)
    assert text.count("built in") == 1
    assert "waiting for another build" in text


def test_a_killed_build_is_started_again(fake: FakeDistribution) -> None:
    process = fake.start(env={"FAKE_HANG": "5"})
    deadline = time.monotonic() + 60
    while fake.configured == 0:
        assert time.monotonic() < deadline, "the build did not start"
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert fake.prefixes() == []
    again = fake.run()
    assert again.returncode == 0, again.stderr
    assert fake.configured == 2
    assert len(fake.prefixes()) == 1
    assert list(fake.cache.glob("tmp-*")) == []


def test_a_prefix_of_ones_own(fake: FakeDistribution) -> None:
    prefix = fake.work / "own"
    assert fake.run("--prefix", str(prefix)).returncode == 0
    assert (prefix / "lib/libaws-checksums.a").is_file()
    again = fake.run("--prefix", str(prefix))
    assert again.returncode == 1
    assert "is not empty" in again.stderr


def test_wrong_sha256(fake: FakeDistribution) -> None:
    fake.sdist.write_bytes(fake.sdist.read_bytes() + b"x")
    result = fake.run()
    assert result.returncode == 1
    assert "is not awscrt 9.9.9 as pinned" in result.stderr
    assert fake.configured == 0
    assert fake.prefixes() == []


def test_missing_tarball(fake: FakeDistribution) -> None:
    fake.sdist.unlink()
    result = fake.run()
    assert result.returncode == 1
    assert str(fake.sdist) in result.stderr
    assert "KUMO_CRT_AWSCRT_SDIST" in result.stderr


def test_unpinned_version(fake: FakeDistribution) -> None:
    result = fake.run("--version", "1.0")
    assert result.returncode == 1
    assert "pinned: 9.9.9" in result.stderr
    assert "KUMO_CRT_AWSCRT_VERSION" in result.stderr


def test_no_network(fake: FakeDistribution) -> None:
    result = fake.run(sdist=False, env={"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"})
    assert result.returncode == 1
    assert "pip could not provide the awscrt 9.9.9 source distribution" in result.stderr
    assert "No matching distribution" in result.stderr
    assert "KUMO_CRT_AWSCRT_SDIST=/path/to/awscrt-9.9.9.tar.gz" in result.stderr
    assert "KUMO_CRT_DEPS=system" in result.stderr


def test_pip_refuses_another_file_of_the_same_name(fake: FakeDistribution) -> None:
    links = fake.work / "links"
    links.mkdir()
    make_archive(links / fake.sdist.name, {"awscrt-9.9.9/PKG-INFO": "something else"})
    result = fake.run(
        sdist=False,
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": "/dev/null"},
    )
    assert result.returncode == 1
    assert "DO NOT MATCH" in result.stderr
    assert fake.prefixes() == []


def test_failed_compilation(fake: FakeDistribution) -> None:
    result = fake.run(env={"FAKE_BREAK": "1"})
    assert result.returncode == 1
    assert "aws-c libraries failed" in result.stderr
    assert "the fake library was asked to break" in result.stderr
    [log] = (fake.cache / "logs").iterdir()
    assert str(log) in result.stderr
    assert "asked to break" in log.read_text()
    assert fake.prefixes() == []
    assert fake.run().returncode == 0


def test_missing_compiler(fake: FakeDistribution) -> None:
    result = fake.run("--cc", "no-such-compiler")
    assert result.returncode == 1
    assert "not found: cc" in result.stderr
    assert "install gcc and g++" in result.stderr


def test_unwritable_cache(fake: FakeDistribution) -> None:
    file = fake.work / "file"
    file.write_text("")
    result = fake.run(env={"KUMO_CRT_CACHE_DIR": str(file / "cache")})
    assert result.returncode == 1
    assert "cannot create the cache directory" in result.stderr
    assert "KUMO_CRT_CACHE_DIR" in result.stderr


def test_cache_directory_follows_xdg(fake: FakeDistribution, tmp_path: Path) -> None:
    result = fake.run(env={"KUMO_CRT_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "xdg")})
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "xdg" / "kumo-crt").glob("awscrt-9.9.9-*.lock"))) == 1
