"""Restores for a while, opens, reads, and compares."""
