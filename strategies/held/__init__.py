"""Held values: the values that masked entries must keep. NumPy only."""

from masksweep.strategies.held.base import Held
from masksweep.strategies.registry import Registry

HELD = Registry("held", Held, __name__)
"""Every kind of held values by name."""

__all__ = ["HELD", "Held"]
