"""Limits that several parts of a sweep keep to."""

from __future__ import annotations

from pathlib import Path

LARGE = 50 * 2**20
"""Bytes of a file that does not travel with every trial."""

HURRY_SECONDS = 3.0
"""How long the end of a sweep waits for the store after Ctrl-C."""

STATE = Path(".masksweep")
"""Spool, logs and checkpoints of the sweeps that were started in this folder."""
