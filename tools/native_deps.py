#!/usr/bin/env python3
"""Builds the AWS Common Runtime libraries, statically, from the awscrt source distribution.

CMakeLists.txt calls this for KUMO_CRT_DEPS=bundled; by hand it makes an install prefix:

    python tools/native_deps.py --version 0.31.0 --prefix DIR

Only the standard library is used. The source distribution comes from pip's configured index
or from a file (--sdist or KUMO_CRT_AWSCRT_SDIST), and its sha256 must match cmake/pins.json.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from awscrt_sdist import (
    PINS_FILE,
    PROGRESS_SECONDS,
    DepsError,
    Pin,
    download_sdist,
    extract,
    load_pin,
    run,
    say,
    verify_sha256,
)

# Part of the cache key: raise it when the way of building changes.
RECIPE = 2
MANIFEST = Path("share/kumo-crt/native-deps.json")
LICENSES = Path("share/kumo-crt/licenses")
OPTIMISATION = "-O3 -DNDEBUG"
# For the bundled libraries, UBSan is left out: their findings are not ours to gate.
SANITIZER_FLAGS = {
    "": "",
    "address": "-fsanitize=address -fno-omit-frame-pointer -g1",
    "thread": "-fsanitize=thread -fno-omit-frame-pointer -g1",
}
AWS_LC_OPTIONS = {
    "-DCMAKE_BUILD_TYPE=RelWithDebInfo": "-DCMAKE_BUILD_TYPE=Release",
    "-DDISABLE_GO=ON": "-DDISABLE_GO=ON -DDISABLE_CPU_JITTER_ENTROPY=ON",
}
LICENSE_NAME = re.compile(r"(LICENSE|LICENCE|COPYING|NOTICE|THIRD-PARTY)[^/]*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """The programs and flags of a build."""

    cc: str
    cxx: str
    cmake: str
    generator: str
    make_program: str
    cflags: str
    sanitize: str

    def identity(self) -> dict[str, str]:
        """What makes two builds of the same sources different."""
        return {
            "cc": compiler_identity(self.cc),
            "cxx": compiler_identity(self.cxx),
            "cflags": self.cflags,
            "sanitize": self.sanitize,
        }


def compiler_identity(compiler: str) -> str:
    """Version and target machine, as the compiler itself states them."""
    answers = []
    for flag in ("--version", "-dumpmachine"):
        try:
            answer = subprocess.run([compiler, flag], check=True, capture_output=True, text=True)
            answers.append(answer.stdout.splitlines()[0])
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise DepsError(
                f"the compiler {compiler!r} does not run ({error}). Install gcc and g++, "
                "or name another one with CC and CXX."
            ) from error
    # GCC begins with the name it was called by: cc and gcc are the same compiler.
    return re.sub(r"^\S+ (?=\()", "", answers[0]) + " " + answers[1]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive file lock; the kernel drops it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        last = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - last >= 6 * PROGRESS_SECONDS:
                    last = time.monotonic()
                    say(f"waiting for another build of the same libraries (lock {path})")
                time.sleep(0.2)
        yield


def build_environment() -> dict[str, str]:
    """The environment without what would steer the libraries' own CMake files."""
    env = dict(os.environ)
    unwanted = {"DESTDIR", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "CXXFLAGS", "LDFLAGS"}
    unwanted |= {name for name in env if name.startswith("CMAKE_")}
    for name in unwanted - {"CMAKE_BUILD_PARALLEL_LEVEL"}:
        env.pop(name, None)
    env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
    return env


def adapt_aws_lc(lists: Path) -> None:
    """Changes how crt/CMakeLists.txt has aws-lc built.

    Without debug information: time and size for nobody. And with random numbers from the system and
    the processor: the third source, the jitter of the processor's clock, costs every process 27 ms.
    """
    text = lists.read_text(encoding="utf-8")
    for old, new in AWS_LC_OPTIONS.items():
        if old not in text:
            say(f"warning: {lists.name} has no {old} to make {new} of: a slower start, no more")
        text = text.replace(old, new)
    lists.write_text(text, encoding="utf-8")


