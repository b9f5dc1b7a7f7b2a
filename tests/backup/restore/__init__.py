"""Bringing a snapshot back, and moving it into place."""
