"""Benchmarks: one module per sub-command of `scripts/bench`."""
