"""Many at work on one repository: leases, pins, notices, spares, the order of steps."""
