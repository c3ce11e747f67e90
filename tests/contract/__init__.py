"""Tests that every strategy must pass. A new strategy adds one entry to `cases.CASES`."""
