"""Scripted operations."""

from __future__ import annotations

import pytest

from kumo_crt import _core
from tests.engine.fakes import Client, Queue, WatchedQueue


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose operations are scripted."""
    monkeypatch.setattr(_core, "CompletionQueue", Queue)
    return Client()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose operations are scripted, for an event loop."""
    monkeypatch.setattr(_core, "CompletionQueue", WatchedQueue)
    return Client()
