"""How masked weights are held while the rest trains. TensorFlow, Keras and NumPy only."""

from masksweep.strategies.base import Binding, Invalid, MaskedWeight, Plan, Slot, Strategy, Weight
from masksweep.strategies.registry import all_patterns, all_strategies

__all__ = [
    "Binding",
    "Invalid",
    "MaskedWeight",
    "Plan",
    "Slot",
    "Strategy",
    "Weight",
    "all_patterns",
    "all_strategies",
]
