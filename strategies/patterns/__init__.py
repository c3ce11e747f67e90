"""Patterns: they make masks from the shapes of the weights and a seed. NumPy only."""

from masksweep.strategies.patterns.base import Pattern, Scored
from masksweep.strategies.registry import Registry

PATTERNS = Registry("patterns", Pattern, __name__)
"""Every pattern by name."""

__all__ = ["PATTERNS", "Pattern", "Scored"]
