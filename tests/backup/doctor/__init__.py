"""What may go wrong with a repository."""
