"""The benchmarks behind run.py."""
