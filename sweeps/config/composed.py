"""A job of a sweep, as Hydra composed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ComposedJob:
    """One job of a sweep: its overrides and the config that results from them."""

    overrides: Sequence[str]
    values: Mapping[str, Any]
    """The composed config as plain data, without Hydra's own section. Jobs may share parts of
    it, so it must not be changed."""
    part: str = ""
    """Name of the part of the sweep that the job belongs to; empty in a sweep without parts."""
