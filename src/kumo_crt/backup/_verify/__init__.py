"""Reads what is stored, and says what damage means."""
