"""What masked weights must equal: the held values. NumPy only."""

from masksweep.strategies.held.base import Held
from masksweep.strategies.registry import Registry

HELD = Registry("held", Held, __name__)
"""Every kind of held values by name."""

__all__ = ["HELD", "Held"]