def compile_and_stage(source: Path, work: Path, prefix: Path, tools: Toolchain, log: Path) -> Path:
    """Builds crt/ for `prefix`, but installs into a staging tree; returns the staged prefix."""
    flags = " ".join(
        filter(None, [tools.cflags, "-fPIC -fvisibility=hidden", SANITIZER_FLAGS[tools.sanitize]])
    )
    adapt_aws_lc(source / "CMakeLists.txt")
    # -Wno-error: a newer compiler's new warnings in pinned sources must not stop an install.
    release = f"{OPTIMISATION} -Wno-error"
    build, stage = work / "build", work / "stage"
    configure = [tools.cmake, "-S", str(source), "-B", str(build), "-G", tools.generator]
    configure += [
        f"-DCMAKE_MAKE_PROGRAM={tools.make_program}",
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_INSTALL_LIBDIR=lib",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        f"-DCMAKE_C_COMPILER={tools.cc}",
        f"-DCMAKE_CXX_COMPILER={tools.cxx}",
        f"-DCMAKE_C_FLAGS={flags}",
        f"-DCMAKE_CXX_FLAGS={flags}",
        f"-DCMAKE_C_FLAGS_RELEASE={release}",
        f"-DCMAKE_CXX_FLAGS_RELEASE={release}",
    ]
    env = build_environment()
    run(configure, log, "aws-lc and s2n", env)
    run([tools.cmake, "--build", str(build)], log, "aws-c libraries", env)
    run([tools.cmake, "--install", str(build)], log, "install", {**env, "DESTDIR": str(stage)})
    staged = stage.joinpath(*prefix.parts[1:])
    # aws-lc's pkg-config files name its build directory, and one calls itself openssl.
    shutil.rmtree(staged / "lib" / "pkgconfig", ignore_errors=True)
    return staged


def library_versions(source: Path, pin: Pin) -> dict[str, str]:
    """What the sources say about their versions; the pin fills in what they do not."""
    versions = dict(pin.libraries)
    for name in versions:
        file = source / name / "VERSION"
        if file.is_file():
            versions[name] = file.read_text(encoding="utf-8").strip()
    patterns = {
        "aws-lc": ("aws-lc/include/openssl/base.h", r'AWSLC_VERSION_NUMBER_STRING "([\d.]+)"', ""),
        # s2n-tls states no version of its own in C: its Rust crate's is the nearest.
        "s2n": ("s2n/bindings/rust/extended/s2n-tls/Cargo.toml", r'^version = "(.+)"', "crate "),
    }
    for name, (path, pattern, label) in patterns.items():
        file = source / path
        match = re.search(pattern, file.read_text(), re.MULTILINE) if file.is_file() else None
        versions[name] = label + match[1] if match else "unknown"
    return versions


def copy_licenses(source: Path, target: Path) -> None:
    """Collects the licence texts of each library and of what it vendors."""
    for file in sorted(source.rglob("*")):
        if file.is_file() and LICENSE_NAME.fullmatch(file.name):
            destination = target / file.relative_to(source)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, destination)


def warn_if_crc_is_slow(prefix: Path) -> None:
    """Old assemblers and compilers drop the vector code of aws-checksums silently."""
    archive = (prefix / "lib" / "libaws-checksums.a").read_bytes()
    if os.uname().machine == "x86_64":
        missing = [
            isa for isa in ("clmul", "intel_avx512") if f"crc32c_{isa}".encode() not in archive
        ]
        if missing:
            say(f"warning: this compiler built CRC32C without {', '.join(missing)}: slower")


