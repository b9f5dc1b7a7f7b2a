"""What lets many work on a repository at once: leases, pins, notices, the commit, spares."""
