"""Brings a snapshot back, and moves it into place."""
