"""Reads and writes a repository: its documents, its data objects and the files in them."""
