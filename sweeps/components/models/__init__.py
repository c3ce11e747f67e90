"""The networks that a config can name, one in each file."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.models.base import Model

MODELS = Registry("models", Model, __name__)
"""The registry of models."""

__all__ = ["MODELS", "Model"]
