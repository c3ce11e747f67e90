"""Where the files are that older versions saved."""

from __future__ import annotations

from pathlib import Path

SAVED = Path(__file__).parents[1] / "saved"
