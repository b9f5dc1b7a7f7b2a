"""The `kumo-crt` command; `main` is its entry point."""

from __future__ import annotations

from kumo_crt.cli._main import main

__all__ = ["main"]
