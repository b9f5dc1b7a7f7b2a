"""Backups of real databases, in real repositories."""
