"""Reading what is stored, and what damage means."""
