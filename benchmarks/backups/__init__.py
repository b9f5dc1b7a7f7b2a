"""The benchmark behind repositories.py."""
