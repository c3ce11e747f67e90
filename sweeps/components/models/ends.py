"""Checks that the inputs and outputs of a model fit the data and the loss."""

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
    """Checks the shapes of a network's ends, and that the outputs of a classification are logits.

    A subclassed Keras model does not tell its inputs and outputs, so it is not checked.

    Args:
        model: The model of the config, for messages.
        network: The Keras model that it builds.
        data: The data.

    Raises:
        Invalid: The inputs or the outputs do not fit.
    """
    tensors = getattr(network, "outputs", None)
    if not tensors:
        return
    if fault := input_fault(network, data.shape):
        raise _fault(model, fault)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if shapes != [(None, data.outputs)]:
        found = ", ".join(map(str, shapes))
        unit = {"classification": "classes", "multi_label": "labels"}.get(
            data.task, "values for each sample"
        )
        allowed = f"{data.name} has {data.outputs} {unit}, so they must be (None, {data.outputs})"
        raise _fault(model, f"has outputs of the shape {found}; {allowed}")
    if data.task != "regression" and (function := final_function(network)) in PROBABILITIES:
        allowed = "the loss takes logits, so the model must end without it"
        raise _fault(model, f"ends in a {function}; {allowed}")


def input_fault(network: Any, shape: tuple[int, ...]) -> str:
    """Returns what is wrong with the inputs of a network; empty if it takes the samples.

    Args:
        network: A Keras model, Functional or Sequential.
        shape: The shape of a sample. A size that the network leaves open (None) fits each.
    """
    expected, shapes = (None, *shape), [tuple(tensor.shape) for tensor in network.inputs]
    if len(shapes) == 1 and len(shapes[0]) == len(expected):
        pairs = zip(shapes[0], expected, strict=True)
        if all(size in (None, wanted) for size, wanted in pairs):
            return ""
    found = ", ".join(map(str, shapes))
    return f"has inputs of the shape {found}; it must be that of the data, {expected}"


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
