"""What `build_info()` tells."""

from __future__ import annotations

import re

import kumo_crt


def test_versions_of_every_native_library() -> None:
    versions = kumo_crt.build_info()["versions"]
    assert {"aws-c-s3", "aws-c-io", "aws-c-http", "aws-c-auth", "aws-checksums"} <= set(versions)
    for name, version in versions.items():
        assert re.search(r"\d", version), (name, version)


def test_where_the_libraries_came_from() -> None:
    assert kumo_crt.build_info()["source"] in ("bundled", "system")


def test_features_are_named_and_boolean() -> None:
    features = kumo_crt.build_info()["features"]
    assert "request_body" in features
    assert all(isinstance(enabled, bool) for enabled in features.values())


def test_cpu_features_for_crc32c() -> None:
    cpu = kumo_crt.build_info()["cpu"]
    assert cpu
    with open("/proc/cpuinfo", encoding="ascii") as file:
        known = file.read()
    sse42 = re.search(r"\bsse4_2\b", known) is not None
    if "sse4_2" in cpu or "sse4.2" in cpu:
        names = cpu if isinstance(cpu, dict) else dict.fromkeys(cpu, True)
        assert bool(names.get("sse4_2", names.get("sse4.2"))) == sse42


def test_the_answer_is_a_copy() -> None:
    kumo_crt.build_info()["source"] = "changed"
    assert kumo_crt.build_info()["source"] != "changed"