def build_prefix(
    pin: Pin, tools: Toolchain, prefix: Path, sdist: Path | None, scratch: Path, log: Path
) -> None:
    """Builds into a scratch directory beside `prefix` and renames the result into place."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    started = time.monotonic()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True)
    try:
        archive = sdist if sdist is not None else download_sdist(pin, scratch, log)
        verify_sha256(archive, pin)
        say(f"building awscrt {pin.version}'s libraries (log: {log})")
        source = extract(archive, scratch / "source")
        staged = compile_and_stage(source, scratch, prefix, tools, log)
        copy_licenses(source, staged / LICENSES)
        warn_if_crc_is_slow(staged)
        manifest = {
            "origin": f"awscrt {pin.version}",
            "sha256": pin.sha256,
            "recipe": RECIPE,
            "optimisation": OPTIMISATION,
            "libraries": library_versions(source, pin),
            **tools.identity(),
        }
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        staged.rename(prefix)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"built in {time.monotonic() - started:.0f} s: {prefix}")


def cache_directory() -> Path:
    """KUMO_CRT_CACHE_DIR, else kumo-crt in the XDG cache directory."""
    if explicit := os.environ.get("KUMO_CRT_CACHE_DIR"):
        return Path(explicit).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "kumo-crt"


def cached_prefix(pin: Pin, tools: Toolchain, cache: Path, sdist: Path | None) -> Path:
    """Returns the cached build of this pin, compiler and flags, building it when missing."""
    identity = {"sha256": pin.sha256, "recipe": RECIPE, **tools.identity()}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    key = f"awscrt-{pin.version}-{digest}"
    prefix = cache / key
    if not (prefix / MANIFEST).is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DepsError(
                f"cannot create the cache directory {cache}: {error.strerror}. "
                "Set KUMO_CRT_CACHE_DIR to a directory you can write to."
            ) from error
        with locked(cache / f"{key}.lock"):
            if not (prefix / MANIFEST).is_file():
                # The lock is ours, so what a killed build left behind has no owner.
                for stale in [prefix, *cache.glob(f"tmp-{key}-*")]:
                    shutil.rmtree(stale, ignore_errors=True)
                scratch = Path(tempfile.mkdtemp(prefix=f"tmp-{key}-", dir=cache)) / "work"
                try:
                    build_prefix(pin, tools, prefix, sdist, scratch, cache / "logs" / f"{key}.log")
                finally:
                    shutil.rmtree(scratch.parent, ignore_errors=True)
                return prefix
    say(f"using the cached libraries {prefix}")
    return prefix


def find_toolchain(options: argparse.Namespace) -> Toolchain:
    """Resolves the programs, or says which one is missing."""

    def program(*names: str) -> str | None:
        return next(filter(None, map(shutil.which, names)), None)

    cmake = options.cmake or program("cmake")
    make = options.make_program or program("ninja", "ninja-build", "make", "gmake")
    cc, cxx = program(options.cc or "cc"), program(options.cxx or "c++")
    missing = [
        name
        for name, found in {"cmake": cmake, "ninja or make": make, "cc": cc, "c++": cxx}.items()
        if not found
    ]
    if not (cmake and make and cc and cxx):
        raise DepsError(
            f"not found: {', '.join(missing)}. cmake and ninja: pip install cmake ninja. "
            "Compilers: install gcc and g++, or name others with CC and CXX."
        )
    generator = "Ninja" if "ninja" in Path(make).name else "Unix Makefiles"
    return Toolchain(cc, cxx, cmake, generator, make, options.cflags.strip(), options.sanitize)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line; the defaults come from the environment."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", default=env("KUMO_CRT_AWSCRT_VERSION"))
    parser.add_argument("--prefix", type=Path, help="install here instead of the cache")
    parser.add_argument("--sdist", default=env("KUMO_CRT_AWSCRT_SDIST"), help="awscrt-X.tar.gz")
    parser.add_argument("--pins", type=Path, default=PINS_FILE)
    parser.add_argument("--cc", default=env("CC"))
    parser.add_argument("--cxx", default=env("CXX"))
    parser.add_argument("--cflags", default=env("CFLAGS", ""))
    parser.add_argument("--sanitize", choices=sorted(SANITIZER_FLAGS), default="")
    parser.add_argument("--cmake")
    parser.add_argument("--make-program")
    parser.add_argument("--result-file", type=Path, help="write the prefix's path here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        pin = load_pin(options.version, options.pins)
        tools = find_toolchain(options)
        sdist = Path(options.sdist).expanduser() if options.sdist else None
        if options.prefix:
            prefix = options.prefix.absolute()
            if prefix.exists() and any(prefix.iterdir()):
                raise DepsError(f"{prefix} is not empty: name a new directory with --prefix")
            scratch = prefix.parent / f".{prefix.name}.tmp-{os.getpid()}"
            build_prefix(pin, tools, prefix, sdist, scratch, prefix.parent / f"{prefix.name}.log")
        else:
            prefix = cached_prefix(pin, tools, cache_directory(), sdist)
    except DepsError as error:
        print(f"native_deps: error: {error}", file=sys.stderr, flush=True)
        return 1
    if options.result_file:
        options.result_file.write_text(str(prefix), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
