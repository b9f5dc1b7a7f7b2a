"""Restores on trial."""
