"""Timing of steps, trials and sparse products beside dense ones. It may import all but `cli`."""
