"""The networks that a config can name, a file for each."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.models.base import Model

MODELS = Registry("models", Model, __name__)
"""Every model by name."""

__all__ = ["MODELS", "Model"]
