"""The Keras optimizers that a config can name, one in each file."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.optimizers.base import Optimizer

OPTIMIZERS = Registry("optimizers", Optimizer, __name__)
"""The registry of optimizers."""

__all__ = ["OPTIMIZERS", "Optimizer"]
