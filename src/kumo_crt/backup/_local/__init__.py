"""What the machine a database is on gives and forbids: files, locks, room."""
