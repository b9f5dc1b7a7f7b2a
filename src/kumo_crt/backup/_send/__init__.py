"""A backup: what is sent, how, and in which order."""
