"""Putting back what is damaged or lost."""
