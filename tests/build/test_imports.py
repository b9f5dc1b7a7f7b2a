"""What importing kumo_crt loads: little, and nothing that takes long before it is needed.

Time is not measured here, only what is known to cost it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import kumo_crt

# Each of these, or what it loads in turn, takes milliseconds.
HEAVY = {
    "asyncio",
    "concurrent",
    "configparser",
    "ctypes",
    "decimal",
    "email",
    "http",
    "multiprocessing",
    "platform",
    "random",
    "rich",
    "rocksdict",
    "secrets",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib.request",
    "uuid",
    "xml",
}


def _loaded_by(statement: str) -> set[str]:
    script = (
        f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(answer.stdout.split())


def test_the_package_alone_loads_the_extension_and_nothing_else() -> None:
    assert _loaded_by("import kumo_crt") - {"__future__"} == {"kumo_crt", "kumo_crt._core"}


@pytest.mark.parametrize("name", ["S3Client", "Repository"])
def test_nothing_heavy_comes_with_the_classes(name: str) -> None:
    loaded = _loaded_by(f"from kumo_crt import {name}")
    assert {"kumo_crt.s3", "kumo_crt.exceptions"} <= loaded
    assert {module for module in loaded if not HEAVY.isdisjoint(_parents(module))} == set()


def test_a_client_loads_neither_the_other_one_nor_what_single_operations_need() -> None:
    loaded = {
        name.removeprefix("kumo_crt.s3.") for name in _loaded_by("from kumo_crt import S3Client")
    }
    assert {"_client", "_get", "_objects"} <= loaded
    late = {
        "_async_client",
        "_copy",
        "_deletions",
        "_head",
        "_listings",
        "_put",
        "_resume",
    }
    assert loaded & late == set()


def test_a_restore_loads_nothing_that_only_backups_need() -> None:
    loaded = _loaded_by("from kumo_crt import Repository; import kumo_crt.backup._restore._restore")
    assert "kumo_crt.backup._store._fetch" in loaded
    ours = {name.removeprefix("kumo_crt.backup.") for name in loaded}
    late = {"_capture", "_format._names", "_packing", "_reports"}
    late |= {f"_coordination.{name}" for name in ("_inflight", "_lease", "_pins")}
    assert ours & late == set()
    assert loaded & {"hashlib", "shutil", "kumo_crt.s3._async_client", "kumo_crt.s3._put"} == set()


def test_only_those_who_look_after_a_repository_load_what_does_that() -> None:
    loaded = _loaded_by("from kumo_crt import Repository")
    ours = {name.removeprefix("kumo_crt.backup.") for name in loaded}
    work = {"_capture", "_doctor", "_drill", "_prune", "_repair", "_restore", "_send", "_verify"}
    assert ours & (work | {"_reports"}) == set()
    # Making a backup does not load what looks after one, and the other way round.
    loaded = _loaded_by("import kumo_crt.backup._send._upload, kumo_crt.backup._capture")
    ours = {name.removeprefix("kumo_crt.backup.") for name in loaded}
    assert ours & (work | {"_reports"}) == {"_capture", "_send"}


def _parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def test_every_public_name_is_found() -> None:
    for name in kumo_crt.__all__:
        assert getattr(kumo_crt, name) is not None
    assert set(kumo_crt.__all__) <= set(dir(kumo_crt))


def test_submodules_are_found_without_being_imported() -> None:
    statement = "import kumo_crt; kumo_crt.exceptions.KumoError; kumo_crt.s3.S3Client"
    assert "kumo_crt.backup" not in _loaded_by(statement)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'S4Client'"):
        getattr(kumo_crt, "S4Client")  # noqa: B009
