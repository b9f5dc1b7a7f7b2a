"""Scripted operations."""

from __future__ import annotations

import pytest

from kumo_crt import _core
from tests.engine.fakes import Client, Queue


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose operations are scripted."""
    monkeypatch.setattr(_core, "CompletionQueue", Queue)
    return Client()
