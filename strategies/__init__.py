"""How masked weights are held while the rest trains. TensorFlow, Keras and NumPy only."""

from strategies.base import (
    Binding,
    Invalid,
    MaskedWeight,
    Plan,
    Slot,
    Strategy,
    Weight,
)
from strategies.registry import all_patterns, all_strategies

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
