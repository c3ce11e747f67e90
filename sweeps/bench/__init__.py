"""Benchmarks: steps, trials and sparse products beside dense ones. May import all but `cli`."""
