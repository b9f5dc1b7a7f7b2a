"""Servers, faults and databases that several test modules share."""
