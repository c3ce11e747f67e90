"""Path of the files that older versions of Masksweep saved."""

from __future__ import annotations

from pathlib import Path

SAVED = Path(__file__).parents[1] / "saved"
