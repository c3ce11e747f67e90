"""Which weights are masked: masks from shapes, a sparsity and a seed. NumPy only."""

from masksweep.strategies.patterns.base import Pattern, Scored

__all__ = ["Pattern", "Scored"]
