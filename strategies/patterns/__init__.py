"""Which weights are masked: masks from shapes, a sparsity and a seed. NumPy only."""

from strategies.patterns.base import Pattern

__all__ = ["Pattern"]
