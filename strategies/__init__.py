"""Strategies: ways to hold masked weights while the rest trains. TensorFlow, Keras, NumPy only."""

from masksweep.strategies.base import Binding, Invalid, MaskedWeight, Plan, Slot, Strategy, Weight
from masksweep.strategies.patterns import PATTERNS
from masksweep.strategies.registry import STRATEGIES, register

__all__ = [
    "PATTERNS",
    "STRATEGIES",
    "Binding",
    "Invalid",
    "MaskedWeight",
    "Plan",
    "Slot",
    "Strategy",
    "Weight",
    "register",
]
