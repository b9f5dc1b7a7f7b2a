"""Backups: what is sent, what is not sent again, what they put right."""
