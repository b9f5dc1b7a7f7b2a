"""How single fields of answers are read."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from kumo_crt.s3 import _answers, _xml


@pytest.mark.parametrize("month", range(1, 13))
def test_times_in_headers(month: int) -> None:
    time = datetime(2026, month, 9, 23, 59, 58, tzinfo=UTC)
    assert _answers.http_time(format_datetime(time, usegmt=True)) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, x6 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert _answers.http_time(text) is None


def test_escaped_text_comes_back() -> None:
    text = "a<b>&amp;\"'ü"
    assert _xml.parse(f"<k>{_xml.escape(text)}</k>".encode()).text == text


def test_namespaces_are_dropped() -> None:
    root = _xml.parse(b'<a xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><b>c</b></a>')
    assert (root.tag, root.findtext("b")) == ("a", "c")


@pytest.mark.parametrize("document", [b"", b"<a>", b"<html><p></html>", b"\xff\xfe"])
def test_what_is_no_xml_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError, match=":"):
        _xml.parse(document)
