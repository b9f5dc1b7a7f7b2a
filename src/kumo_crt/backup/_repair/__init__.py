"""Puts back what is damaged or lost, from what has it still."""
