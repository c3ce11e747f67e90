"""Checks that the outputs of a model fit the data and the loss."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.strategies.core import keras_internals
from masksweep.sweeps.components.datasets.base import Arrays
from masksweep.sweeps.components.models.base import Model

PROBABILITIES = ("softmax", "sigmoid")
"""Functions whose results are probabilities, where the loss of a classification takes logits."""


def require_fit(model: Model, network: Any, data: Arrays) -> None:
    """Checks the number of a network's outputs, and that those of a classification are logits.

    A subclassed Keras model does not tell its outputs, so it is not checked.

    Args:
        model: The model of the config, for messages.
        network: The Keras model that it builds.
        data: The data.

    Raises:
        Invalid: The outputs do not fit.
    """
    tensors = getattr(network, "outputs", None)
    if not tensors:
        return
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if shapes != [(None, data.outputs)]:
        found = ", ".join(map(str, shapes))
        unit = "classes" if data.task == "classification" else "values for each sample"
        allowed = f"{data.name} has {data.outputs} {unit}, so they must be (None, {data.outputs})"
        raise _fault(model, f"has outputs of the shape {found}; {allowed}")
    if data.task == "classification" and (function := final_function(network)) in PROBABILITIES:
        allowed = "the loss takes logits, so the model must end without it"
        raise _fault(model, f"ends in a {function}; {allowed}")


def final_function(network: Any) -> str:
    """Returns the name of the activation that makes a network's outputs, as `softmax`.

    Args:
        network: A Keras model with one output, Functional or Sequential.

    Example:
        >>> import keras
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "sigmoid")]
        >>> final_function(keras.Sequential(layers))
        'sigmoid'
    """
    last = keras_internals.source(network.outputs[0])
    if getattr(last, "outputs", None):  # a model within the model
        return final_function(last)
    # an activation of Keras is a function, a layer, or an operation of `keras.ops`
    activation = getattr(last, "activation", None) or last
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def _fault(model: Model, reason: str) -> Invalid:
    """Returns the fault under the key that chooses the network: a file, or a model by name."""
    if "path" in (field.name for field in fields(model)):  # type: ignore[arg-type]
        return Invalid("model.path", getattr(model, "path", ""), reason)
    return Invalid("model", model.name, reason)
