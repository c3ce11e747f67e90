"""A job of a sweep as Hydra composed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Composed:
    """One job of a sweep: its overrides, and what they amount to."""

    overrides: Sequence[str]
    values: Mapping[str, Any]
    """The config as plain data, without Hydra's own; jobs may share parts of it."""
    part: str = ""
    """The part of the sweep that it is of, where there are parts."""
