"""What `build_info()` tells."""

from __future__ import annotations

import re
import warnings

import pytest

import kumo_crt

pytestmark = pytest.mark.filterwarnings("ignore:aws-c-event-stream:RuntimeWarning")


def test_versions_of_every_native_library() -> None:
    libraries = kumo_crt.build_info()["libraries"]
    assert {"aws-c-s3", "aws-c-io", "aws-c-http", "aws-c-auth", "aws-checksums"} <= set(libraries)
    for name, version in libraries.items():
        assert re.search(r"\d", version), (name, version)


def test_where_the_libraries_came_from() -> None:
    assert kumo_crt.build_info()["source"] in ("bundled", "system")


def test_the_version_is_that_of_the_package() -> None:
    assert kumo_crt.build_info()["version"] == kumo_crt.__version__


def test_features_are_named_and_boolean() -> None:
    features = kumo_crt.build_info()["features"]
    assert "request_body" in features
    assert all(isinstance(enabled, bool) for enabled in features.values())


def test_cpu_features_are_those_of_this_machine() -> None:
    found = kumo_crt.build_info()["cpu_features"]
    with open("/proc/cpuinfo", encoding="ascii") as file:
        flags = set(file.read().split())
    for name, flag in (("sse4.2", "sse4_2"), ("pclmulqdq", "pclmulqdq"), ("arm-crc", "crc32")):
        assert (name in found) == (flag in flags), name


def test_the_answer_is_a_copy() -> None:
    kumo_crt.build_info()["source"] = "changed"
    assert kumo_crt.build_info()["source"] != "changed"


def test_an_event_stream_decoder_with_an_overflow_is_warned_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        info = kumo_crt.build_info()
    affected = info["libraries"]["aws-c-event-stream"].startswith("0.5.")
    assert affected is not info["features"]["event_stream_checks_lengths"]
    assert len(caught) == len(info["warnings"]) == int(affected)
    if affected:
        assert "CVE-2026-5190" in str(caught[0].message)
        assert "checks every length" in str(caught[0].message)
        assert info["warnings"] == [str(caught[0].message)]
