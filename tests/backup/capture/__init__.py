"""Taking hold of a database: open, closed, in use elsewhere, in several places."""
