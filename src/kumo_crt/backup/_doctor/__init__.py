"""Looks for what may go wrong with a repository, its bucket and its credentials."""
