"""The tests. Their folders are those of `sweeps/` and `strategies/`."""
