"""Keras' optimizers that a config can name, a file for each."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.optimizers.base import Optimizer

OPTIMIZERS = Registry("optimizers", Optimizer, __name__)
"""Every optimizer by name."""

__all__ = ["OPTIMIZERS", "Optimizer"]
