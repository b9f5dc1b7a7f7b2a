"""The engine that drives tasks, with operations that are scripted."""
